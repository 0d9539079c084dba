"""Stop strings end an answer, and no part of them is ever shown."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from worker.engine.stop_strings import StopStrings

TEXT = st.text(alphabet="ab \n", max_size=40)
STOPS = st.lists(st.text(alphabet="ab \n", min_size=1, max_size=4), max_size=3).map(tuple)


def shown(pieces, stops):
    matcher = StopStrings(stops)
    out = ""
    for piece in pieces:
        out += matcher.push(piece)
        if matcher.matched is not None:
            return out, matcher.matched
    return out + matcher.flush(), None


def reference(text, stops):
    """One character at a time: the first stop string to be complete cuts where it began."""
    stops = [stop for stop in stops if stop.strip()]
    for end in range(len(text) + 1):
        ending = [stop for stop in stops if text[:end].endswith(stop)]
        if ending:
            longest = max(ending, key=len)
            return text[: end - len(longest)], longest
    return text, None


def cut(text, places):
    edges = sorted({0, len(text), *(place % (len(text) + 1) for place in places)})
    return [text[a:b] for a, b in pairwise(edges)]


@given(TEXT, STOPS, st.lists(st.integers(0, 100), max_size=10))
def test_an_answer_is_cut_at_the_same_place_however_it_comes(text, stops, places):
    assert shown(cut(text, places), stops) == reference(text, stops)


@given(TEXT, STOPS)
def test_no_part_of_a_stop_string_that_matches_is_shown_early(text, stops):
    expected, _ = reference(text, stops)
    matcher, out = StopStrings(stops), ""
    for character in text:
        out += matcher.push(character)
        assert expected.startswith(out)
        if matcher.matched is not None:
            break


def test_a_stop_string_across_pieces_ends_the_answer():
    assert shown(["The cat. #", "#", "# Human: and"], ("###",)) == ("The cat. ", "###")


def test_text_that_only_looked_like_a_stop_string_is_shown_in_the_end():
    assert shown(["a #", "# b", " ##"], ("###",)) == ("a ## b ##", None)


def test_a_stop_string_of_whitespace_never_ends_an_answer():
    assert shown(["one two", " three\n"], (" ", "\n", "")) == ("one two three\n", None)


def test_text_is_not_held_back_where_no_stop_string_can_begin():
    matcher = StopStrings(("###",))
    assert matcher.push("one two") == "one two"
