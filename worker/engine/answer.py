"""One answer in the making: token ids go in, text and an end come out. No torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set

from controller.protocol.chat import FinishReason
from worker.engine.detokenizer import Detokenizer
from worker.engine.stop_strings import StopStrings


class Answer:
    """Decides what of an answer is shown and when it is over.

    Args:
        decode: ids to text; see `Detokenizer`.
        end_token_ids: tokens that end an answer; they are counted, and not shown.
        stop: strings that end it; see `StopStrings`.
        max_tokens: the most tokens it may have, end token included.
    """

    def __init__(
        self,
        *,
        decode: Callable[[Sequence[int]], str],
        end_token_ids: Set[int],
        stop: tuple[str, ...],
        max_tokens: int,
    ) -> None:
        self._detokenizer = Detokenizer(decode)
        self._stop = StopStrings(stop)
        self._end_token_ids = end_token_ids
        self._max_tokens = max_tokens
        self.token_count = 0
        self.finish_reason: FinishReason | None = None

    def push(self, token_id: int) -> str:
        """The text to show after this token; sets `finish_reason` when it was the last."""
        self.token_count += 1
        if token_id in self._end_token_ids:
            return self._close(FinishReason.STOP)
        text = self._stop.push(self._detokenizer.push(token_id))
        if self._stop.matched is not None:
            self.finish_reason = FinishReason.STOP
            return text
        if self.token_count >= self._max_tokens:
            return text + self._close(FinishReason.LENGTH)
        return text

    def _close(self, reason: FinishReason) -> str:
        """What was held back; it may still complete a stop string."""
        text = self._stop.push(self._detokenizer.flush())
        if self._stop.matched is not None:
            self.finish_reason = FinishReason.STOP
            return text
        self.finish_reason = reason
        return text + self._stop.flush()
