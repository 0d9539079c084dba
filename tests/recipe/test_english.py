import random

import pytest
from recipe import english
from recipe.queries import Direction, Form, Kind, Query, Reference, Topic
from recipe.world import Scene, Thing

THREE = Scene(
    "white",
    (Thing(0, "red", "circle"), Thing(4, "orange", "star"), Thing(8, "red", "heart")),
)
TWINS = Scene("grey", (Thing(0, "red", "cross"), Thing(4, "blue", "cross")))
EMPTY = Scene("beige", ())


@pytest.mark.parametrize(
    ("query", "scene", "answer"),
    [
        (
            Query(Kind.DESCRIBE),
            THREE,
            (
                "There are three shapes on a white background: a red circle at the top left, "
                "an orange star in the centre and a red heart at the bottom right."
            ),
        ),
        (Query(Kind.DESCRIBE), EMPTY, "There are no shapes, only a beige background."),
        (Query(Kind.COUNT), THREE, "There are three shapes."),
        (Query(Kind.COUNT), EMPTY, "There are no shapes."),
        (Query(Kind.COUNT, Reference("red")), THREE, "There are two red shapes."),
        (Query(Kind.COUNT, Reference(shape="star")), THREE, "There is one star."),
        (Query(Kind.COUNT, Reference(shape="cross")), TWINS, "There are two crosses."),
        (Query(Kind.COLOUR, Reference(shape="star")), THREE, "The star is orange."),
        (
            Query(Kind.COLOUR, Reference(shape="cross")),
            TWINS,
            "The cross is one of two: red and blue.",
        ),
        (
            Query(Kind.COLOUR, Reference(shape="square")),
            THREE,
            "The square is nowhere in the picture.",
        ),
        (Query(Kind.SHAPE, Reference("orange")), THREE, "The orange shape is a star."),
        (
            Query(Kind.SHAPE, Reference("red")),
            THREE,
            "The red shape is one of two: a circle and a heart.",
        ),
        (
            Query(Kind.WHERE, Reference("red", "heart")),
            THREE,
            "The red heart is at the bottom right.",
        ),
        (
            Query(Kind.WHERE, Reference(shape="cross")),
            TWINS,
            "The cross is one of two: at the top left and in the centre.",
        ),
        (Query(Kind.EXISTS, Reference(shape="star")), THREE, "A star? Yes, there is one."),
        (Query(Kind.EXISTS, Reference("red")), THREE, "A red shape? Yes, there are two."),
        (Query(Kind.EXISTS, Reference("green", "star")), THREE, "A green star? No, there is none."),
        (Query(Kind.GROUND), THREE, "The background is white."),
        (Query(Kind.PLACE, cell=4), THREE, "In the centre is an orange star."),
        (Query(Kind.PLACE, cell=5), THREE, "On the right is nothing."),
        (
            Query(Kind.BESIDE, Reference(shape="heart"), direction=Direction.LEFT),
            THREE,
            "The heart is at the bottom right, left of it are a red circle and an orange star.",
        ),
        (
            Query(Kind.BESIDE, Reference(shape="circle"), direction=Direction.ABOVE),
            THREE,
            "The circle is at the top left, above it is nothing.",
        ),
        (
            Query(Kind.BESIDE, Reference("red"), direction=Direction.BELOW),
            THREE,
            "The red shape is one of two, so I cannot say.",
        ),
        (
            Query(Kind.RELATION, Reference(shape="star"), Reference(shape="heart"), Direction.LEFT),
            THREE,
            "The star is in the centre and the heart at the bottom right, so yes.",
        ),
        (
            Query(
                Kind.RELATION, Reference(shape="star"), Reference(shape="heart"), Direction.BELOW
            ),
            THREE,
            "The star is in the centre and the heart at the bottom right, so no.",
        ),
        (Query(Kind.WHERE, Reference(shape="star"), form=Form.IT), THREE, "It is in the centre."),
        (Query(Kind.TALK, topic=Topic.THANKS), THREE, "You are welcome!"),
    ],
)
def test_a_question_has_one_right_answer(query: Query, scene: Scene, answer: str) -> None:
    assert english.answer(query, scene) == answer


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.TALK])
def test_a_question_comes_in_many_wordings_with_every_mark_filled_in(kind: Kind) -> None:
    rng = random.Random(1)
    query = Query(kind, Reference("red", "circle"), Reference("blue", "star"), Direction.ABOVE, 4)
    wordings = {english.ask(query, rng) for _ in range(300)}
    assert len(wordings) > 20
    assert not [wording for wording in wordings if set(wording) & set("@#~^%${}|")]


@pytest.mark.parametrize("topic", Topic)
def test_small_talk_leaves_no_mark_unfilled(topic: Topic) -> None:
    rng = random.Random(1)
    for _ in range(300):
        asked = english.ask(Query(Kind.TALK, topic=topic), rng)
        assert asked.strip()
        assert not set(asked) & set("@#~^%${}")


def test_the_article_fits_the_word_behind_it() -> None:
    rng = random.Random(4)
    query = Query(Kind.EXISTS, Reference("orange", "star"))
    assert not [w for w in (english.ask(query, rng) for _ in range(200)) if "a orange" in w]
