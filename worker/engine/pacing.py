"""How much of a new prompt may be read between two decode steps. No clock of its own, no torch."""

from __future__ import annotations

# Between two tokens of the running streams, this many times a decode step may go to prompts.
SHARE = 1.0
# Less would make a long prompt take forever, and costs almost as much as this.
LEAST_TOKENS = 16
# What is read at once while nobody waits for a next token; bounds the activations' memory.
MOST_TOKENS = 2048
# How much of an estimate a new measurement replaces.
_WEIGHT = 0.3


class PrefillPacer:
    """Learns what prompts and decode steps cost, and keeps the first from stalling the second."""

    def __init__(self) -> None:
        self._token_seconds: float | None = None
        self._step_seconds: float | None = None

    def budget(self, *, is_decoding: bool) -> int:
        """Prompt tokens that may be read before the next decode step.

        Args:
            is_decoding: whether any stream waits for its next token.
        """
        if not is_decoding or not self._token_seconds or not self._step_seconds:
            return MOST_TOKENS
        tokens = int(SHARE * self._step_seconds / self._token_seconds)
        return min(max(tokens, LEAST_TOKENS), MOST_TOKENS)

    def prefilled(self, tokens: int, seconds: float) -> None:
        """Reading a part of a prompt took so long."""
        self._token_seconds = _blend(self._token_seconds, seconds / tokens)

    def decoded(self, seconds: float) -> None:
        """A decode step took so long."""
        self._step_seconds = _blend(self._step_seconds, seconds)


def _blend(old: float | None, new: float) -> float:
    return new if old is None else old + _WEIGHT * (new - old)
