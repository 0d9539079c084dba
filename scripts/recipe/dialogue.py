"""Conversations about a scene: turns of a question and its right answer, in either language."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import Enum

from recipe import chinese, english
from recipe.queries import (
    Direction,
    Form,
    Kind,
    Query,
    pick_follow_up,
    pick_query,
    pick_talk,
)
from recipe.wording import roughen
from recipe.world import Scene

__all__ = [
    "Direction",
    "Form",
    "Kind",
    "Query",
    "Speech",
    "Turn",
    "converse",
    "note",
    "speak",
    "talk",
]

_FOLLOWS_UP = 0.45  # of the turns on which something can lean


class Speech(Enum):
    """Which language asks and which answers."""

    ENGLISH = "english"
    CHINESE = "chinese"
    ENGLISH_TO_CHINESE = "english to chinese"  # asked in English, answered in Chinese

    @property
    def asks_in_chinese(self) -> bool:
        """Whether questions are Chinese."""
        return self is Speech.CHINESE

    @property
    def answers_in_chinese(self) -> bool:
        """Whether answers are Chinese."""
        return self is not Speech.ENGLISH


@dataclass(frozen=True)
class Turn:
    """One question and its right answer."""

    query: Query
    question: str
    answer: str


def speak(
    query: Query, scene: Scene, rng: random.Random, speech: Speech, *, typos: float = 0.0
) -> Turn:
    """Put a query into words, and answer it."""
    asked = chinese.ask(query, rng) if speech.asks_in_chinese else english.ask(query, rng)
    told = chinese.answer if speech.answers_in_chinese else english.answer
    return Turn(query, roughen(asked, rng, typos=typos).strip(), told(query, scene))


def converse(
    scene: Scene, rng: random.Random, turns: int, speech: Speech, *, typos: float = 0.0
) -> list[Turn]:
    """A conversation about one picture; some questions lean on the turn before."""
    spoken: list[Turn] = []
    for _ in range(turns):
        query = None
        if spoken and rng.random() < _FOLLOWS_UP:
            query = pick_follow_up(scene, spoken[-1].query, rng)
        query = query or pick_query(scene, rng)
        spoken.append(speak(query, scene, rng, speech, typos=typos))
    return spoken


def talk(rng: random.Random, turns: int, speech: Speech, *, typos: float = 0.0) -> list[Turn]:
    """A conversation without a picture."""
    nothing = Scene("white", ())
    return [speak(pick_talk(rng), nothing, rng, speech, typos=typos) for _ in range(turns)]


def note(scene: Scene, rng: random.Random, in_chinese: bool, known: set[str]) -> tuple[str, str]:
    """Words for things, and how many there are; of a single one also what and where it is.

    Words that are `known` already are avoided, and added to.
    """
    for _ in range(5):
        kind = rng.choice((Kind.WHERE, Kind.EXISTS, Kind.COLOUR, Kind.SHAPE))
        target = pick_query(scene, rng, kind).target
        if english.called(target) not in known:
            break
    known.add(english.called(target))
    if in_chinese:
        return chinese.note(target, scene, rng)
    return english.note(target, scene, rng)
