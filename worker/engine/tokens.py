"""The tokens of an answer: as they were chosen, and as they are shown. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from controller.protocol.errors import ParagoneError


class Token(int):
    """A token id, and what else is known of its choice.

    It is an ``int``, so that only what needs the rest has to know of it.

    Attributes:
        logprob: natural logarithm of its probability, where the request asked for it.
        likeliest: ids and log-probabilities of the likeliest tokens in its place, best first.
        error: why no token could be chosen; the answer ends here.
    """

    logprob: float | None
    likeliest: tuple[tuple[int, float], ...]
    error: ParagoneError | None

    def __new__(
        cls,
        token_id: int,
        *,
        logprob: float | None = None,
        likeliest: tuple[tuple[int, float], ...] = (),
        error: ParagoneError | None = None,
    ) -> Self:
        """A token id with what is known of it."""
        token = super().__new__(cls, token_id)
        token.logprob, token.likeliest, token.error = logprob, likeliest, error
        return token


@dataclass(frozen=True, slots=True)
class LikelyToken:
    """A token that might have come: its own bytes, which may be half a character."""

    data: bytes
    logprob: float

    @property
    def text(self) -> str:
        """Its bytes as text; U+FFFD for what is no character by itself."""
        return self.data.decode(errors="replace")


@dataclass(frozen=True, slots=True)
class ShownToken(LikelyToken):
    """A token of an answer, with the likeliest in its place.

    ``offset`` is how many characters of the answer's text were complete before it.
    """

    offset: int = 0
    likeliest: tuple[LikelyToken, ...] = ()
