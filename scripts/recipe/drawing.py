"""Draws a scene as a picture, with the variation of real ones: size, tilt, hue, noise, JPEG."""

from __future__ import annotations

import colorsys
import io
import math
import random
from typing import Final

import numpy as np
from PIL import Image, ImageDraw

from recipe.world import Placement, Scene, place_things

RGB = tuple[int, int, int]

_PAINT: Final[dict[str, RGB]] = {
    "red": (222, 34, 38),
    "orange": (248, 138, 24),
    "yellow": (248, 220, 36),
    "green": (40, 160, 62),
    "blue": (36, 84, 222),
    "purple": (128, 44, 172),
    "pink": (248, 128, 186),
    "brown": (122, 72, 34),
}
_GROUND: Final[dict[str, RGB]] = {
    "white": (252, 252, 252),
    "grey": (150, 150, 150),
    "black": (16, 16, 16),
    "beige": (230, 213, 178),
    "turquoise": (84, 208, 200),
    "lavender": (204, 192, 240),
}


def draw(scene: Scene, rng: random.Random, *, size: tuple[int, int] | None = None) -> Image.Image:
    """The scene as an RGB picture of `size` (width, height), or of a random size."""
    return draw_placed(scene, place_things(scene, rng), rng, size=size)


def draw_placed(
    scene: Scene,
    placements: tuple[Placement, ...],
    rng: random.Random,
    *,
    size: tuple[int, int] | None = None,
) -> Image.Image:
    """As `draw`, with the placements given."""
    width, height = size or _any_size(rng)
    ground = _vary(_GROUND[scene.ground], rng, hue=0.012, saturation=0.06, value=0.05)
    picture = Image.new("RGB", (width, height), ground)
    canvas = ImageDraw.Draw(picture)
    outlined = rng.random() < 0.15
    for thing, placement in zip(scene.things, placements, strict=True):
        fill = _vary(_PAINT[thing.colour], rng, hue=0.012, saturation=0.1, value=0.09)
        points = _outline(thing.shape, placement, width, height)
        canvas.polygon(points, fill=fill)
        if outlined:
            dark: RGB = (fill[0] // 3, fill[1] // 3, fill[2] // 3)
            thick = max(1, round(min(width, height) * 0.008))
            canvas.line([*points, points[0]], fill=dark, width=thick, joint="curve")
    return _weather(picture, rng)


def draw_clean(scene: Scene, placements: tuple[Placement, ...], side: int) -> Image.Image:
    """A smooth square drawing in the exact colours, as a page wants its examples."""
    big = side * 4
    picture = Image.new("RGB", (big, big), _GROUND[scene.ground])
    canvas = ImageDraw.Draw(picture)
    for thing, placement in zip(scene.things, placements, strict=True):
        canvas.polygon(_outline(thing.shape, placement, big, big), fill=_PAINT[thing.colour])
    return picture.resize((side, side), Image.Resampling.LANCZOS)


def _any_size(rng: random.Random) -> tuple[int, int]:
    side = rng.randint(168, 352)
    if rng.random() < 0.75:
        return side, side
    other = round(side * rng.uniform(0.75, 1.0))
    return (side, other) if rng.random() < 0.6 else (other, side)


def _vary(rgb: RGB, rng: random.Random, *, hue: float, saturation: float, value: float) -> RGB:
    h, s, v = colorsys.rgb_to_hsv(rgb[0] / 255, rgb[1] / 255, rgb[2] / 255)
    h = (h + rng.uniform(-hue, hue)) % 1.0
    s = min(1.0, max(0.0, s * (1 + rng.uniform(-saturation, saturation))))
    v = min(1.0, max(0.0, v * (1 + rng.uniform(-value, value))))
    r, g, b = colorsys.hsv_to_rgb(h, s, v)
    return round(r * 255), round(g * 255), round(b * 255)


def _weather(picture: Image.Image, rng: random.Random) -> Image.Image:
    if rng.random() < 0.15:
        pixels = np.asarray(picture, dtype=np.int16)
        grain = np.random.default_rng(rng.getrandbits(32)).integers(-9, 10, pixels.shape[:2])
        noisy = np.clip(pixels + grain[:, :, None].astype(np.int16), 0, 255).astype(np.uint8)
        picture = Image.fromarray(noisy)
    if rng.random() < 0.12:
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=rng.randint(45, 92))
        picture = Image.open(buffer).convert("RGB")
    return picture


def _outline(
    shape: str, placement: Placement, width: int, height: int
) -> list[tuple[float, float]]:
    """The shape's corners in pixels."""
    scale = placement.radius * min(width, height)
    wide, tall = scale * math.sqrt(placement.stretch), scale / math.sqrt(placement.stretch)
    cos, sin = math.cos(placement.rotation), math.sin(placement.rotation)
    return [
        (
            placement.x * width + wide * (cos * x - sin * y),
            placement.y * height + tall * (sin * x + cos * y),
        )
        for x, y in _UNIT[shape]
    ]


def _circle() -> list[tuple[float, float]]:
    turns = [2 * math.pi * step / 48 for step in range(48)]
    return [(0.92 * math.cos(turn), 0.92 * math.sin(turn)) for turn in turns]


def _star() -> list[tuple[float, float]]:
    points = []
    for step in range(10):
        turn = math.pi * (step / 5 - 0.5)
        reach = 1.08 if step % 2 == 0 else 0.46
        points.append((reach * math.cos(turn), reach * math.sin(turn)))
    return points


def _heart() -> list[tuple[float, float]]:
    points = []
    for step in range(40):
        turn = 2 * math.pi * step / 40
        x = 16 * math.sin(turn) ** 3
        y = 13 * math.cos(turn) - 5 * math.cos(2 * turn) - 2 * math.cos(3 * turn)
        points.append((x / 16.5, -(y - math.cos(4 * turn) + 2.5) / 16.5))
    return points


def _cross() -> list[tuple[float, float]]:
    a, b = 0.32, 0.98
    return [
        (-a, -b), (a, -b), (a, -a), (b, -a), (b, a), (a, a),
        (a, b), (-a, b), (-a, a), (-b, a), (-b, -a), (-a, -a),
    ]  # fmt: skip


# Each shape around (0, 0), about one unit from centre to rim; y grows downwards.
_UNIT: Final[dict[str, list[tuple[float, float]]]] = {
    "circle": _circle(),
    "square": [(-0.84, -0.84), (0.84, -0.84), (0.84, 0.84), (-0.84, 0.84)],
    "triangle": [(0.0, -1.0), (0.98, 0.75), (-0.98, 0.75)],
    "star": _star(),
    "heart": _heart(),
    "cross": _cross(),
}
