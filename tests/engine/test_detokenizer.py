"""Text comes as soon as it can, whole characters only, and no space is lost."""

from hypothesis import given
from hypothesis import strategies as st

from worker.engine.detokenizer import MOST_HELD, REPLACEMENT, Detokenizer


def decode_bytes(ids):
    """A byte-level vocabulary: a token is a byte."""
    return bytes(ids).decode(errors="replace")


def decode_sentencepiece(ids):
    """Words with their space before them, of which the first is dropped, as SentencePiece does."""
    return "".join(WORDS[i] for i in ids).removeprefix(" ")


WORDS = [" a", " cat", "s", " ", ".", "\n", " 语", "言"]


def stream(ids, decode):
    detokenizer = Detokenizer(decode)
    pieces = [detokenizer.push(i) for i in ids]
    return [*pieces, detokenizer.flush()]


@given(st.text(max_size=30))
def test_all_text_arrives_and_never_half_a_character(text):
    pieces = stream(text.encode(), decode_bytes)
    assert "".join(pieces) == text
    assert all(REPLACEMENT not in piece for piece in pieces if REPLACEMENT not in text)


@given(st.lists(st.integers(0, len(WORDS) - 1), max_size=30))
def test_spaces_are_those_of_the_whole_text(ids):
    assert "".join(stream(ids, decode_sentencepiece)) == decode_sentencepiece(ids)


def test_each_character_comes_with_its_last_byte():
    assert stream("中文".encode(), decode_bytes) == ["", "", "中", "", "", "文", ""]


def test_an_answer_that_ends_in_half_a_character_says_so():
    assert stream(b"ab" + "中".encode()[:2], decode_bytes) == [
        "a",
        "b",
        "",
        "",
        REPLACEMENT,
    ]


def test_bytes_that_are_no_text_do_not_hold_up_what_follows():
    assert "".join(stream(b"a\xffb", decode_bytes)) == f"a{REPLACEMENT}b"


def test_the_window_stays_short():
    seen = []

    def decode(ids):
        seen.append(len(ids))
        return decode_bytes(ids)

    stream(b"x" * 500, decode)
    assert max(seen) <= 2


def test_bytes_that_never_become_text_are_given_out_in_bounded_time():
    seen = []

    def decode(ids):
        seen.append(len(ids))
        return decode_bytes(ids)

    detokenizer = Detokenizer(decode)
    pieces = [detokenizer.push(0x80) for _ in range(2_000)]
    pieces += [detokenizer.push(byte) for byte in " 中".encode()]
    assert "".join(pieces) == REPLACEMENT * 2_000 + " 中"
    assert max(seen) <= 2 * MOST_HELD


def test_tokens_that_are_not_shown_take_no_time_and_no_space_from_what_follows():
    seen = []

    def decode(ids):
        seen.append(len(ids))
        return decode_sentencepiece([i for i in ids if i >= 0])

    end, cat = -1, WORDS.index(" cat")
    pieces = stream([0, *[end] * 2_000, cat, *[end] * 2_000, cat], decode)
    assert "".join(pieces) == "a cat cat"
    assert max(seen) <= 2 * MOST_HELD
