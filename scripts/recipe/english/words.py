"""English words: for places, numbers and things, one or several of them."""

from __future__ import annotations

from typing import Final

from recipe.queries import Reference

PLACES: Final = (
    "at the top left",
    "at the top",
    "at the top right",
    "on the left",
    "in the centre",
    "on the right",
    "at the bottom left",
    "at the bottom",
    "at the bottom right",
)
NUMBERS: Final = ("no", "one", "two", "three", "four", "five", "six")


def article(words: str) -> str:
    return "an" if words[:1] in "aeiou" else "a"


def join(words: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def called(reference: Reference, count: int = 1) -> str:
    """Words for things of a kind: `red circle`, `red circles`, `shapes`."""
    noun = reference.shape or "shape"
    if count != 1:
        noun += "es" if noun.endswith("s") else "s"
    return noun if reference.colour is None else f"{reference.colour} {noun}"


def with_article(words: str) -> str:
    return f"{article(words)} {words}"


def capital(words: str) -> str:
    return f"{words[:1].upper()}{words[1:]}"
