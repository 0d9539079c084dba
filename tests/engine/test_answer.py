"""When an answer is over, and what of it is shown."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.protocol.chat import FinishReason
from controller.protocol.errors import BadRequestError
from worker.engine.answer import Answer
from worker.engine.protocol import SamplingParams
from worker.engine.tokens import Token

END = 0


def answer(*, max_tokens=100, end_strings=(), decode=None, context=(), **asked):
    return Answer(
        decode=decode or (lambda ids: "".join(map(chr, ids))),
        token_bytes=lambda token_id: chr(token_id).encode(),
        asked=SamplingParams(**asked),
        end_token_ids={END},
        end_strings=end_strings,
        max_tokens=max_tokens,
        context=context,
    )


def deltas(made, tokens):
    for token in tokens:
        delta = made.push(token)
        if delta is not None:
            yield delta
        if made.finish_reason is not None:
            return


def run(text, **options):
    made = answer(**options)
    out = "".join(delta.text for delta in deltas(made, map(ord, text)))
    return out, made.finish_reason, made.token_count


def test_the_end_token_ends_it_is_counted_and_is_not_shown():
    assert run("hi\0more") == ("hi", FinishReason.STOP, 3)


def test_max_tokens_ends_it():
    assert run("hello", max_tokens=3) == ("hel", FinishReason.LENGTH, 3)


def test_an_end_token_in_the_last_place_is_a_stop():
    assert run("hi\0", max_tokens=3) == ("hi", FinishReason.STOP, 3)


def test_a_stop_string_ends_it_and_is_not_shown():
    assert run("one###two", stop=("###",)) == ("one", FinishReason.STOP, 6)


def test_a_stop_string_in_the_last_place_is_a_stop():
    assert run("one###", stop=("###",), max_tokens=6) == ("one", FinishReason.STOP, 6)


def test_what_was_held_back_is_shown_when_the_answer_ends_otherwise():
    assert run("one##\0", stop=("###",)) == ("one##", FinishReason.STOP, 6)
    assert run("one##xx", stop=("###",), max_tokens=5) == ("one##", FinishReason.LENGTH, 5)


@pytest.mark.parametrize("blank", [" ", "\n", "", " \t"])
def test_whitespace_alone_never_ends_it(blank):
    assert run("one \n\ttwo\0", stop=(blank,))[0] == "one \n\ttwo"


def test_a_stop_token_ends_it_and_is_not_shown():
    made = answer(stop_token_ids=frozenset({ord("x")}))
    assert "".join(delta.text for delta in deltas(made, map(ord, "onextwo"))) == "one"
    assert (made.finish_reason, made.stop_reason) == (FinishReason.STOP, ord("x"))


def test_what_of_the_request_ended_it_is_told():
    made = answer(stop=("###", "two"), end_strings=("USER:",))
    list(deltas(made, map(ord, "one two")))
    assert made.stop_reason == "two"
    made = answer(stop=("###",), end_strings=("USER:",))
    assert "".join(each.text for each in deltas(made, map(ord, "one USER: x"))) == "one "
    assert made.stop_reason is None
    made = answer()
    list(deltas(made, map(ord, "one\0")))
    assert made.stop_reason is None


def test_end_tokens_and_the_models_own_end_strings_can_be_ignored():
    options = {"end_strings": ("###",), "ignore_eos": True, "max_tokens": 9}
    assert run("o\0ne###two", **options) == ("o\0ne###tw", FinishReason.LENGTH, 9)
    assert run("one|###", stop=("|",), **options)[0] == "one"


def test_stop_strings_are_not_looked_for_in_the_first_tokens():
    assert run("##one##two", stop=("##",), min_tokens=3) == ("##one", FinishReason.STOP, 7)
    assert run("##one##two", stop=("##",), min_tokens=0) == ("", FinishReason.STOP, 2)


def test_a_token_that_could_not_be_chosen_is_its_error():
    with pytest.raises(BadRequestError, match="the schema"):
        answer().push(Token(5, error=BadRequestError("the schema")))


def told(text, **options):
    """Text and the tokens that came with it, piece by piece."""
    made = answer(**options)
    tokens = [Token(ord(c), logprob=-1.0, likeliest=((ord("?"), -0.5),)) for c in text]
    return [(each.text, [t.text for t in each.tokens]) for each in deltas(made, tokens)]


def test_tokens_are_told_with_the_text_that_they_begin():
    assert told("hi\0") == [("h", ["h"]), ("i", ["i"])]
    made = answer()
    delta = made.push(Token(ord("é"), logprob=-1.0, likeliest=((ord("?"), -0.5),)))
    (token,) = delta.tokens
    assert (token.data, token.logprob, token.offset) == ("é".encode(), -1.0, 0)
    assert [(each.text, each.logprob) for each in token.likeliest] == [("?", -0.5)]


def test_tokens_of_a_stop_string_are_not_told():
    assert told("ab###", stop=("###",)) == [("a", ["a"]), ("b", ["b"])]


def test_tokens_that_were_held_back_are_told_when_their_text_is_shown():
    assert told("a##b\0", stop=("###",)) == [("a", ["a"]), ("##b", ["#", "#", "b"])]
    assert told("a##", stop=("###",), max_tokens=3) == [("a", ["a"]), ("##", ["#", "#"])]


def test_the_tokens_of_half_a_character_come_with_it():
    def decode(ids):
        return bytes(ids).decode(errors="replace")

    made = answer(decode=decode)
    tokens = [Token(byte, logprob=-1.0) for byte in "aé!".encode()]
    found = [(each.text, len(each.tokens)) for each in deltas(made, tokens)]
    assert found == [("a", 1), ("é", 2), ("!", 1)]


@given(
    st.lists(st.sampled_from(["a", "b", "ab", "ba", "é", " "]), max_size=20),
    st.lists(st.sampled_from(["ab", "b", "aé", "  ", "ba b"]), max_size=2),
)
def test_where_it_is_cut_does_not_depend_on_where_tokens_end(pieces, stops):
    """Tokens of several characters show what tokens of one character show."""
    vocabulary = sorted({*pieces, "\0"})

    def shown(tokens, table):
        made = answer(
            decode=lambda ids: "".join(table[i] for i in ids), stop=tuple(stops), max_tokens=1_000
        )
        made._end_token_ids = {table.index("\0")}
        return "".join(each.text for each in deltas(made, tokens)), made.stop_reason

    characters = sorted({*"".join(pieces), "\0"})
    whole = shown([*map(vocabulary.index, pieces), vocabulary.index("\0")], vocabulary)
    single = shown([*map(characters.index, "".join(pieces)), characters.index("\0")], characters)
    text, first = "".join(pieces), [s for s in stops if s.strip() and s in "".join(pieces)]
    assert whole == single
    assert text.startswith(whole[0])
    assert (whole[0] == text) == (not first)
