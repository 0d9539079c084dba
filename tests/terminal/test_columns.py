"""Columns of a terminal: cells, not characters."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from controller.terminal.columns import side_by_side, width, wrapped


def test_columns_stand_side_by_side():
    assert side_by_side(["one two three", "x"], 13) == ["one   │ x", "two   │", "three │"]


def test_a_wide_character_takes_two_cells():
    assert width("红a") == 3
    assert wrapped("红色圆形", 5) == ["红色", "圆形"]


def test_words_are_kept_whole_where_they_fit():
    assert wrapped("a red circle", 8) == ["a red", "circle"]


def test_a_wide_character_behind_a_word_that_was_moved_down_gets_a_line_of_its_own():
    assert wrapped(" a红", 2) == ["a", "红"]


def test_the_last_rows_are_kept_where_there_is_no_room():
    assert side_by_side(["1\n2\n3", "a"], 20, rows=2) == ["2        │ a", "3        │"]


@given(st.text(st.sampled_from("ab 红\n"), max_size=60), st.integers(2, 20))
def test_nothing_but_spaces_is_lost_and_no_line_is_too_wide(text, cells):
    lines = wrapped(text, cells)
    assert all(width(line) <= cells for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "").replace("\n", "")
