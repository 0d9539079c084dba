"""`ChatBot`: a checkpoint and one conversation about images, for notebooks and scripts.

It runs on the worker's engine, so that it says what a worker would. The engine lives on an event
loop of its own thread: calls block, and work where a loop runs already, as in Jupyter.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, overload

from controller.protocol.chat import (
    ChatCompletionChunk,
    ChatCompletionRequest,
    ChatMessage,
    ContentPart,
    ImagePart,
    ImageUrl,
    TextPart,
)
from controller.protocol.fleet import LoadProgress, ModelCard
from controller.protocol.preview import PreviewRequest
from worker.chat_arguments import chat_request, loading_settings
from worker.chat_images import ImageSource, several, uri_of
from worker.chat_loop import LoopThread
from worker.chat_source import LocalSource
from worker.checkpoint.facts import describe
from worker.loading_settings import LoadingSettings

_log = logging.getLogger(__name__)


class ChatBot:
    """One checkpoint, and one conversation at a time.

    Args:
        model_path: a folder, or owner/name on the Hugging Face hub.
        device_map: "auto", another strategy, a device, or modules and their devices.
        load_in_8bit: hold the language model in 8 bits.
        load_in_4bit: hold it in 4 bits.
        model_base: base language model of a LoRA or a projector-only checkpoint.
        quantisation: any other setting of `LoadingSettings` by its name or transformers':
            ``bnb_4bit_quant_type``, ``bnb_4bit_compute_dtype`` (torch's dtypes too), ``dtype``,
            ``chat_template``, ``device``, ...

    Raises:
        CheckpointError: it cannot be loaded, and why.
        ValueError: settings that contradict each other.
        TypeError: a setting that does not exist.
    """

    def __init__(
        self,
        model_path: str,
        device_map: str | Mapping[str, Any] = "auto",
        load_in_8bit: bool = False,
        load_in_4bit: bool = False,
        model_base: str | None = None,
        **quantisation: Any,  # noqa: ANN401 - of many types, which the settings check
    ) -> None:
        given = {
            "load_8bit": load_in_8bit,
            "load_4bit": load_in_4bit,
            **loading_settings(quantisation),
        }
        if "device" not in given and device_map != "auto":
            given["device_map"] = device_map
        settings = LoadingSettings(
            model_path=str(model_path), model_base=model_base and str(model_base), **given
        )
        self._messages: list[ChatMessage] = []
        describe(settings.load_spec())  # a wrong path is known at once, without torch
        self._loop = LoopThread()
        try:
            self._source = self._loop.run(LocalSource.load(settings.load_spec(), _log_progress))
        except BaseException:
            self._loop.end()
            raise
        # Also where nobody calls close. A process that ends needs none of it.
        self._end = weakref.finalize(self, _shut_down, self._loop, self._source)
        self._end.atexit = False

    @property
    def card(self) -> ModelCard:
        """What was loaded: name, format, quantisation, context, parameters."""
        return self._source.card

    @overload
    def start_new_chat(
        self,
        img_path: ImageSource | Sequence[ImageSource] | None,
        prompt: str,
        do_sample: bool = True,
        temperature: float = 0.2,
        max_new_tokens: int = 1024,
        use_cache: bool = True,
        *,
        stream: Literal[False] = False,
        **sampling: object,
    ) -> str: ...

    @overload
    def start_new_chat(
        self,
        img_path: ImageSource | Sequence[ImageSource] | None,
        prompt: str,
        do_sample: bool = True,
        temperature: float = 0.2,
        max_new_tokens: int = 1024,
        use_cache: bool = True,
        *,
        stream: Literal[True],
        **sampling: object,
    ) -> Iterator[str]: ...

    def start_new_chat(  # noqa: PLR0917 - the signature of the tutorials
        self,
        img_path: ImageSource | Sequence[ImageSource] | None,
        prompt: str,
        do_sample: bool = True,
        temperature: float = 0.2,
        max_new_tokens: int = 1024,
        use_cache: bool = True,
        *,
        stream: bool = False,
        **sampling: Any,
    ) -> str | Iterator[str]:
        """Forgets the conversation and asks about images; the answer.

        Args:
            img_path: a file, an address, bytes or a PIL image; several in a list; None for none.
            prompt: the question.
            do_sample: False is greedy, whatever the temperature.
            temperature: of sampling.
            max_new_tokens: most tokens of the answer.
            use_cache: of no effect: what was computed is always kept.
            stream: iterate over pieces of the answer instead. Closing the iterator stops it, and
                what there is of the answer is the answer.
            sampling: more fields of a chat completion: ``top_p``, ``seed``, ``stop``, ...

        Raises:
            BadImageError: an image cannot be read; the conversation before goes on.
            ParagoneError: there is no answer, and why.
            TypeError: a setting that does not exist.
        """
        images = [self._loop.run(uri_of(each)) for each in several(img_path)]
        parts: list[ContentPart] = [ImagePart(image_url=ImageUrl(url=uri)) for uri in images]
        question = ChatMessage(role="user", content=[*parts, TextPart(text=prompt)])
        asked = chat_request(
            self.card.name,
            [question],
            do_sample=do_sample,
            temperature=temperature,
            max_new_tokens=max_new_tokens,
            use_cache=use_cache,
            sampling=sampling,
        )
        self._messages = []
        return self._answer(asked, stream=stream)

    @overload
    def continue_chat(
        self,
        prompt: str,
        do_sample: bool = True,
        temperature: float = 0.2,
        max_new_tokens: int = 1024,
        use_cache: bool = True,
        *,
        stream: Literal[False] = False,
        **sampling: object,
    ) -> str: ...

    @overload
    def continue_chat(
        self,
        prompt: str,
        do_sample: bool = True,
        temperature: float = 0.2,
        max_new_tokens: int = 1024,
        use_cache: bool = True,
        *,
        stream: Literal[True],
        **sampling: object,
    ) -> Iterator[str]: ...

    def continue_chat(
        self,
        prompt: str,
        do_sample: bool = True,
        temperature: float = 0.2,
        max_new_tokens: int = 1024,
        use_cache: bool = True,
        *,
        stream: bool = False,
        **sampling: Any,
    ) -> str | Iterator[str]:
        """Asks on in the same conversation; arguments as of `start_new_chat`.

        Raises:
            RuntimeError: there is no conversation yet.
            ParagoneError: there is no answer, and why; the conversation stays as it was.
        """
        if not self._messages:
            raise RuntimeError("there is no chat to go on with: call start_new_chat first")
        messages = [*self._messages, ChatMessage(role="user", content=prompt)]
        asked = chat_request(
            self.card.name,
            messages,
            do_sample=do_sample,
            temperature=temperature,
            max_new_tokens=max_new_tokens,
            use_cache=use_cache,
            sampling=sampling,
        )
        return self._answer(asked, stream=stream)

    def get_conv_text(self) -> str:
        """The conversation as the model was given it, with the last answer.

        Raises:
            RuntimeError: there is no conversation yet.
        """
        if not self._messages:
            raise RuntimeError("there is no chat yet: call start_new_chat first")
        *before, last = self._messages
        asked = PreviewRequest(model=self.card.name, messages=before)
        prompt = self._loop.run(self._source.prompt(asked))
        space = "" if prompt[-1:].isspace() else " "
        return f"{prompt}{space}{last.content}"

    def close(self) -> None:
        """Gives up the model; nothing can be asked any more."""
        self._end()
        self._loop.join()

    def _answer(self, asked: ChatCompletionRequest, *, stream: bool) -> str | Iterator[str]:
        pieces = self._pieces(asked)
        return pieces if stream else "".join(pieces)

    def _pieces(self, asked: ChatCompletionRequest) -> Iterator[str]:
        """The answer in pieces; however it ends, what there is of it joins the conversation."""
        chunks = self._source.answer(asked)
        said = ""
        try:
            while (chunk := self._loop.run(_next(chunks))) is not None:
                text = "".join(choice.delta.content or "" for choice in chunk.choices)
                if text:
                    said += text
                    yield text
        finally:
            self._loop.run(chunks.aclose())
            if said:
                answer = ChatMessage(role="assistant", content=said)
                self._messages = [*asked.messages, answer]


LLaVAChatBot = ChatBot  # as public tutorials call it


def _shut_down(loop: LoopThread, source: LocalSource) -> None:
    loop.end(source.aclose())


async def _next(chunks: Any) -> ChatCompletionChunk | None:  # noqa: ANN401 - an async generator
    """The next chunk; None after the last."""
    return await anext(chunks, None)


def _log_progress(progress: LoadProgress) -> None:
    _log.debug("loading: %s, %.0f%%", progress.phase, progress.fraction * 100)
