"""In which words two answers differ, and how much they agree. Pure.

A word is a run of letters and digits, a single Chinese, Japanese or Korean character, or a sign;
white space does not count.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import dataclass
from difflib import SequenceMatcher
from html import escape

from webui.answer import Answer

# The comparison takes time that grows with the product of the lengths.
MAX_WORDS = 1500
_CACHED = 256
_TOKEN = re.compile(r"\s+|[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W_]+(?:['’][^\W_]+)*|.")


@dataclass(frozen=True, slots=True)
class Difference:
    """A text beside the one that it is compared with.

    Attributes:
        pieces: the text in order, and whether each piece is different; joined they are the text.
        agreement: words that are alike, of the words of both: 0 to 1; None if it was too long.
    """

    pieces: tuple[tuple[str, bool], ...]
    agreement: float | None


def difference(text: str, reference: str) -> Difference:
    """Compares by the longest runs of words that both have in the same order (`difflib`)."""
    tokens, others = _TOKEN.findall(text), _TOKEN.findall(reference)
    places = [place for place, token in enumerate(tokens) if not token.isspace()]
    words = [tokens[place] for place in places]
    other_words = [token for token in others if not token.isspace()]
    if max(len(words), len(other_words)) > MAX_WORDS:
        return Difference(((text, False),), None)
    matcher = SequenceMatcher(None, words, other_words, autojunk=False)
    same: set[int] = set()
    for block in matcher.get_matching_blocks():
        same.update(places[block.a : block.a + block.size])
    total = len(words) + len(other_words)
    agreement = 1.0 if total == 0 else 2 * len(same) / total
    return Difference(_runs(tokens, same), agreement)


def _runs(tokens: list[str], same: set[int]) -> tuple[tuple[str, bool], ...]:
    """Neighbours of one kind as one piece; white space is marked between what is marked alone."""
    marks = [place not in same for place in range(len(tokens))]
    for place, token in enumerate(tokens):
        if token.isspace():
            around = marks[max(0, place - 1) : place] + marks[place + 1 : place + 2]
            marks[place] = len(around) == 2 and all(around)
    runs: list[tuple[str, bool]] = []
    for token, is_different in zip(tokens, marks, strict=True):
        if runs and runs[-1][1] == is_different:
            runs[-1] = (runs[-1][0] + token, is_different)
        else:
            runs.append((token, is_different))
    return tuple(runs)


class Differences:
    """Compares answers, each pair once for each state that they are in."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, str], tuple[int, int, Difference]] = OrderedDict()

    def between(self, answer: Answer, reference: Answer) -> Difference:
        """How an answer differs from the one that it is compared with, as far as both are."""
        key = (answer.id, reference.id)
        known = self._known.get(key)
        state = (len(answer.text), len(reference.text))  # texts only grow
        if known is None or known[:2] != state:
            known = (*state, difference(answer.text, reference.text))
            self._known[key] = known
        self._known.move_to_end(key)
        while len(self._known) > _CACHED:
            self._known.popitem(last=False)
        return known[2]


def difference_html(found: Difference) -> str:
    """The text as one line of HTML, with what differs marked."""
    body = "".join(
        f"<mark>{_plain(piece)}</mark>" if is_different else _plain(piece)
        for piece, is_different in found.pieces
    )
    return f'<div class="diff">{body}</div>'


def _plain(text: str) -> str:
    # One line, as an empty one would end the HTML in Markdown; and formulas are left alone, since
    # a delimiter that is cut in two is none.
    html = escape(text).replace("\n", "<br>")
    return re.sub(r"(\\|\$)(?=[\[\](){}$])", r"\1<wbr>", html)
