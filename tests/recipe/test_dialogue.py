import random

import pytest
from recipe.dialogue import Form, Kind, Speech, converse, talk
from recipe.queries import Topic
from recipe.wording import expand, roughen
from recipe.world import draw_scene


@pytest.mark.parametrize("speech", Speech)
def test_a_conversation_has_the_turns_asked_for_and_never_an_empty_one(speech: Speech) -> None:
    rng = random.Random(1)
    for _ in range(100):
        turns = converse(draw_scene(rng, held_out=False), rng, 5, speech, typos=0.1)
        assert len(turns) == 5
        assert all(turn.question and turn.answer for turn in turns)


def test_the_first_question_never_leans_on_another() -> None:
    rng = random.Random(2)
    for _ in range(300):
        first, *_ = converse(draw_scene(rng, held_out=False), rng, 2, Speech.ENGLISH)
        assert first.query.form is Form.FULL


def test_follow_ups_happen() -> None:
    rng = random.Random(3)
    forms = {
        turn.query.form
        for _ in range(50)
        for turn in converse(draw_scene(rng, held_out=False), rng, 6, Speech.ENGLISH)
    }
    assert forms == set(Form)


def test_yes_and_no_are_balanced() -> None:
    rng = random.Random(4)
    said = [
        turn.answer.split("? ")[1].split(",")[0]
        for _ in range(1500)
        for turn in converse(draw_scene(rng, held_out=False), rng, 3, Speech.ENGLISH)
        if turn.query.kind is Kind.EXISTS and turn.query.form is Form.FULL
    ]
    assert 0.42 < said.count("Yes") / len(said) < 0.58


def test_chinese_answers_come_to_english_questions() -> None:
    rng = random.Random(5)
    turns = converse(draw_scene(rng, held_out=False), rng, 5, Speech.ENGLISH_TO_CHINESE)
    assert all(turn.question.isascii() and not turn.answer.isascii() for turn in turns)


def test_without_a_picture_it_asks_for_one() -> None:
    rng = random.Random(6)
    answers = {
        turn.answer
        for turn in talk(rng, 300, Speech.ENGLISH)
        if turn.query.topic is Topic.NO_PICTURE
    }
    assert answers == {"Please show me a picture first."}


def test_alternatives_nest_and_may_be_empty() -> None:
    rng = random.Random(7)
    assert {expand("a{b{c|d}|}e", rng) for _ in range(100)} == {"abce", "abde", "ae"}


def test_roughness_keeps_the_words_when_there_are_no_typos() -> None:
    rng = random.Random(8)
    for _ in range(200):
        rough = roughen("where is the red circle?", rng, typos=0.0)
        assert rough.lower().rstrip("?! ") == "where is the red circle"
