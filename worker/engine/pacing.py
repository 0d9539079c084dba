"""How much of a new prompt may be read between two decode steps. No clock of its own, no torch."""

from __future__ import annotations

# Between two tokens of the running streams, this many decode steps' time may go to prompts: their
# tokens then come at a third of their pace at worst.
SHARE = 2.0
# Less would make a long prompt take forever, and costs almost as much as this.
LEAST_TOKENS = 64
# What is read at once while nobody waits for a next token; bounds the activations' memory.
MOST_TOKENS = 2048
# How much of an estimate a new measurement replaces.
_WEIGHT = 0.3


class PrefillPacer:
    """Finds the part of a prompt whose reading takes `SHARE` decode steps.

    What a part costs is not proportional to its size, so the size is steered by what the last
    parts took, by no more than a factor of two at a time.
    """

    def __init__(self) -> None:
        self._part = float(MOST_TOKENS)
        self._step_seconds: float | None = None

    def budget(self, *, is_decoding: bool) -> int:
        """Prompt tokens that may be read before the next decode step.

        Args:
            is_decoding: whether any stream waits for its next token.
        """
        return int(self._part) if is_decoding else MOST_TOKENS

    def prefilled(self, tokens: int, seconds: float) -> None:
        """Reading a part of a prompt took so long."""
        if not self._step_seconds or seconds <= 0:
            return
        ratio = min(max(SHARE * self._step_seconds / seconds, 0.5), 2.0)
        # A short part that took little says nothing of long ones.
        if ratio < 1 or tokens >= self._part:
            part = min(self._part, tokens * ratio) if ratio < 1 else tokens * ratio
            self._part = min(max(part, float(LEAST_TOKENS)), float(MOST_TOKENS))

    def decoded(self, seconds: float) -> None:
        """A decode step took so long."""
        old = self._step_seconds
        self._step_seconds = seconds if old is None else old + _WEIGHT * (seconds - old)
