"""Markdown on a terminal, in pieces of any size."""

from __future__ import annotations

import pytest

from controller.terminal.markdown import MarkdownStream

CASES = {
    "plain": ("no marks, 2 * 3 = 6, 5**2, a_b", "no marks, 2 * 3 = 6, 5**2, a_b"),
    "bold": ("a **b c** d", "a \x1b[1mb c\x1b[22m d"),
    "italic": ("a *b* d", "a \x1b[3mb\x1b[23m d"),
    "code": ("run `a *b*` now", "run \x1b[36ma *b*\x1b[39m now"),
    "heading": ("## Title\ntext", "\x1b[1m\x1b[4mTitle\x1b[22m\x1b[24m\ntext"),
    "list": ("- one\n  * two\n3. three", "• one\n  • two\n3. three"),
    "quote": ("> said", "│ said"),
    "fence": (
        "```py\n# **x**\n```\n**y**",
        "\x1b[36m```py\x1b[39m\n\x1b[36m# **x**\x1b[39m\n\x1b[36m```\x1b[39m\n\x1b[1my\x1b[22m",
    ),
    "unclosed bold ends with its line": ("**a\nb", "\x1b[1ma\x1b[22m\nb"),
    "a line of marks": ("***\n", "***\n"),
    "ends in a mark": ("a *", "a *"),
    "ends in bold": ("a **b**", "a \x1b[1mb\x1b[22m"),
    "chinese": ("**红色**的圆", "\x1b[1m红色\x1b[22m的圆"),
}


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
@pytest.mark.parametrize(("text", "shown"), CASES.values(), ids=CASES)
def test_what_is_shown_does_not_depend_on_the_pieces(text, shown, size):
    stream = MarkdownStream()
    out = "".join(stream.feed(text[at : at + size]) for at in range(0, len(text), size))
    assert out + stream.finish() == shown


def test_text_is_shown_as_it_comes():
    stream = MarkdownStream()
    assert [stream.feed(piece) for piece in ("The", " star", " is")] == ["The", " star", " is"]
