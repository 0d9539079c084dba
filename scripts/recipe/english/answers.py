"""English answers: exactly one to each meaning."""

from __future__ import annotations

import random
from typing import Final

from recipe.english.talk import ANSWER_TALK
from recipe.english.words import NUMBERS, PLACES, called, capital, join, with_article
from recipe.queries import Direction, Form, Kind, Query, Reference, lies
from recipe.world import Scene, Thing

_DIRECTIONS: Final = {
    Direction.LEFT: "left of it",
    Direction.RIGHT: "right of it",
    Direction.ABOVE: "above it",
    Direction.BELOW: "below it",
}
_NOWHERE: Final = "nowhere in the picture"


def note(target: Reference, scene: Scene, rng: random.Random) -> tuple[str, str]:
    """Words for things, and how many there are; of a single one also what and where it is."""
    found = target.matches(scene)
    words = called(target, 1 if rng.random() < 0.6 else 2)
    if len(found) != 1:
        return f" {words}", f" {NUMBERS[len(found)]},"
    colour = "" if target.colour else f" {found[0].colour}"
    shape = "" if target.shape else f" {found[0].shape}"
    return f" {words}", f" one{colour}{shape} {PLACES[found[0].cell]},"


def answer(query: Query, scene: Scene) -> str:
    """The one right answer.

    It names the thing asked about before it says what is so: a small model then looks first and
    decides after.
    """
    if query.kind is Kind.TALK:
        return ANSWER_TALK[query.topic]
    if query.kind is Kind.DESCRIBE:
        return _describe(scene)
    if query.kind is Kind.GROUND:
        return f"The background is {scene.ground}."
    if query.kind is Kind.PLACE:
        return _at(query.cell, scene)
    found = query.target.matches(scene)
    if query.kind is Kind.COUNT:
        return f"{_there_are(query.target, len(found))}."
    if query.kind is Kind.EXISTS:
        return f"{capital(with_article(called(query.target)))}? {_yes_or_no(len(found))}"
    if query.kind is Kind.RELATION:
        return _relation(query, scene, found)
    if query.kind is Kind.BESIDE:
        return _beside(query, scene, found)
    if query.form is Form.IT:
        return f"It is {_attribute(query.kind, found[0])}."
    subject = f"The {called(query.target)} is"
    if not found:
        return f"{subject} {_NOWHERE}."
    each = [_attribute(query.kind, thing) for thing in found]
    return (
        f"{subject} {each[0]}." if len(found) == 1 else f"{subject} {_one_of(found)}: {join(each)}."
    )


def _one_of(found: tuple[Thing, ...]) -> str:
    return f"one of {NUMBERS[len(found)]}"


def _there_are(reference: Reference, count: int) -> str:
    verb = "is" if count == 1 else "are"
    return f"There {verb} {NUMBERS[count]} {called(reference, count)}"


def _attribute(kind: Kind, thing: Thing) -> str:
    if kind is Kind.COLOUR:
        return thing.colour
    return with_article(thing.shape) if kind is Kind.SHAPE else PLACES[thing.cell]


def _yes_or_no(count: int) -> str:
    if count == 0:
        return "No, there is none."
    return "Yes, there is one." if count == 1 else f"Yes, there are {NUMBERS[count]}."


def _describe(scene: Scene) -> str:
    if not scene.things:
        return f"There are no shapes, only a {scene.ground} background."
    count = len(scene.things)
    each = [
        f"{with_article(f'{thing.colour} {thing.shape}')} {PLACES[thing.cell]}"
        for thing in scene.things
    ]
    return f"{_there_are(Reference(), count)} on a {scene.ground} background: {join(each)}."


def _at(cell: int, scene: Scene) -> str:
    there = [
        with_article(f"{thing.colour} {thing.shape}")
        for thing in scene.things
        if thing.cell == cell
    ]
    return f"{capital(PLACES[cell])} is {there[0] if there else 'nothing'}."


def _beside(query: Query, scene: Scene, found: tuple[Thing, ...]) -> str:
    subject = f"The {called(query.target)} is"
    if not found:
        return f"{subject} {_NOWHERE}."
    if len(found) > 1:
        return f"{subject} {_one_of(found)}, so I cannot say."
    there = [
        with_article(f"{thing.colour} {thing.shape}")
        for thing in scene.things
        if lies(thing, query.direction, found[0])
    ]
    verb = "are" if len(there) > 1 else "is"
    where = f"{subject} {PLACES[found[0].cell]}, {_DIRECTIONS[query.direction]}"
    return f"{where} {verb} {join(there) if there else 'nothing'}."


def _relation(query: Query, scene: Scene, found: tuple[Thing, ...]) -> str:
    others = query.other.matches(scene)
    subject = f"The {called(query.target)} is"
    if not found:
        return f"{subject} {_NOWHERE}, so no."
    if len(found) > 1:
        return f"{subject} {_one_of(found)}, so I cannot say."
    both = f"{subject} {PLACES[found[0].cell]} and the {called(query.other)}"
    if not others:
        return f"{both} {_NOWHERE}, so no."
    if len(others) > 1:
        return f"{both} {_one_of(others)}, so I cannot say."
    is_so = lies(found[0], query.direction, others[0])
    return f"{both} {PLACES[others[0].cell]}, so {'yes' if is_so else 'no'}."
