"""From bytes to lines."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from controller.fleet.lines import MAX_LINE_BYTES, LineSplitter


def lines_of(*pieces: bytes) -> list[str]:
    splitter = LineSplitter()
    return [line for piece in pieces for line in splitter.feed(piece)] + splitter.flush()


def test_a_line_without_an_end_comes_last():
    assert lines_of(b"a\nb", b"c\nd") == ["a", "bc", "d"]


def test_a_progress_bar_is_one_line_in_its_last_state():
    assert lines_of(b"\rloading 1%\rloading 50%", b"\rloading 100%\n") == ["loading 100%"]


def test_windows_line_ends_are_line_ends():
    assert lines_of(b"a\r\nb\r\n") == ["a", "b"]


def test_bytes_that_are_no_text_are_marked_and_lose_nothing_else():
    assert lines_of(b"a\xffb\n") == ["a\ufffdb"]


def test_a_character_that_is_cut_in_two_is_put_together():
    raw = "é\n".encode()
    assert lines_of(raw[:1], raw[1:]) == ["é"]


def test_an_endless_line_is_shown_in_pieces():
    lines = lines_of(b"x" * (3 * MAX_LINE_BYTES) + b"\n")
    assert len(lines) == 3
    assert sum(map(len, lines)) == 3 * MAX_LINE_BYTES


@given(
    text=st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=50),
    cuts=st.lists(st.integers(0, 200), max_size=5),
)
def test_how_the_bytes_arrive_changes_nothing(text, cuts):
    raw = f"{text}\n{text}\n".encode()
    bounds = [0, *sorted(min(cut, len(raw)) for cut in cuts), len(raw)]
    pieces = [raw[a:b] for a, b in pairwise(bounds)]
    assert lines_of(*pieces) == [text, text]
