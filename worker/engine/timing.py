"""When the things of one answer happened, and what that comes to."""

from __future__ import annotations

from dataclasses import dataclass

from controller.protocol.chat import Metrics


@dataclass(slots=True)
class Timing:
    """Marks on one monotonic clock, in seconds."""

    arrived: float
    started: float | None = None  # left the queue
    first_token: float | None = None
    last_token: float | None = None
    tokens: int = 0

    def mark_token(self, now: float) -> None:
        """A token has been made."""
        if self.first_token is None:
            self.first_token = now
        self.last_token = now
        self.tokens += 1

    def metrics(self, now: float) -> Metrics:
        """The marks as durations; what has not happened is absent."""
        queue_seconds = (now if self.started is None else self.started) - self.arrived
        if self.first_token is None or self.last_token is None:
            return Metrics(queue_time_ms=_ms(queue_seconds))
        decoding = self.last_token - self.first_token
        later_tokens = self.tokens - 1
        has_pace = later_tokens > 0 and decoding > 0
        return Metrics(
            queue_time_ms=_ms(queue_seconds),
            time_to_first_token_ms=_ms(self.first_token - self.arrived),
            generation_time_ms=_ms(decoding),
            mean_itl_ms=_ms(decoding / later_tokens) if has_pace else None,
            tokens_per_second=round(later_tokens / decoding, 2) if has_pace else None,
        )


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
