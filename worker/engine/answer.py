"""One answer in the making: tokens go in, text and an end come out. No torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set

from controller.protocol.chat import FinishReason
from worker.engine.detokenizer import Detokenizer
from worker.engine.protocol import SamplingParams, TextDelta
from worker.engine.stop_strings import StopStrings
from worker.engine.tokens import LikelyToken, ShownToken, Token


class Answer:
    """Decides what of an answer is shown and when it is over.

    Args:
        decode: ids to text; see `Detokenizer`.
        token_bytes: what one token stands for; asked where the request wants probabilities.
        asked: the request's own stop strings and tokens, and whether it wants the other ends.
        end_token_ids: tokens that end an answer; they are counted, and not shown.
        end_strings: strings that end an answer, besides the request's own; see `StopStrings`.
        max_tokens: the most tokens it may have, end token included.
        context: see `Detokenizer`.
    """

    def __init__(
        self,
        *,
        decode: Callable[[Sequence[int]], str],
        token_bytes: Callable[[int], bytes],
        asked: SamplingParams,
        end_token_ids: Set[int],
        end_strings: tuple[str, ...] = (),
        max_tokens: int,
        context: Sequence[int] = (),
    ) -> None:
        self._detokenizer = Detokenizer(decode, context=context)
        self._token_bytes = token_bytes
        self._asked = asked
        ends, strings = (frozenset[int](), ()) if asked.ignore_eos else (end_token_ids, end_strings)
        self._end_token_ids = ends | asked.stop_token_ids
        self._stop = StopStrings((*asked.stop, *strings))
        self._max_tokens = max_tokens
        self._made = 0  # characters that the tokens have come to
        self._shown = 0  # characters of them that were shown
        self._waiting: list[ShownToken] = []  # for their characters to be shown
        self.token_count = 0
        self.finish_reason: FinishReason | None = None
        self.stop_reason: int | str | None = None  # what of the request's own ended it

    def push(self, token: int) -> TextDelta | None:
        """What to show after this token; sets `finish_reason` when it was the last.

        Raises:
            ParagoneError: no token could be chosen; see `Token.error`.
        """
        if isinstance(token, Token) and token.error is not None:
            raise token.error
        self.token_count += 1
        if token in self._end_token_ids:
            self.stop_reason = int(token) if token in self._asked.stop_token_ids else None
            return self._close(FinishReason.STOP)
        if isinstance(token, Token) and token.logprob is not None:
            self._waiting.append(self._told(token, token.logprob))
        made = self._detokenizer.push(token)
        self._made += len(made)
        # Whatever it says, it is not over before it has min_tokens.
        is_long_enough = self.token_count > self._asked.min_tokens
        text = self._stop.push(made) if is_long_enough else made
        if self._is_stopped():
            return self._delta(text)
        if self.token_count >= self._max_tokens:
            return self._close(FinishReason.LENGTH, text)
        return self._delta(text)

    def _is_stopped(self) -> bool:
        matched = self._stop.matched
        if matched is None:
            return False
        self.finish_reason = FinishReason.STOP
        self.stop_reason = matched if matched in self._asked.stop else None
        return True

    def _close(self, reason: FinishReason, text: str = "") -> TextDelta | None:
        """What was held back, after ``text``; it may still complete a stop string."""
        rest = self._detokenizer.flush()
        self._made += len(rest)
        text += self._stop.push(rest)
        if self._is_stopped():
            return self._delta(text)
        self.finish_reason = reason
        return self._delta(text + self._stop.flush(), is_last=True)

    def _delta(self, text: str, *, is_last: bool = False) -> TextDelta | None:
        """Text with the tokens that begin in what has been shown by then."""
        self._shown += len(text)
        ready = [each for each in self._waiting if is_last or each.offset < self._shown]
        del self._waiting[: len(ready)]
        return TextDelta(text, tuple(ready)) if text or ready else None

    def _told(self, token: Token, logprob: float) -> ShownToken:
        likeliest = tuple(
            LikelyToken(self._token_bytes(token_id), value) for token_id, value in token.likeliest
        )
        return ShownToken(self._token_bytes(token), logprob, self._made, likeliest)
