"""Reads ``image_grid_pinpoints`` of an original LLaVA config, in each way that it is written.

Sources: LLaVA's ``llava/mm_utils.py`` (a list, or one as a string), and LLaVA-NeXT's (a range of
tiles, ``"(1x1),...,(6x6)"``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from worker.checkpoint.errors import FormatError

_TILES = re.compile(r"\((\d+)x(\d+)\)")
_PIXELS = re.compile(r"[(\[]\s*(\d+)\s*,\s*(\d+)\s*,?\s*[)\]]")


def read_pinpoints(config: Mapping[str, Any], tile: int) -> tuple[tuple[int, int], ...]:
    """The sizes that an image may be brought to, as (width, height) in pixels, in their order.

    Args:
        config: of the checkpoint.
        tile: the encoder's side, pixels.

    Raises:
        FormatError: they are not there, or written in another way.
    """
    written = config.get("image_grid_pinpoints")
    found: list[tuple[int, int]] = []
    if isinstance(written, str) and (tiles := _TILES.findall(written)):
        # From the first to the last, in each direction.
        (low_x, low_y), (high_x, high_y) = (map(int, tiles[0]), map(int, tiles[-1]))
        found = [
            (x * tile, y * tile)
            for x in range(low_x, high_x + 1)
            for y in range(low_y, high_y + 1)
        ]  # fmt: skip
    elif isinstance(written, str):
        found = [(int(width), int(height)) for width, height in _PIXELS.findall(written)]
    elif isinstance(written, list) and all(_is_size(pair) for pair in written):
        found = [(width, height) for width, height in written]
    if not found or not all(size > 0 for pair in found for size in pair):
        raise FormatError(
            f"image_grid_pinpoints {json.dumps(written)} are no sizes: an anyres checkpoint has a "
            "list of [width, height] in its config.json"
        )
    return tuple(found)


def _is_size(pair: object) -> bool:
    return (
        isinstance(pair, list)
        and len(pair) == 2
        and all(isinstance(side, int) and not isinstance(side, bool) for side in pair)
    )
