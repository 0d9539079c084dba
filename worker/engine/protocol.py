"""What the server asks of an engine, and what it gets back. No torch, no HTTP.

An engine is a black box that turns requests into streams of events. How it runs them, one after
another or in a batch, is its own affair: nothing outside `worker.engine` depends on it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from controller.protocol.chat import (
    ChatMessage,
    FinishReason,
    ImageProcessMode,
    Metrics,
    Usage,
)
from controller.protocol.fleet import ModelCard
from worker.engine.tokens import ShownToken

if TYPE_CHECKING:
    from PIL.Image import Image

    from worker.vision.tiles import ImageView


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How the tokens of one answer are chosen, and when it ends.

    None for temperature, top_p, top_k, min_p or repetition_penalty means the checkpoint's own
    default. ``temperature`` 0 is greedy; ``top_k`` 0 or -1 is off. ``max_tokens`` None means as
    many as fit. ``choice`` is which of several answers to one question this is: each draws its own
    numbers from the seed. ``logprobs`` is how many of the likeliest tokens are told beside the
    chosen one; None tells nothing. ``json_schema`` is what the answer must be, a JSON schema as
    JSON. Tokens that end an answer cannot come before ``min_tokens`` are there.
    """

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()  # token id, what is added to its logit
    seed: int | None = None
    choice: int = 0
    max_tokens: int | None = None
    min_tokens: int = 0
    stop: tuple[str, ...] = ()
    stop_token_ids: frozenset[int] = frozenset()
    ignore_eos: bool = False
    logprobs: int | None = None
    json_schema: str | None = None


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One answer that is asked for.

    ``images`` are decoded, in the order of the image parts of ``messages``. ``prompt``, where it is
    given, takes the place of the messages: text or token ids, to be continued as they are.
    ``arrived`` is when the request reached this process, on `time.monotonic`; without it, when the
    engine gets it. ``timeout_seconds`` counts from then.
    """

    request_id: str
    model: str
    messages: tuple[ChatMessage, ...] = ()
    images: tuple[Image, ...] = ()
    image_process_mode: ImageProcessMode = ImageProcessMode.DEFAULT
    chat_template: str | None = None  # a name; instead of the model's own
    sampling: SamplingParams = SamplingParams()
    arrived: float | None = None
    prompt: str | tuple[int, ...] | None = None
    timeout_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Reuse:
    """What of a prompt did not have to be computed, as it had been before."""

    cached_tokens: int = 0  # of which keys and values were there
    image_cache_hits: int = 0  # images whose features, or keys and values, were there
    encoded_images: int = 0  # images that went through the vision tower


@dataclass(frozen=True, slots=True)
class Accepted:
    """The request has a place in the queue and its prompt fits. Always the first event."""

    prompt_tokens: int
    image_tokens: int


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More text. Never half a character, never part of a stop string.

    ``tokens`` are those that it comes from, where the request asked for their probabilities.
    """

    text: str
    tokens: tuple[ShownToken, ...] = ()


@dataclass(frozen=True, slots=True)
class Finished:
    """The answer is complete. Always the last event, unless an error took its place."""

    reason: FinishReason
    usage: Usage
    metrics: Metrics
    stop_reason: int | str | None = None  # the request's stop string or token id that ended it


GenerationEvent = Accepted | TextDelta | Finished


@dataclass(frozen=True, slots=True)
class PromptView:
    """A prompt as it would be asked, and what its images are to the encoder."""

    prompt: str
    prompt_tokens: int
    image_tokens: int
    images: tuple[ImageView, ...] = ()


@dataclass(frozen=True, slots=True)
class CacheMemory:
    """What an engine may hold besides the model, in bytes. None: it decides by what is free."""

    kv_bytes: int | None = None  # keys and values of rows and of what is kept
    prefix_bytes: int | None = None  # of which for what is kept for later; None: half
    image_bytes: int = 256 * 2**20  # features of images
    share: float = 1.0  # of what is free that is this engine's, where others decide so as well


@dataclass(frozen=True, slots=True)
class CacheStats:
    """What caches hold and found since the start."""

    kv_tokens: int | None = None  # that there is memory for; None: as many as fit
    kv_used_tokens: int = 0  # that rows and prefixes have taken memory for
    prefix_queries: int = 0  # tokens of prompts that were looked for
    prefix_hits: int = 0  # and found
    image_queries: int = 0  # images that were looked for
    image_hits: int = 0  # and found
    image_bytes: int = 0  # of features that are kept
    preemptions: int = 0  # answers that gave up their memory for others


@dataclass(frozen=True, slots=True)
class EngineStats:
    """How busy an engine is, and what it has done since it started."""

    running: int
    waiting: int
    capacity: int  # requests that it runs at once
    decode_steps: int  # forward passes after the prefill, all requests together
    tokens_per_second: float | None  # over recent answers, all streams together
    device_memory_bytes: int | None = None  # that the model and its caches hold
    caches: CacheStats | None = None  # None where nothing is kept between requests


class Engine(Protocol):
    """Turns requests into answers. All methods belong to the event loop's thread."""

    @property
    def models(self) -> tuple[ModelCard, ...]:
        """What it serves, by name."""
        ...

    def stats(self) -> EngineStats:
        """A snapshot; cheap."""
        ...

    def check_room(self, answers: int = 1) -> None:
        """Fails early, before images are decoded for a request that would be refused.

        Args:
            answers: how many the request asks for.

        Raises:
            QueueFullError: a request would not be accepted now.
            BadRequestError: so many answers never have room.
        """
        ...

    def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent]:
        """Accepted, then text, then Finished; an error at any point takes the place of the rest.

        Closing the generator ends the generation within one decode step and gives up the place
        in the queue.

        Raises:
            QueueFullError: nothing was accepted; when to come back is in the error.
            BadRequestError: the prompt cannot be made or does not fit.
            ParagoneError: whatever else went wrong, before or after acceptance.
        """
        ...

    async def preview(self, request: GenerationRequest) -> PromptView:
        """What `generate` would ask the model; nothing is asked.

        Raises:
            QueueFullError: too many previews are being made.
            BadRequestError: the prompt cannot be made, or its images cannot be shown.
        """
        ...

    async def load_adapter(self, name: str, path: str) -> ModelCard:
        """Serves an adapter over the base, from now on.

        Raises:
            UnsupportedError: this engine's model takes none.
            ConflictError: the name is taken.
            BadRequestError: the adapter cannot be read, or does not fit the base.
        """
        ...

    async def unload_adapter(self, name: str) -> None:
        """Serves an adapter no longer; its memory is free when its last answer has ended.

        Raises:
            ModelNotFoundError: there is no adapter of that name.
        """
        ...

    def abort_all(self) -> None:
        """Ends what runs with `FinishReason.ABORT`, what waits with a DrainingError."""
        ...

    async def aclose(self) -> None:
        """Aborts what is left and gives up the engine's threads."""
        ...
