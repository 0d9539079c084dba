"""OpenAI's older completions: a prompt goes in as it is, and is continued.

Source of the format: OpenAI's API reference, "Completions (legacy)". Extensions are those of the
chat (`controller.protocol.chat`).
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from controller.protocol.chat import FinishReason, Metrics, Usage
from controller.protocol.message import Message
from controller.protocol.sampling import MAX_TOP_LOGPROBS, SamplingFields, TokenId

# OpenAI's own; a base model would otherwise go on until its context is full.
DEFAULT_MAX_TOKENS = 16


class CompletionRequest(SamplingFields):
    """``POST /v1/completions``; ``prompt`` is one or several, as text or as token ids.

    ``echo``, ``suffix`` and ``best_of`` are here to be refused by name.
    """

    model: str
    prompt: str | list[str] | list[TokenId] | list[list[TokenId]]
    max_tokens: int = Field(default=DEFAULT_MAX_TOKENS, ge=1)
    logprobs: int | None = Field(default=None, ge=0, le=MAX_TOP_LOGPROBS)
    echo: bool = False
    suffix: str | None = None
    best_of: int | None = Field(default=None, ge=1)

    @property
    def prompts(self) -> tuple[str | tuple[int, ...], ...]:
        """The prompts one by one, however they were written."""
        if isinstance(self.prompt, str):
            return (self.prompt,)
        ids = tuple(each for each in self.prompt if isinstance(each, int))
        if ids:
            return (ids,)
        return tuple(
            each if isinstance(each, str) else tuple(each)
            for each in self.prompt
            if not isinstance(each, int)
        )


class CompletionLogprobs(Message):
    """The tokens of a text in four lists of one length; `ChoiceLogprobs` for the figures."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]  # characters of the text before the token


class CompletionChoice(Message):
    """One continuation, or the next piece of it."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None = None
    finish_reason: FinishReason | None = None
    stop_reason: int | str | None = None


class Completion(Message):
    """The answer, or with ``stream`` one event of it."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int  # Unix seconds
    model: str
    choices: list[CompletionChoice]
    usage: Usage | None = None
    metrics: Metrics | None = None
