"""The held-out exam: questions about scenes that no stage saw, and how many are answered."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from PIL import Image

from recipe.dialogue import Form, Kind, Speech, Turn, speak
from recipe.drawing import draw
from recipe.queries import pick_follow_up, pick_query
from recipe.world import Scene, draw_scene

FOLLOW_UP: Final = "follow-up"
ROWS: Final = (*(kind.value for kind in Kind), FOLLOW_UP)


@dataclass(frozen=True)
class Problem:
    """One question of the exam. The last turn's answer is the one that is asked for."""

    row: str  # of the table
    picture: Image.Image
    turns: tuple[Turn, ...]

    @property
    def expected(self) -> str:
        """The right answer."""
        return self.turns[-1].answer


# Answers problems, in order.
Answerer = Callable[[Sequence[Problem]], list[str]]


def set_exam(speeches: Sequence[Speech], scenes: int, each: int, seed: int) -> list[Problem]:
    """`each` questions about each of `scenes` held-out scenes, the rows taking turns."""
    rng = random.Random(seed)
    problems: list[Problem] = []
    number = 0
    for _ in range(scenes):
        scene = draw_scene(rng, held_out=True)
        picture = draw(scene, rng)
        for _ in range(each):
            row = ROWS[number % len(ROWS)]
            speech = speeches[number // len(ROWS) % len(speeches)]
            problems.append(Problem(row, picture, _turns(row, scene, rng, speech)))
            number += 1
    return problems


def _turns(row: str, scene: Scene, rng: random.Random, speech: Speech) -> tuple[Turn, ...]:
    if row != FOLLOW_UP:
        return (speak(pick_query(scene, rng, Kind(row)), scene, rng, speech),)
    while True:
        first = pick_query(scene, rng)
        second = pick_follow_up(scene, first, rng)
        if second is not None and second.form is not Form.FULL:
            return tuple(speak(query, scene, rng, speech) for query in (first, second))


@dataclass(frozen=True)
class Marks:
    """How an exam went; exact match of the whole answer, nothing trimmed but outer spaces."""

    asked: Counter[str]
    right: Counter[str]
    wrong: tuple[tuple[Problem, str], ...]

    def share(self, row: str) -> float:
        """Of the questions of a row, how many were right."""
        return self.right[row] / self.asked[row]

    @property
    def overall(self) -> float:
        """Of all questions, how many were right."""
        return self.right.total() / self.asked.total()


def mark(problems: Sequence[Problem], answers: Sequence[str]) -> Marks:
    """Compare answers with what was expected."""
    asked, right = Counter[str](), Counter[str]()
    wrong = []
    for problem, answer in zip(problems, answers, strict=True):
        asked[problem.row] += 1
        if answer.strip() == problem.expected:
            right[problem.row] += 1
        else:
            wrong.append((problem, answer))
    return Marks(asked, right, tuple(wrong))


def table(marks: dict[str, Marks]) -> str:
    """A Markdown table: a row a kind of question, a column a model."""
    names = list(marks)
    lines = [
        "| question | " + " | ".join(names) + " |",
        "| --- |" + " ---: |" * len(names),
    ]
    for row in ROWS:
        cells = " | ".join(f"{100 * marks[name].share(row):.1f}" for name in names)
        lines.append(f"| {row} | {cells} |")
    overall = " | ".join(f"**{100 * marks[name].overall:.1f}**" for name in names)
    lines.append(f"| **all** | {overall} |")
    return "\n".join(lines)
