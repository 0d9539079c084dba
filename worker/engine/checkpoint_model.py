"""A loaded checkpoint as engines see it: its facts, its prompts, its text, and its errors."""

from __future__ import annotations

import re
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from controller.protocol.chat import ChatMessage, ContentPart, ImagePart, ImageUrl, TextPart
from controller.protocol.errors import (
    BadRequestError,
    DeviceLostError,
    ModelNotFoundError,
    OutOfMemoryError,
    ParagoneError,
    UnsupportedError,
)
from controller.protocol.fleet import ModelCard
from worker.checkpoint.errors import CheckpointError
from worker.checkpoint.memory import free_bytes
from worker.checkpoint.prompt import PreparedPrompt
from worker.checkpoint.spec import LoraSpec
from worker.checkpoint.templates import requested_template
from worker.engine.engine_prompt import EnginePrompt, image_digests
from worker.engine.protocol import GenerationRequest, PromptView, SamplingParams
from worker.engine.sampler import Sampler, SamplingDefaults
from worker.engine.sampler_factory import SamplerFactory
from worker.engine.vocabulary import Vocabulary

if TYPE_CHECKING:
    from worker.checkpoint.load import LoadedCheckpoint
    from worker.checkpoint.shared import SharedBase

# Of models whose config names no length; LLaVA's own default.
DEFAULT_CONTEXT_LENGTH = 2048
# How torch's CPU allocator says that it could not get memory.
_CPU_ALLOCATION = re.compile(
    r"(?:DefaultCPUAllocator|can't allocate memory).*?(\d+ bytes)", re.DOTALL
)
_CUDA_ALLOCATION = re.compile(r"Tried to allocate ([\d.]+ \w+)")


class ServedCheckpoint:
    """One of an engine's models, as its answers need it.

    Args:
        checkpoint: what it is.
        kv_tokens: tokens that the cache may hold; bounds the context.
    """

    def __init__(self, checkpoint: LoadedCheckpoint, *, kv_tokens: int | None = None) -> None:
        self.checkpoint = checkpoint
        length = checkpoint.context_length or DEFAULT_CONTEXT_LENGTH
        self.context_length = length if kv_tokens is None else min(length, kv_tokens)
        self.end_token_ids = checkpoint.eos_token_ids
        given = checkpoint.generation_defaults
        # What the checkpoint leaves open is greedy and unfiltered, as in transformers.
        defaults = SamplingDefaults(
            temperature=given.temperature or 0.0,
            top_p=given.top_p or 1.0,
            top_k=given.top_k or 0,
            min_p=given.min_p or 0.0,
            repetition_penalty=given.repetition_penalty or 1.0,
        )
        config: Any = checkpoint.model.config
        self._vocabulary = Vocabulary(checkpoint.tokenizer, self.end_token_ids)
        self.samplers = SamplerFactory(
            defaults,
            vocabulary=self._vocabulary,
            vocab_size=config.get_text_config(decoder=True).vocab_size,
            end_token_ids=self.end_token_ids,
        )

    def decode(self, token_ids: Sequence[int]) -> str:
        """Ids to text, special tokens left out."""
        text: str = self.checkpoint.tokenizer.decode(
            list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    def token_bytes(self, token_id: int) -> bytes:
        """What a token stands for; see `Vocabulary.token_bytes`."""
        return self._vocabulary.token_bytes(token_id)

    def prepare(self, request: GenerationRequest) -> PreparedPrompt:
        """Prompt and pixels, on the CPU."""
        self.samplers.check(request.sampling)
        if request.prompt is not None:
            return self._prepare_prompt(request.prompt, request.images)
        return self.checkpoint.prepare(
            request.messages,
            request.images,
            request.image_process_mode,
            requested_template(request.chat_template),
        )

    def preview(self, request: GenerationRequest) -> PromptView:
        """What it would be asked, and its images as its encoder gets them."""
        prepared = self.prepare(request)
        views = [
            self.checkpoint.prompting.views(image, request.image_process_mode)
            for image in request.images
        ]
        return PromptView(
            prepared.text, prepared.prompt_tokens, prepared.image_tokens, tuple(views)
        )

    def _prepare_prompt(
        self, prompt: str | tuple[int, ...], images: Sequence[Image.Image]
    ) -> PreparedPrompt:
        """A prompt that is continued as it is; images come with texts alone, at their markers."""
        if isinstance(prompt, str):
            prepared = self.checkpoint.prompting.prepare_text(prompt, images)
        else:
            self.samplers.require_ids("prompt", prompt)
            if self.checkpoint.image_token_id in prompt:
                raise BadRequestError(
                    "prompt: images have no token ids of their own; send them to "
                    "/v1/chat/completions",
                    param="prompt",
                )
            prepared = PreparedPrompt(self.decode(prompt), prompt, 0, {})
        if not prepared.prompt_tokens:
            raise BadRequestError("prompt: it is empty, and this model needs a token to go on from",
                                  param="prompt")  # fmt: skip
        return prepared


class CheckpointModel(ABC):
    """What models of all engines share. Its subclasses run the forward passes.

    Args:
        checkpoints: one, or several over the same base.
        kv_tokens: tokens that the cache may hold; bounds the contexts.
        shared: what adapters are taken into while running; None takes none.
    """

    def __init__(
        self,
        *checkpoints: LoadedCheckpoint,
        kv_tokens: int | None = None,
        shared: SharedBase | None = None,
    ) -> None:
        self._kv_tokens = kv_tokens
        self._shared = shared
        self._checkpoint = checkpoints[0]  # for what they have in common
        self._model: Any = checkpoints[0].model
        self._served: dict[str, ServedCheckpoint] = {}
        for checkpoint in checkpoints:
            self.admit(checkpoint)

    @property
    def cards(self) -> tuple[ModelCard, ...]:
        """What they are."""
        return tuple(served.checkpoint.card for served in self._served.values())

    def serving(self, model: str) -> ServedCheckpoint:
        """One of them, by name.

        Raises:
            ModelNotFoundError: it is not, or no longer, among them.
        """
        served = self._served.get(model)
        if served is None:
            raise ModelNotFoundError(f"{model!r} is not served here any more", param="model")
        return served

    def admit(self, checkpoint: LoadedCheckpoint) -> None:
        """Serves another one over the same base."""
        served = ServedCheckpoint(checkpoint, kv_tokens=self._kv_tokens)
        self._served = {**self._served, checkpoint.card.name: served}

    def read_adapter(self, name: str, path: str) -> Callable[[], ModelCard]:
        """See `ServedModel.read_adapter`."""
        if self._shared is None:
            raise UnsupportedError(
                "this worker takes no adapters while it runs; start it with --allow-runtime-lora"
            )
        try:
            put = self._shared.read(LoraSpec(name, path))
        except CheckpointError as exc:
            raise BadRequestError(f"lora_path: {exc}", param="lora_path") from exc
        like = self._checkpoint.card

        def serve() -> ModelCard:
            checkpoint = put()
            told = ("engine", "engine_reason", "cuda_graphs")
            card = checkpoint.card.model_copy(update={name: getattr(like, name) for name in told})
            self.admit(replace(checkpoint, card=card))
            return card

        return serve

    def dismiss(self, name: str) -> Callable[[], None]:
        """See `ServedModel.dismiss`."""
        checkpoint = self.serving(name).checkpoint
        if checkpoint.adapter is None or self._shared is None:
            raise BadRequestError(f"{name!r} is no adapter, and stays", param="lora_name")
        self._served = {key: each for key, each in self._served.items() if key != name}
        return partial(self.release, checkpoint)

    def release(self, checkpoint: LoadedCheckpoint) -> None:
        """Frees what was a dismissed one's own. On the model's thread, once nothing uses it."""
        checkpoint.release()

    def prepare(self, request: GenerationRequest) -> EnginePrompt:
        """Prompt and pixels, on the CPU."""
        served = self.serving(request.model)
        prepared = served.prepare(request)
        digests = image_digests(request.images, request.image_process_mode)
        return EnginePrompt(prepared, served, digests)

    def preview(self, request: GenerationRequest) -> PromptView:
        """What it would be asked, and its images as its encoder gets them."""
        return self.serving(request.model).preview(request)

    def device_memory_bytes(self) -> int | None:
        """What torch holds on accelerators, all together."""
        devices = [device for device in self._checkpoint.devices if device.type == "cuda"]
        return sum(map(torch.cuda.memory_allocated, devices)) if devices else None

    def warm_up(self) -> None:
        """Two tokens about a blank picture, or about nothing where the model cannot see.

        The first forward passes on a device load kernels, which no user should wait for; and a
        model that cannot run at all fails here, before it is called ready.
        """
        for served in self._served.values():
            parts: list[ContentPart] = [TextPart(text="Hello")]
            images: tuple[Image.Image, ...] = ()
            if served.checkpoint.prompting.takes_images:
                parts.append(ImagePart(image_url=ImageUrl(url="data:,")))
                images = (Image.new("RGB", (64, 64), "white"),)
            request = GenerationRequest(
                request_id="warm-up",
                model=served.checkpoint.card.name,
                messages=(ChatMessage(role="user", content=parts),),
                images=images,
            )
            self._two_tokens(self.prepare(request))

    def _sampler(self, sampling: SamplingParams, prompt: EnginePrompt) -> Sampler:
        """How an answer's tokens are chosen."""
        prepared = prompt.prepared
        return prompt.served.samplers.sampler(sampling, prepared.input_ids, prepared.stop_token_ids)

    @abstractmethod
    def _two_tokens(self, prompt: EnginePrompt) -> None:
        """An answer of two tokens, by the passes that answers are made of."""

    def _translate(self, exc: RuntimeError) -> ParagoneError | None:
        """An error of torch, of which all are RuntimeErrors, as engines know it; None: a bug."""
        if isinstance(exc, torch.OutOfMemoryError) or _CPU_ALLOCATION.search(str(exc)):
            # The traceback would keep cache and activations for as long as the error lives.
            traceback.clear_frames(exc.__traceback__)
            return self._out_of_memory(str(exc))
        if isinstance(exc, torch.AcceleratorError):
            return DeviceLostError(
                f"The device failed and takes no more work until a restart: {exc}"
            )
        return None

    def _out_of_memory(self, reason: str) -> OutOfMemoryError:
        if self._checkpoint.device.type == "cuda":
            torch.cuda.empty_cache()
        free = free_bytes(self._checkpoint.device)
        needed = _needed(reason)
        return OutOfMemoryError(
            f"The device has too little memory for this request: {needed} needed, {free} bytes "
            f"free. Shorten the conversation, send fewer images, or set max_tokens"
        )


def _needed(reason: str) -> str:
    """How much memory torch could not get, in its own words."""
    for pattern in (_CPU_ALLOCATION, _CUDA_ALLOCATION):
        match = pattern.search(reason)
        if match is not None:
            return match[1]
    return reason.strip().splitlines()[0]
