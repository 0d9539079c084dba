"""How much of a new prompt may be read between two decode steps. No clock of its own, no torch."""

from __future__ import annotations

# Between two tokens of the running streams, this many decode steps' time may go to prompts: their
# tokens then come at a third of their pace at worst,
SHARE = 2.0
# or so many seconds apart, which is faster than people read: fast streams have time to give,
# and prompts cost less in larger parts.
FLUENT_SECONDS = 0.12
# Less would make a long prompt take forever, and costs almost as much as this.
LEAST_TOKENS = 64
# What is read at once while nobody waits for a next token; bounds the activations' memory.
MOST_TOKENS = 2048
# How much of an estimate a new measurement replaces.
_WEIGHT = 0.3


class PrefillPacer:
    """Finds the part of a prompt that the running streams can wait for.

    It goes by what a token of the last parts took. A part costs less than its tokens would one by
    one, so that what short parts took says little of long ones: it is only believed where parts are
    no longer than that anyway.
    """

    def __init__(self) -> None:
        self._token_seconds: float | None = None
        self._step_seconds: float | None = None

    def budget(self, *, is_decoding: bool) -> int:
        """Prompt tokens that may be read before the next decode step.

        Args:
            is_decoding: whether any stream waits for its next token.
        """
        if not is_decoding:
            return MOST_TOKENS
        if not self._step_seconds or not self._token_seconds:
            return LEAST_TOKENS
        seconds = max(SHARE * self._step_seconds, FLUENT_SECONDS - self._step_seconds)
        return int(min(max(seconds / self._token_seconds, LEAST_TOKENS), MOST_TOKENS))

    def prefilled(self, tokens: int, seconds: float) -> None:
        """Reading a part of a prompt took so long."""
        if tokens < 1 or seconds <= 0:
            return
        new, old = seconds / tokens, self._token_seconds
        if old is None:
            self._token_seconds = new
        elif new < old or 2 * tokens >= self.budget(is_decoding=True):
            self._token_seconds = old + _WEIGHT * (new - old)

    def decoded(self, seconds: float) -> None:
        """A decode step took so long."""
        old = self._step_seconds
        self._step_seconds = seconds if old is None else old + _WEIGHT * (seconds - old)
