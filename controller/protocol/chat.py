"""OpenAI chat completions: request, chunks, whole answer, and our extensions to them.

Source of the format: OpenAI's API reference, "Chat" (request, chat.completion and
chat.completion.chunk). Extensions: ``image_process_mode``, ``chat_template`` and those of
`controller.protocol.sampling` in the request; ``metrics`` (vLLM's block), ``stop_reason`` (vLLM's
too) and ``usage.prompt_tokens_details.image_tokens`` in the answer.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from controller.protocol.message import Message
from controller.protocol.sampling import MAX_TOP_LOGPROBS, SamplingFields


class FinishReason(StrEnum):
    """Why an answer ended. Every accepted request ends with one of these or with an error."""

    STOP = "stop"  # the model's end token, or a stop string of the request
    LENGTH = "length"  # max_tokens, or the context is full
    ABORT = "abort"  # cancelled: by the client, or by a drain that ran out of patience


class TextPart(Message):
    """A piece of text in a message."""

    type: Literal["text"] = "text"
    text: str


class ImageUrl(Message):
    """Where the image is: a ``data:`` URI, or an address that the worker may fetch."""

    url: str
    detail: str | None = None  # OpenAI's hint how closely to look; it makes no difference here


class ImagePart(Message):
    """An image in a message; its place among the parts is its place in the prompt."""

    type: Literal["image_url"] = "image_url"
    image_url: ImageUrl


ContentPart = Annotated[TextPart | ImagePart, Field(discriminator="type")]


class ChatMessage(Message):
    """One message of the conversation; plain text, or parts in order."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[ContentPart] | None = None


class ImageProcessMode(StrEnum):
    """How an image is brought to the encoder's size; LLaVA's names."""

    DEFAULT = "default"  # as the checkpoint's config says
    PAD = "pad"  # to a square, with the mean colour
    CROP = "crop"  # shortest side to size, then the centre
    RESIZE = "resize"  # to the square, not keeping the aspect ratio
    ANYRES = "anyres"  # tiles and an overview, where the model has it


class ChatCompletionRequest(SamplingFields):
    """``POST /v1/chat/completions``."""

    model: str
    messages: list[ChatMessage] = Field(min_length=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    logprobs: bool = False
    top_logprobs: int | None = Field(default=None, ge=0, le=MAX_TOP_LOGPROBS)
    image_process_mode: ImageProcessMode = ImageProcessMode.DEFAULT
    chat_template: str | None = Field(default=None, max_length=64)  # a name of the worker's own

    @property
    def token_limit(self) -> int | None:
        """The most tokens the answer may have; None means as many as fit."""
        return self.max_completion_tokens or self.max_tokens


class PromptTokensDetails(Message):
    """What the prompt's tokens were."""

    cached_tokens: int = 0
    image_tokens: int = 0  # our extension: tokens that stand for images


class Usage(Message):
    """Token counts; image tokens are part of the prompt's."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails | None = None


class Metrics(Message):
    """What the answer cost, in vLLM's shape; milliseconds and tokens a second.

    ``tokens_per_second`` counts decoding alone (tokens after the first over the time after it),
    so that a long prompt does not look like a slow model.
    """

    queue_time_ms: float
    time_to_first_token_ms: float | None = None  # from arrival at the worker, queue included
    generation_time_ms: float | None = None  # from the first token to the last
    mean_itl_ms: float | None = None  # inter-token latency
    tokens_per_second: float | None = None
    image_cache_hits: int | None = None  # our extension: images that were not encoded anew


class LikelyToken(Message):
    """A token and how likely it was; ``bytes`` are its own, which may be half a character."""

    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(LikelyToken):
    """A token of the answer, beside the likeliest in its place."""

    top_logprobs: list[LikelyToken] = Field(default_factory=list)


class ChoiceLogprobs(Message):
    """The tokens of a text, by the model's own probabilities: before penalties and temperature."""

    content: list[TokenLogprob]


class Delta(Message):
    """What a chunk adds to the answer."""

    role: Literal["assistant"] | None = None
    content: str | None = None


class ChunkChoice(Message):
    """One choice's part of a chunk."""

    index: int = 0
    delta: Delta
    logprobs: ChoiceLogprobs | None = None
    finish_reason: FinishReason | None = None
    stop_reason: int | str | None = None


class ChatCompletionChunk(Message):
    """One event of a streamed answer."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int  # Unix seconds
    model: str
    choices: list[ChunkChoice]
    usage: Usage | None = None
    metrics: Metrics | None = None


class AnswerMessage(Message):
    """The whole answer's message."""

    role: Literal["assistant"] = "assistant"
    content: str


class Choice(Message):
    """One whole answer."""

    index: int = 0
    message: AnswerMessage
    logprobs: ChoiceLogprobs | None = None
    finish_reason: FinishReason
    stop_reason: int | str | None = None  # the stop string, or the id of stop_token_ids


class ChatCompletion(Message):
    """The answer of a request that does not stream."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int  # Unix seconds
    model: str
    choices: list[Choice]
    usage: Usage
    metrics: Metrics | None = None
