"""LLaVA 1.6's "anyres": an overview of the image, and tiles of it in higher resolution.

Source of the rules: LLaVA's ``mm_utils.py`` (``select_best_resolution``, ``process_anyres_image``)
and, for the number of tokens, ``pack_image_features`` of transformers' LlavaNext and of its
LlavaOnevision.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image

Size = tuple[int, int]  # (height, width), pixels

# By how much a grid's sides may be beyond those of ``anyres_max_N`` before it is made smaller.
_TOLERATED = 1.1


def best_grid(size: Size, pinpoints: Sequence[Size]) -> Size:
    """The grid that keeps most of an image's pixels, and wastes least; the first of equals."""
    height, width = size
    best, best_effective, least_wasted = pinpoints[0], -1, math.inf
    for grid_height, grid_width in pinpoints:
        scale = min(grid_width / width, grid_height / height)
        effective = min(int(width * scale) * int(height * scale), width * height)
        wasted = grid_width * grid_height - effective
        if effective > best_effective or (effective == best_effective and wasted < least_wasted):
            best, best_effective, least_wasted = (grid_height, grid_width), effective, wasted
    return best


def views(image: Image.Image, pinpoints: Sequence[Size], side: int) -> list[Image.Image]:
    """The overview and then the tiles of an RGB image, row by row, each ``side`` pixels square."""
    grid_height, grid_width = best_grid((image.height, image.width), pinpoints)
    canvas = _letterbox(image, grid_width, grid_height)
    tiles = [
        canvas.crop((left, top, left + side, top + side))
        for top in range(0, grid_height, side)
        for left in range(0, grid_width, side)
    ]
    return [image.resize((side, side)), *tiles]


def _letterbox(image: Image.Image, width: int, height: int) -> Image.Image:
    scale_width, scale_height = width / image.width, height / image.height
    if scale_width < scale_height:
        size = (width, min(math.ceil(image.height * scale_width), height))
    else:
        size = (min(math.ceil(image.width * scale_height), width), height)
    canvas = Image.new("RGB", (width, height), (0, 0, 0))
    canvas.paste(image.resize(size), ((width - size[0]) // 2, (height - size[1]) // 2))
    return canvas


def num_tokens(
    size: Size,
    pinpoints: Sequence[Size],
    *,
    side: int,
    patches: int,
    max_tiles: int | None = None,
) -> int:
    """Tokens of one image: the overview, the tiles without their padding, a newline for each row.

    Args:
        size: of the image.
        pinpoints: the grids.
        side: of a tile, pixels.
        patches: of a tile, a side.
        max_tiles: of ``anyres_max_N``; more than a little more than their patches are made fewer.
    """
    height, width = size
    grid_height, grid_width = best_grid(size, pinpoints)
    rows, columns = grid_height // side * patches, grid_width // side * patches
    if width / height > columns / rows:
        # transformers rounds to 7 places before it cuts, so that 23.9999999 is 24.
        used = int(round(height * (columns / width), 7))
        rows -= (rows - used) // 2 * 2
    else:
        used = int(round(width * (rows / height), 7))
        columns -= (columns - used) // 2 * 2
    if max_tiles is not None:
        ratio = math.sqrt(rows * columns / (max_tiles * patches**2))
        if ratio > _TOLERATED:
            rows, columns = int(rows // ratio), int(columns // ratio)
    return patches * patches + rows * (columns + 1)
