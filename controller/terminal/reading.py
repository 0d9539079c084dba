"""One answer as it comes in: its text so far, and what it came to."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass

from controller.protocol.chat import ChatCompletionChunk, FinishReason, Metrics, Usage


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer and its figures; ``seconds`` is what the person waited for all of it."""

    text: str
    finish_reason: FinishReason | None
    usage: Usage | None
    metrics: Metrics | None
    seconds: float

    @property
    def figures(self) -> str:
        """What it cost, as one line; what a server does not tell is left out."""
        parts = [f"{self.seconds:.2f} s"]
        metrics, usage = self.metrics, self.usage
        if metrics is not None:
            if metrics.time_to_first_token_ms is not None:
                parts.append(f"first token after {metrics.time_to_first_token_ms / 1000:.2f} s")
            if metrics.tokens_per_second:
                parts.append(f"{metrics.tokens_per_second:.1f} tokens/s")
        if usage is not None:
            images = usage.prompt_tokens_details and usage.prompt_tokens_details.image_tokens
            of_images = f" ({images} of images)" if images else ""
            parts.append(f"{usage.prompt_tokens}{of_images} + {usage.completion_tokens} tokens")
        if self.finish_reason is FinishReason.LENGTH:
            parts.append("cut off at --max-new-tokens, or the context is full")
        elif self.finish_reason is FinishReason.ABORT:
            parts.append("stopped")
        return ", ".join(parts)


class Reading:
    """Reads one streamed answer.

    Args:
        on_text: is given each piece of text.
        clock: seconds, monotonic.
    """

    def __init__(
        self, on_text: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.text = ""  # so far; what is kept of an answer that was stopped
        self._on_text = on_text
        self._clock = clock

    async def read(self, chunks: AsyncGenerator[ChatCompletionChunk]) -> Answer:
        """The whole answer; whatever the chunks raise is passed on."""
        started = self._clock()
        reason: FinishReason | None = None
        usage: Usage | None = None
        metrics: Metrics | None = None
        async with aclosing(chunks) as stream:
            async for chunk in stream:
                usage, metrics = chunk.usage or usage, chunk.metrics or metrics
                for choice in chunk.choices:
                    reason = choice.finish_reason or reason
                    if choice.delta.content:
                        self.text += choice.delta.content
                        self._on_text(choice.delta.content)
        return Answer(self.text, reason, usage, metrics, self._clock() - started)
