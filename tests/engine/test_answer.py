"""When an answer is over, and what of it is shown."""

from controller.protocol.chat import FinishReason
from worker.engine.answer import Answer

END = 0


def run(text, *, stop=(), max_tokens=100):
    answer = Answer(
        decode=lambda ids: "".join(map(chr, ids)),
        end_token_ids={END},
        stop=stop,
        max_tokens=max_tokens,
    )
    out = ""
    for character in text:
        out += answer.push(ord(character))
        if answer.finish_reason is not None:
            break
    return out, answer.finish_reason, answer.token_count


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
