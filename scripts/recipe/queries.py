"""What can be asked, as meanings without words, and which things of a scene a question points at.

A `Query` is one question's meaning; the wordings and the answers are in `english` and `chinese`.
This module holds no sentence of either.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from recipe.world import CELLS, COLOURS, SHAPES, Scene, Thing


class Kind(Enum):
    """What a question asks for; also the rows of the evaluation table."""

    DESCRIBE = "describe"  # the whole picture
    COUNT = "count"  # how many, in all or of a kind
    COLOUR = "colour"  # the colour of a shape
    SHAPE = "shape"  # the shape of what has a colour
    WHERE = "where"  # the place of a thing
    EXISTS = "is there"  # yes or no
    GROUND = "background"
    BESIDE = "what is left of"  # what lies left of, right of, above, below a thing
    RELATION = "is it left of"  # the same between two things, yes or no
    PLACE = "what is at"  # what a part of the picture holds
    TALK = "small talk"


class Form(Enum):
    """How a question leans on the turn before it."""

    FULL = "full"  # stands alone
    AND = "and"  # "and the star?": the kind is the last question's
    IT = "it"  # "where is it?": the thing is the last question's


class Direction(Enum):
    """A direction in the picture, decided by grid column or row alone."""

    LEFT = "left"
    RIGHT = "right"
    ABOVE = "above"
    BELOW = "below"


class Topic(Enum):
    """What small talk is about."""

    HELLO = "hello"
    ABILITY = "ability"
    WHO = "who"
    HOW = "how"
    THANKS = "thanks"
    BYE = "bye"
    SHAPES = "shapes"  # which shapes it knows
    COLOURS = "colours"  # which colours it knows
    NO_PICTURE = "no picture"  # asked about a picture that is not there
    BEYOND = "beyond"  # anything else


@dataclass(frozen=True)
class Reference:
    """Words for things: a colour, a shape, both, or neither (any shape)."""

    colour: str | None = None
    shape: str | None = None

    def matches(self, scene: Scene) -> tuple[Thing, ...]:
        """The things meant, in reading order."""
        return tuple(
            thing
            for thing in scene.things
            if self.colour in (None, thing.colour) and self.shape in (None, thing.shape)
        )


@dataclass(frozen=True)
class Query:
    """One question's meaning. Which fields count depends on `kind`."""

    kind: Kind
    target: Reference = Reference()
    other: Reference = Reference()  # RELATION
    direction: Direction = Direction.LEFT  # BESIDE, RELATION
    cell: int = 0  # PLACE
    topic: Topic = Topic.HELLO  # TALK
    form: Form = Form.FULL


def lies(thing: Thing, direction: Direction, other: Thing) -> bool:
    """Whether `thing` lies in `direction` of `other`."""
    if direction is Direction.LEFT:
        return thing.column < other.column
    if direction is Direction.RIGHT:
        return thing.column > other.column
    if direction is Direction.ABOVE:
        return thing.row < other.row
    return thing.row > other.row


# By how hard they are to learn: what compares, counts or lists asks for more of the training.
_WEIGHTS: Final = {
    Kind.DESCRIBE: 2.2,
    Kind.COUNT: 1.8,
    Kind.COLOUR: 1.4,
    Kind.SHAPE: 1.1,
    Kind.WHERE: 1.0,
    Kind.EXISTS: 0.9,
    Kind.GROUND: 0.3,
    Kind.BESIDE: 2.8,
    Kind.RELATION: 3.4,
    Kind.PLACE: 1.2,
    Kind.TALK: 0.8,
}
_TALK_WITH_PICTURE: Final = (
    Topic.HELLO,
    Topic.ABILITY,
    Topic.WHO,
    Topic.HOW,
    Topic.THANKS,
    Topic.BYE,
    Topic.SHAPES,
    Topic.COLOURS,
    Topic.BEYOND,
    Topic.BEYOND,
    Topic.BEYOND,
)
_TALK_ALONE: Final = (*_TALK_WITH_PICTURE, Topic.NO_PICTURE, Topic.NO_PICTURE, Topic.NO_PICTURE)


def pick_kind(rng: random.Random) -> Kind:
    """A kind of question, describing and counting somewhat more often than the rest."""
    return rng.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]


def pick_query(scene: Scene, rng: random.Random, kind: Kind | None = None) -> Query:
    """A question about the scene that stands alone."""
    kind = kind or pick_kind(rng)
    if kind is Kind.COUNT:
        target = Reference() if rng.random() < 0.35 else _pick_target(scene, rng)
        return Query(kind, target)
    if kind is Kind.COLOUR:
        return Query(kind, Reference(shape=_pick_shape(scene, rng)))
    if kind is Kind.SHAPE:
        return Query(kind, Reference(colour=_pick_colour(scene, rng)))
    if kind is Kind.WHERE:
        return Query(kind, _pick_target(scene, rng))
    if kind is Kind.EXISTS:
        return Query(kind, _pick_present_or_absent(scene, rng))
    if kind is Kind.BESIDE:
        direction = rng.choice(list(Direction))
        return Query(kind, _pick_single(scene, rng), direction=direction)
    if kind is Kind.RELATION:
        one, two = _pick_single(scene, rng), _pick_single(scene, rng)
        return Query(kind, one, two, _pick_direction(scene, one, two, rng))
    if kind is Kind.PLACE:
        full = bool(scene.things) and rng.random() < 0.65
        cell = rng.choice(scene.things).cell if full else rng.randrange(CELLS)
        return Query(kind, cell=cell)
    if kind is Kind.TALK:
        return Query(kind, topic=rng.choice(_TALK_WITH_PICTURE))
    return Query(kind)


def pick_talk(rng: random.Random) -> Query:
    """A question asked where there is no picture."""
    return Query(Kind.TALK, topic=rng.choice(_TALK_ALONE))


def pick_follow_up(scene: Scene, last: Query, rng: random.Random) -> Query | None:
    """A question that leans on the last one, or None where nothing can lean on it."""
    choices: list[Query] = []
    if last.kind in (Kind.COUNT, Kind.COLOUR, Kind.WHERE, Kind.EXISTS, Kind.SHAPE):
        fresh = pick_query(scene, rng, last.kind)
        if fresh.target not in (last.target, Reference()) and last.form is not Form.IT:
            choices.append(replace(fresh, form=Form.AND))
    if last.form is not Form.IT and len(last.target.matches(scene)) == 1:
        it: list[Kind] = []
        if last.kind in (Kind.COLOUR, Kind.SHAPE, Kind.EXISTS):
            it.append(Kind.WHERE)
        if last.kind in (Kind.WHERE, Kind.EXISTS) and last.target.colour is None:
            it.append(Kind.COLOUR)
        if last.kind in (Kind.WHERE, Kind.EXISTS) and last.target.shape is None:
            it.append(Kind.SHAPE)
        choices.extend(Query(kind, last.target, form=Form.IT) for kind in it)
    return rng.choice(choices) if choices else None


def _pick_target(scene: Scene, rng: random.Random) -> Reference:
    """Mostly words for one thing that is there; sometimes for several, or for none."""
    chance = rng.random()
    if scene.things and chance < 0.78:
        for _ in range(4):
            target = _of(rng.choice(scene.things), rng)
            if len(target.matches(scene)) == 1:
                break
        return target
    if len(scene.things) > 1 and chance < 0.89:
        one, two = rng.sample(scene.things, 2)
        return Reference(one.colour, two.shape)
    return _of(Thing(0, rng.choice(COLOURS), rng.choice(SHAPES)), rng)


def _pick_present_or_absent(scene: Scene, rng: random.Random) -> Reference:
    wanted = rng.random() < 0.5 and bool(scene.things)
    while True:
        target = _pick_target(scene, rng)
        if bool(target.matches(scene)) is wanted:
            return target


def _pick_single(scene: Scene, rng: random.Random) -> Reference:
    """Mostly words that mean exactly one thing."""
    for _ in range(6):
        target = _pick_target(scene, rng)
        if len(target.matches(scene)) == 1:
            break
    return target


def _pick_direction(scene: Scene, one: Reference, two: Reference, rng: random.Random) -> Direction:
    """Often the one in which the first lies of the second: at random, most answers would be no."""
    here, there = one.matches(scene), two.matches(scene)
    if len(here) == len(there) == 1 and rng.random() < 0.35:
        true = [way for way in Direction if lies(here[0], way, there[0])]
        if true:
            return rng.choice(true)
    return rng.choice(list(Direction))


def _of(thing: Thing, rng: random.Random) -> Reference:
    chance = rng.random()
    if chance < 0.5:
        return Reference(thing.colour, thing.shape)
    if chance < 0.8:
        return Reference(shape=thing.shape)
    return Reference(colour=thing.colour)


def _pick_shape(scene: Scene, rng: random.Random) -> str:
    return _mostly_single([thing.shape for thing in scene.things], SHAPES, rng)


def _pick_colour(scene: Scene, rng: random.Random) -> str:
    return _mostly_single([thing.colour for thing in scene.things], COLOURS, rng)


def _mostly_single(there: list[str], known: tuple[str, ...], rng: random.Random) -> str:
    """A word of the picture, rather one that occurs once; sometimes any word."""
    if not there or rng.random() >= 0.86:
        return rng.choice(known)
    once = [word for word in there if there.count(word) == 1]
    return rng.choice(once if once and rng.random() < 0.7 else there)
