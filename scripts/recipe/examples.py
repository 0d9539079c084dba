"""The example pictures of the page, and what the demo models are expected to say of them."""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from recipe import chinese, english
from recipe.drawing import draw_clean
from recipe.queries import Direction, Kind, Query, Reference
from recipe.world import GRID, Placement, Scene, Thing

_SIDE: Final = 392  # pixels
_SEED: Final = 12
_ABOUT: Final = (
    "The demo models know pictures of one to four coloured shapes on a plain background: they "
    "describe them, count, compare places, and name colours, shapes and places. demo-llava-zh "
    "answers in Chinese."
)


@dataclass(frozen=True)
class Prompt:
    """A question and its right answers."""

    prompt: str
    answer_en: str
    answer_zh: str


_LEFT_OF_STAR: Final = Query(Kind.BESIDE, Reference(shape="star"), direction=Direction.LEFT)
_RIGHT_OF_CROSS: Final = Query(Kind.BESIDE, Reference(shape="cross"), direction=Direction.RIGHT)
_CIRCLE_ABOVE_SQUARE: Final = Query(
    Kind.RELATION, Reference(shape="circle"), Reference(shape="square"), Direction.ABOVE
)
_Asked = tuple[str, Query]
_EXAMPLES: Final[tuple[tuple[str, Scene, tuple[_Asked, ...]], ...]] = (
    (
        "three-shapes.png",
        Scene(
            "white",
            (Thing(0, "red", "circle"), Thing(4, "blue", "star"), Thing(8, "green", "square")),
        ),
        (
            ("Describe the image.", Query(Kind.DESCRIBE)),
            ("What is to the left of the star?", _LEFT_OF_STAR),
            ("Is the circle above the square?", _CIRCLE_ABOVE_SQUARE),
        ),
    ),
    (
        "twins.png",
        Scene(
            "beige",
            (
                Thing(1, "purple", "triangle"),
                Thing(3, "orange", "circle"),
                Thing(5, "purple", "circle"),
                Thing(7, "yellow", "heart"),
            ),
        ),
        (
            ("Where is the yellow heart?", Query(Kind.WHERE, Reference("yellow", "heart"))),
            ("How many hearts are there?", Query(Kind.COUNT, Reference(shape="heart"))),
        ),
    ),
    (
        "night.png",
        Scene("black", (Thing(2, "yellow", "star"), Thing(6, "pink", "heart"))),
        (
            ("Describe the image.", Query(Kind.DESCRIBE)),
            ("What shape is the yellow thing?", Query(Kind.SHAPE, Reference("yellow"))),
        ),
    ),
    (
        "side-by-side.png",
        Scene("lavender", (Thing(3, "green", "cross"), Thing(5, "red", "square"))),
        (
            ("What colour is the square?", Query(Kind.COLOUR, Reference(shape="square"))),
            ("What is to the right of the cross?", _RIGHT_OF_CROSS),
            ("Is there a red circle?", Query(Kind.EXISTS, Reference("red", "circle"))),
        ),
    ),
    (
        "lonely-heart.png",
        Scene("turquoise", (Thing(4, "red", "heart"),)),
        (
            ("Describe the image.", Query(Kind.DESCRIBE)),
            ("What colour is the background?", Query(Kind.GROUND)),
        ),
    ),
    (
        "four-corners.png",
        Scene(
            "grey",
            (
                Thing(0, "blue", "triangle"),
                Thing(2, "yellow", "circle"),
                Thing(6, "red", "cross"),
                Thing(8, "green", "star"),
            ),
        ),
        (
            ("How many shapes are there?", Query(Kind.COUNT)),
            ("What colour is the background?", Query(Kind.GROUND)),
        ),
    ),
)


def example_prompts(scene: Scene, asked: tuple[_Asked, ...]) -> list[Prompt]:
    """The questions about an example with their right answers in both languages."""
    return [
        Prompt(text, english.answer(query, scene), chinese.answer(query, scene))
        for text, query in asked
    ]


def _calmly(scene: Scene, rng: random.Random) -> tuple[Placement, ...]:
    """Near the middle of each cell, about one size: a page wants tidier pictures than training."""
    return tuple(
        Placement(
            x=(thing.column + 0.5) / GRID + rng.uniform(-0.02, 0.02),
            y=(thing.row + 0.5) / GRID + rng.uniform(-0.02, 0.02),
            radius=rng.uniform(0.115, 0.135),
            rotation=rng.uniform(-0.12, 0.12),
            stretch=1.0,
        )
        for thing in scene.things
    )


def make_examples(folder: Path) -> None:
    """Draw every example and write `examples.json` beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(_SEED)
    listed = []
    for name, scene, asked in _EXAMPLES:
        draw_clean(scene, _calmly(scene, rng), _SIDE).save(folder / name, optimize=True)
        prompts = [asdict(prompt) for prompt in example_prompts(scene, asked)]
        listed.append({"image": name, "prompts": prompts})
    content = {"about": _ABOUT, "examples": listed}
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    (folder / "examples.json").write_text(text, encoding="utf-8")
