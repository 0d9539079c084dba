"""Words that differ between two answers, and how much they agree."""

from __future__ import annotations

import pytest

from webui.answer import Answer
from webui.difference import MAX_WORDS, Differences, difference, difference_html


def _marked(text: str, reference: str) -> list[str]:
    return [piece for piece, is_different in difference(text, reference).pieces if is_different]


def test_equal_texts_agree_wholly_whatever_their_white_space() -> None:
    found = difference("a red  circle\n", "a red circle")
    assert found.agreement == 1
    assert found.pieces == (("a red  circle\n", False),)


def test_what_differs_is_marked_without_the_space_around_it() -> None:
    assert _marked("a purple square here", "a blue square here") == ["purple"]
    assert _marked("a big purple square", "a square") == ["big purple"]
    assert difference("a purple square", "a blue square").agreement == pytest.approx(2 / 3)


def test_chinese_is_compared_character_by_character() -> None:
    assert _marked("左边是红色圆形", "左边是蓝色圆形") == ["红"]


def test_the_pieces_are_the_text() -> None:
    text = "  One, two;\n\nthree's — 四五 $x_1$ <b>\t"
    for reference in ("", "two three's 五", text):
        assert "".join(piece for piece, _ in difference(text, reference).pieces) == text


def test_no_words_agree_with_nothing_and_two_empty_texts_do() -> None:
    assert difference("word", "").agreement == 0
    assert difference("", "").agreement == 1


def test_a_text_too_long_to_compare_says_so_and_is_shown() -> None:
    text = "word " * (MAX_WORDS + 1)
    found = difference(text, "word")
    assert found.agreement is None
    assert found.pieces == ((text, False),)


def test_html_is_escaped_on_one_line_and_formulas_are_left_alone() -> None:
    html = difference_html(difference("<b>\n\n\\(x\\) $$y$$", ""))
    assert "<b>" not in html
    assert "\n" not in html
    assert "\\(" not in html
    assert "$$" not in html


def test_answers_that_have_grown_are_compared_anew() -> None:
    differences = Differences()
    answer, other = Answer("m", asked_at=0, text="a"), Answer("m", asked_at=0, text="a b")
    first = differences.between(answer, other)
    assert differences.between(answer, other) is first
    answer.text += " b"
    assert differences.between(answer, other).agreement == 1
