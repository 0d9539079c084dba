"""Small tools for wordings: `{a|b}` alternatives, and the roughness of typed questions."""

from __future__ import annotations

import random
import re
from typing import Final

_INNERMOST: Final = re.compile(r"\{([^{}]*)\}")


def expand(template: str, rng: random.Random) -> str:
    """Choose one alternative of every `{a|b}`, innermost first; empty alternatives are allowed."""
    while match := _INNERMOST.search(template):
        chosen = rng.choice(match.group(1).split("|"))
        template = template[: match.start()] + chosen + template[match.end() :]
    return template


def roughen(text: str, rng: random.Random, *, typos: float) -> str:
    """Case, punctuation and (with the chance `typos`) one slip of the finger, as people type."""
    chance = rng.random()
    if chance < 0.3:
        text = text.lower()
    elif chance < 0.33:
        text = text.upper()
    elif chance < 0.85:
        text = text[:1].upper() + text[1:]
    if rng.random() < 0.25:
        text = text.rstrip("?.!？。！")
    elif rng.random() < 0.04:
        text = text + rng.choice(("?", "!", " ", "??"))
    if rng.random() < typos:
        text = _slip(text, rng)
    return text


def _slip(text: str, rng: random.Random) -> str:
    places = [i for i in range(1, len(text) - 2) if text[i : i + 2].isalpha() and text.isascii()]
    if not places:
        return text
    i = rng.choice(places)
    kind = rng.randrange(3)
    if kind == 0:
        return text[:i] + text[i + 1] + text[i] + text[i + 2 :]
    if kind == 1:
        return text[:i] + text[i + 1 :]
    return text[:i] + text[i] + text[i:]
