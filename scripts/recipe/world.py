"""The demo world: one to four coloured shapes on a ground, each in its own cell of a 3x3 grid.

A `Scene` is what the picture says (and what the answers are made from); a `Placement` is where and
how big a shape is drawn. This module draws nothing and knows no language but the English names.
"""

from __future__ import annotations

import hashlib
import math
import random
from dataclasses import dataclass
from typing import Final

COLOURS: Final = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown")
SHAPES: Final = ("circle", "square", "triangle", "star", "heart", "cross")
GROUNDS: Final = ("white", "grey", "black", "beige", "turquoise", "lavender")
GRID: Final = 3  # cells a side
CELLS: Final = GRID * GRID
MAX_THINGS: Final = 4

# One scene in ten is held out of every training stage, by a hash of its description.
_SPLIT: Final = 10


@dataclass(frozen=True, order=True)
class Thing:
    """One shape in the picture; ordered by cell, which is reading order."""

    cell: int  # 0 is the top left, 8 the bottom right
    colour: str
    shape: str

    @property
    def row(self) -> int:
        """0 is the top."""
        return self.cell // GRID

    @property
    def column(self) -> int:
        """0 is the left."""
        return self.cell % GRID


@dataclass(frozen=True)
class Scene:
    """A picture's content. `things` are in reading order, at most one a cell."""

    ground: str
    things: tuple[Thing, ...]

    def description(self) -> str:
        """The scene as one canonical line, the same however the scene is drawn."""
        return "|".join([self.ground, *(f"{t.cell}:{t.colour} {t.shape}" for t in self.things)])

    @property
    def is_held_out(self) -> bool:
        """Whether the scene belongs to the evaluation half of the split (one in ten)."""
        digest = hashlib.blake2b(self.description().encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") % _SPLIT == 0


@dataclass(frozen=True)
class Placement:
    """How one thing is drawn: `x`, `y` of width and height, `radius` of the shorter side."""

    x: float
    y: float
    radius: float
    rotation: float  # radians, clockwise
    stretch: float  # width over height


def draw_any_scene(rng: random.Random) -> Scene:
    """A scene from either half of the split."""
    count = rng.choices((0, 1, 2, 3, 4), (2, 18, 24, 27, 29))[0]
    cells = sorted(rng.sample(range(CELLS), count))
    things: list[Thing] = []
    for cell in cells:
        colour, shape = rng.choice(COLOURS), rng.choice(SHAPES)
        if things and rng.random() < 0.35:  # shared colours and shapes make counting worth asking
            twin = rng.choice(things)
            if rng.random() < 0.5:
                colour = twin.colour
            else:
                shape = twin.shape
        things.append(Thing(cell, colour, shape))
    return Scene(rng.choice(GROUNDS), tuple(things))


def draw_scene(rng: random.Random, *, held_out: bool) -> Scene:
    """A scene from the asked side of the split: training and exam scenes never meet."""
    while True:
        scene = draw_any_scene(rng)
        if scene.is_held_out is held_out:
            return scene


def place_things(scene: Scene, rng: random.Random) -> tuple[Placement, ...]:
    """Where each thing of the scene is drawn: its centre inside its cell, nothing overlapping."""
    generosity = rng.random()
    placements: list[Placement] = []
    for attempt in range(12):
        placements = [_place(thing, rng, generosity * (1 - attempt / 12)) for thing in scene.things]
        if not _any_overlap(placements):
            break
    return tuple(placements)


def _place(thing: Thing, rng: random.Random, generosity: float) -> Placement:
    # At least a tenth of the picture's shorter side in radius, and clear of the cell's border:
    # what a tower of 112 px cannot tell apart is no question to ask about.
    radius = rng.uniform(0.1, 0.14 + 0.1 * generosity)
    reach = min(0.105, max(0.02, 0.165 - radius) + 0.1 * generosity)
    x = (thing.column + 0.5) / GRID + rng.uniform(-reach, reach)
    y = (thing.row + 0.5) / GRID + rng.uniform(-reach, reach)
    margin = radius * 0.95
    tilt = 0.3 if rng.random() < 0.8 else math.pi
    limit = 0.3 if thing.shape in ("square", "cross", "heart") else tilt
    return Placement(
        x=min(max(x, margin), 1 - margin),
        y=min(max(y, margin), 1 - margin),
        radius=radius,
        rotation=rng.uniform(-limit, limit) if rng.random() < 0.75 else 0.0,
        stretch=rng.uniform(0.88, 1.14) if rng.random() < 0.5 else 1.0,
    )


def _any_overlap(placements: list[Placement]) -> bool:
    return any(
        math.hypot(one.x - two.x, one.y - two.y) < one.radius + two.radius + 0.015
        for index, one in enumerate(placements)
        for two in placements[:index]
    )
