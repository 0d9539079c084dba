import random

import pytest
from recipe import chinese
from recipe.queries import Direction, Form, Kind, Query, Reference, Topic
from recipe.world import Scene, Thing

TWO = Scene("white", (Thing(0, "red", "circle"), Thing(4, "blue", "star")))
TWINS = Scene("grey", (Thing(0, "red", "cross"), Thing(4, "blue", "cross")))


@pytest.mark.parametrize(
    ("query", "scene", "answer"),
    [
        (Query(Kind.DESCRIBE), TWO, "白色背景上有两个图形：左上角是红色的圆形，中间是蓝色的星形。"),
        (Query(Kind.COUNT), TWO, "图形有两个。"),
        (Query(Kind.COUNT, Reference("green")), TWO, "绿色的图形一个也没有。"),
        (Query(Kind.COLOUR, Reference(shape="star")), TWO, "星形是蓝色的。"),
        (Query(Kind.COLOUR, Reference(shape="cross")), TWINS, "十字形有两个：红色和蓝色。"),
        (Query(Kind.SHAPE, Reference("red")), TWO, "红色的图形是圆形。"),
        (Query(Kind.WHERE, Reference(shape="circle")), TWO, "圆形在左上角。"),
        (Query(Kind.EXISTS, Reference(shape="heart")), TWO, "心形？没有。"),
        (Query(Kind.EXISTS, Reference("blue", "star")), TWO, "蓝色的星形？有，一个。"),
        (Query(Kind.GROUND), TWO, "背景是白色的。"),
        (Query(Kind.PLACE, cell=4), TWO, "中间是蓝色的星形。"),
        (Query(Kind.PLACE, cell=8), TWO, "右下角什么都没有。"),
        (
            Query(Kind.BESIDE, Reference(shape="star"), direction=Direction.LEFT),
            TWO,
            "星形在中间，它的左边是红色的圆形。",
        ),
        (
            Query(
                Kind.RELATION, Reference(shape="star"), Reference(shape="circle"), Direction.LEFT
            ),
            TWO,
            "星形在中间，圆形在左上角，所以不是。",
        ),
        (Query(Kind.COLOUR, Reference(shape="star"), form=Form.IT), TWO, "它是蓝色的。"),
        (Query(Kind.TALK, topic=Topic.THANKS), TWO, "不客气！"),
    ],
)
def test_a_question_has_one_right_answer(query: Query, scene: Scene, answer: str) -> None:
    assert chinese.answer(query, scene) == answer


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.TALK])
def test_a_question_comes_in_several_wordings_with_every_mark_filled_in(kind: Kind) -> None:
    rng = random.Random(1)
    query = Query(kind, Reference("red", "circle"), Reference("blue", "star"), Direction.ABOVE, 4)
    wordings = {chinese.ask(query, rng) for _ in range(300)}
    assert len(wordings) > 8
    assert not [wording for wording in wordings if set(wording) & set("@#~^%${}|")]
