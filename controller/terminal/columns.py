"""Texts side by side in columns of a terminal. Pure."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from itertools import zip_longest

_GAP = " │ "
_TAB = "    "


def width(text: str) -> int:
    """How many cells a text takes; wide characters take two, combining ones none."""
    return sum(_cells(character) for character in text)


def wrapped(text: str, cells: int) -> list[str]:
    """A text in lines of at most so many cells, broken between words where there are any."""
    lines: list[str] = []
    for line in text.replace("\t", _TAB).split("\n"):
        lines += _broken(line, max(2, cells))
    return lines


def side_by_side(texts: Sequence[str], columns: int, *, rows: int | None = None) -> list[str]:
    """Texts next to each other, each in its share of ``columns`` cells.

    Args:
        texts: one for each column.
        columns: of the terminal.
        rows: at most so many lines, the last ones of each text; None for all.
    """
    share = (columns - len(_GAP) * (len(texts) - 1)) // len(texts)
    pieces = [wrapped(text, share) for text in texts]
    if rows is not None:
        pieces = [each[-rows:] for each in pieces]
    return [
        _GAP.join(line + " " * (share - width(line)) for line in row).rstrip()
        for row in zip_longest(*pieces, fillvalue="")
    ]


def _broken(line: str, cells: int) -> list[str]:
    lines, current, used = [], "", 0
    last_space = -1
    for character in line:
        if character == " " and used == cells:
            lines.append(current.rstrip())
            current, used, last_space = "", 0, -1
            continue
        # More than once where what a break leaves has no room for a wide character either.
        while used + _cells(character) > cells:
            # A space may end a line; without one, the word itself is broken.
            at = last_space + 1 if last_space >= 0 else len(current)
            lines += filter(None, [current[:at].rstrip()])
            current = current[at:].lstrip()
            used = width(current)
            last_space = current.rfind(" ")
        if character == " ":
            last_space = len(current)
        current += character
        used += _cells(character)
    return [*lines, current]


def _cells(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in {"W", "F"} else 1
