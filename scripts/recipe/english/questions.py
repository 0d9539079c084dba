"""English questions: one of many wordings of each."""

from __future__ import annotations

import random
from typing import Final

from recipe.english.talk import STRANGE, TALK
from recipe.english.wordings import AND, AND_ANY, AND_MANY, ASK, IT, SAY_DIRECTION, SAY_PLACE
from recipe.english.words import PLACES, article
from recipe.queries import Direction, Form, Kind, Query, Reference, Topic
from recipe.wording import expand

_SHAPE_WORDS: Final = ("circle", "square", "triangle", "star", "heart", "cross")


def ask(query: Query, rng: random.Random) -> str:
    """One of the wordings of the question."""
    kind, form = query.kind, query.form
    if kind is Kind.TALK:
        return _ask_talk(query.topic, rng)
    if form is Form.IT:
        return expand(rng.choice(IT[kind]), rng)
    if form is Form.AND:
        return _ask_and(query, rng)
    template = rng.choice(ASK[kind])
    template = template.replace("~", SAY_DIRECTION[query.direction])
    template = template.replace("^", SAY_PLACE[query.cell])
    if kind is Kind.SHAPE:
        template = template.replace("#", query.target.colour or "")
    return _fill(expand(template, rng), query, rng)


def _ask_talk(topic: Topic, rng: random.Random) -> str:
    if topic is Topic.NO_PICTURE:
        kind = rng.choice([kind for kind in ASK if kind is not Kind.RELATION])
        target = Reference(rng.choice(("red", "blue", "green", "pink")), rng.choice(_SHAPE_WORDS))
        if kind is Kind.COLOUR or (kind is not Kind.SHAPE and rng.random() < 0.5):
            target = Reference(shape=target.shape)
        direction, cell = rng.choice(list(Direction)), rng.randrange(len(PLACES))
        return ask(Query(kind, target, direction=direction, cell=cell), rng)
    text = expand(rng.choice(TALK[topic]), rng)
    return text.replace("$", rng.choice(STRANGE)).replace("@", rng.choice(_SHAPE_WORDS))


def _ask_and(query: Query, rng: random.Random) -> str:
    if query.kind is Kind.COUNT:
        templates = AND_MANY
    elif query.kind is Kind.EXISTS:
        templates = AND_ANY
    else:
        templates = AND
    return _fill(expand(rng.choice(templates), rng), query, rng)


def _fill(text: str, query: Query, rng: random.Random) -> str:
    loose = rng.choice(("thing", "one", "object", "shape", "shape"))
    for mark, reference in (("@", query.target), ("%", query.other)):
        noun = reference.shape or ("shape" if reference.colour is None else loose)
        words = noun if reference.colour is None else f"{reference.colour} {noun}"
        plural = words + ("es" if words.endswith("s") else "s")
        text = text.replace(f"{mark}s", plural)
        text = text.replace(f"a {mark}", f"{article(words)} {words}").replace(mark, words)
    return text
