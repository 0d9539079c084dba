"""OpenAI's API over a legacy worker: a request in its words, its frames in OpenAI's.

The only place where an answer is decoded on its way. Legacy workers repeat the prompt and the whole
answer in every frame, stop at no stop string, and say nothing of usage (LLaVA) or of the end's
reason; so the prompt is cut off here, and stop strings end the answer here.
"""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import dataclass

from pydantic import ValidationError

from controller.chassis.openapi import CHAT_COMPLETIONS
from controller.legacy.frames import FrameFramer
from controller.protocol import sse
from controller.protocol.chat import (
    AnswerMessage,
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionRequest,
    Choice,
    ChunkChoice,
    Delta,
    FinishReason,
    Usage,
)
from controller.protocol.errors import BadRequestError, LegacyWorkerError, UnsupportedError
from controller.protocol.legacy import END
from controller.protocol.legacy_templates import LegacyTemplate, render, template_by_name
from controller.protocol.message import Message

DEFAULT_ANSWER_TOKENS = 1024  # LLaVA's workers cap at it, FastChat's take it
DEFAULT_TEMPERATURE = 0.2  # of LLaVA's page


class Frame(Message):
    """One frame as far as it is read."""

    text: str
    error_code: int = 0
    usage: Usage | None = None  # FastChat's
    finish_reason: str | None = None


@dataclass(frozen=True, slots=True)
class LegacyParameters:
    """A request in a legacy worker's words, and what its answer needs of it."""

    body: bytes
    prompt: str
    model: str
    stop: tuple[str, ...]
    stream: bool
    include_usage: bool


def legacy_parameters(path: str, body: bytes, template: LegacyTemplate | None) -> LegacyParameters:
    """Puts a chat completion request into the words of ``/worker_generate_stream``.

    Args:
        path: what was asked for.
        body: the request as it came.
        template: the worker's own; None takes what LLaVA's page would.

    Raises:
        BadRequestError: the request is wrong, or cannot be put so.
    """
    if path != CHAT_COMPLETIONS:
        raise UnsupportedError(
            f"The model is served by a legacy worker, which {path} cannot be asked of; "
            f"use {CHAT_COMPLETIONS}"
        )
    try:
        chat = ChatCompletionRequest.model_validate_json(body)
    except ValidationError as exc:
        first = exc.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BadRequestError(f"{where or 'body'}: {first['msg']}", param=where or None) from exc
    if chat.n > 1:
        raise UnsupportedError("n: a legacy worker gives one answer a request", param="n")
    template = template or template_by_name(chat.model)
    prompt, images = render(template, chat.messages)
    temperature = DEFAULT_TEMPERATURE if chat.temperature is None else chat.temperature
    parameters: dict[str, object] = {
        "model": chat.model,
        "prompt": prompt,
        "temperature": temperature,
        "top_p": 1.0 if chat.top_p is None else chat.top_p,
        "max_new_tokens": chat.token_limit or DEFAULT_ANSWER_TOKENS,
        "stop": template.stop_strings[0],  # LLaVA's workers fail without it, or with a list
        "images": images,
        "echo": False,  # FastChat's workers repeat the prompt without it
    }
    return LegacyParameters(
        body=json.dumps(parameters).encode(),
        prompt=prompt,
        model=chat.model,
        stop=(*(s for s in chat.stop_strings if s), *template.stop_strings),
        stream=chat.stream,
        include_usage=chat.wants_usage,
    )


class LegacyAnswer:
    """Frames in, server-sent events out; or, for a client that wants no stream, one answer.

    A `framing.Framer`.
    """

    def __init__(self, parameters: LegacyParameters, *, request_id: str) -> None:
        self._parameters = parameters
        self._request_id = request_id
        self._frames = FrameFramer()
        self._id = "chatcmpl-" + uuid.uuid4().hex
        self._created = int(time.time())
        self._text = ""  # what is certain of the answer
        self._latest = ""  # all that the worker said so far
        self._sent = 0  # characters of it
        self._usage: Usage | None = None
        self._reason = FinishReason.STOP
        self.has_enough = False  # a stop string came: what comes after it is not read

    def feed(self, piece: bytes) -> bytes:
        """The events that new text makes.

        Raises:
            EventTooLongError: a frame has no end in sight.
            LegacyWorkerError: the worker says that it failed, or what it sends are no frames.
        """
        frames = [frame for frame in self._frames.feed(piece).split(END) if frame.strip()]
        if frames and not self.has_enough:
            self._take(frames[-1])  # it holds all that the others do
        return self._news() if self._parameters.stream else b""

    @property
    def is_complete(self) -> bool:
        """Whether the worker may end here."""
        return self._frames.is_complete

    def are_comments(self, _events: bytes) -> bool:
        """Never: only text makes events."""
        return False

    def rest(self) -> bytes:
        """The last events, or the whole answer."""
        if not self.has_enough:  # what was held back became no stop string
            self._text = self._latest
        if not self._parameters.stream:
            return self._whole()
        last = self._news() + self._chunk([ChunkChoice(delta=Delta(), finish_reason=self._reason)])
        if self._parameters.include_usage and self._usage is not None:
            last += self._chunk([], usage=self._usage)
        return last + sse.DONE

    def _news(self) -> bytes:
        """An event with the text that was not sent yet, if there is any."""
        if len(self._text) == self._sent:
            return b""
        delta = Delta(role=None if self._sent else "assistant", content=self._text[self._sent :])
        self._sent = len(self._text)
        return self._chunk([ChunkChoice(delta=delta)])

    def _take(self, encoded: bytes) -> None:
        try:
            frame = Frame.model_validate_json(encoded)
        except ValidationError as exc:
            raise LegacyWorkerError("The legacy worker sent something that is no frame") from exc
        if frame.error_code:
            raise LegacyWorkerError(
                f"The legacy worker failed with code {frame.error_code}: {frame.text[:500]}"
            )
        # As LLaVA's page does: the prompt off, and the space that follows its last colon.
        text = self._latest = frame.text.removeprefix(self._parameters.prompt).lstrip()
        self._usage = frame.usage or self._usage
        if frame.finish_reason == "length":
            self._reason = FinishReason.LENGTH
        ends = [at for stop in self._parameters.stop if (at := text.find(stop)) >= 0]
        if ends:
            text, self.has_enough = text[: min(ends)], True
        else:
            text = self._certain(text)
        if len(text) > len(self._text):
            self._text = text

    def _certain(self, text: str) -> str:
        """Text without what may still become a stop string or a whole character."""
        text = text.rstrip("\ufffd")
        held = 0
        for stop in self._parameters.stop:
            for length in range(min(len(stop) - 1, len(text)), held, -1):
                if text.endswith(stop[:length]):
                    held = length
                    break
        return text[: len(text) - held]

    def _chunk(self, choices: list[ChunkChoice], usage: Usage | None = None) -> bytes:
        return sse.encode(
            ChatCompletionChunk(
                id=self._id,
                created=self._created,
                model=self._parameters.model,
                choices=choices,
                usage=usage,
            )
        )

    def _whole(self) -> bytes:
        answer = ChatCompletion(
            id=self._id,
            created=self._created,
            model=self._parameters.model,
            choices=[Choice(message=AnswerMessage(content=self._text), finish_reason=self._reason)],
            usage=self._usage or Usage(prompt_tokens=0, completion_tokens=0, total_tokens=0),
        ).model_dump(exclude_none=True)
        if self._usage is None:  # LLaVA's workers do not count; nobody else could
            del answer["usage"]
        return json.dumps(answer).encode()
