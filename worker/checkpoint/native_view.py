"""What the image processors of transformers' families make of an image, as pictures again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from controller.protocol.errors import UnsupportedError
from worker.checkpoint.prompt import PreparedPrompt
from worker.vision import anyres
from worker.vision.tiles import ImageView, Normalisation, PatchLayout, Pixels


def native_view(
    image_processor: Any,  # noqa: ANN401 - transformers is untyped
    image: Image.Image,
    prepared: PreparedPrompt,
) -> ImageView:
    """The view of one image.

    Args:
        image_processor: a transformers image processor.
        image: RGB.
        prepared: a prompt of this image alone.

    Raises:
        UnsupportedError: the processor's pixels are of a shape that is not known here.
    """
    pixels = prepared.model_inputs["pixel_values"].numpy()
    if "image_grid_thw" in prepared.model_inputs:
        grid = prepared.model_inputs["image_grid_thw"][0].tolist()
        pixels = _from_patches(image_processor, pixels, grid)
    while pixels.ndim > 4:  # (prompts, images, tiles, 3, height, width), or without the first
        pixels = pixels[0]
    used = prepared.model_inputs.get("aspect_ratio_mask")  # Mllama's: which tiles are filled
    if used is not None:
        pixels = pixels[used.flatten().bool().numpy()]
    if pixels.ndim == 3:
        pixels = pixels[None]
    if pixels.ndim != 4 or pixels.shape[1] != 3:
        raise UnsupportedError(
            f"this model's processor makes numbers of the shape {pixels.shape}, which cannot be "
            "shown as pictures",
            param="model",
        )
    normalisation = _normalisation(image_processor)
    tiles = tuple(normalisation.picture(tile) for tile in pixels)
    pinpoints = getattr(image_processor, "image_grid_pinpoints", None)
    if pinpoints and len(tiles) > 1:
        height, width = anyres.best_grid(
            (image.height, image.width), [(int(h), int(w)) for h, w in pinpoints]
        )
        side = pixels.shape[-1]
        return ImageView(
            tiles, prepared.image_tokens, (height // side, width // side), overview_index=0
        )
    return ImageView(
        tiles,
        prepared.image_tokens,
        *_grid(image_processor, tiles, image, has_overview=used is None),
    )


def _grid(
    image_processor: Any,  # noqa: ANN401
    tiles: Sequence[Image.Image],
    image: Image.Image,
    *,
    has_overview: bool,
) -> tuple[tuple[int, int] | None, int | None]:
    """Rows and columns of the tiles, and which of them is the overview: the last, where several.

    Idefics3's processor tells its rows and columns. InternVL's and Mllama's take, of the grids of
    as many tiles, the one that is nearest to the image's own shape.
    """
    if len(tiles) == 1:
        return (1, 1), None
    count = len(tiles) - has_overview
    last = count if has_overview else None
    ask = getattr(image_processor, "get_number_of_image_patches", None)
    told = ask(image.height, image.width, {}) if ask else None
    if isinstance(told, tuple):
        _, rows, columns = told
        return ((rows, columns) if rows * columns == count else None), last
    shape = image.width / image.height
    grids = [(rows, count // rows) for rows in range(1, count + 1) if count % rows == 0]
    return min(grids, key=lambda grid: abs(np.log(grid[1] / grid[0] / shape))), last


def _from_patches(
    image_processor: Any,  # noqa: ANN401
    patches: Pixels,
    grid: Sequence[int],
) -> Pixels:
    _, rows, columns = (int(count) for count in grid)
    layout = PatchLayout(
        side=int(image_processor.patch_size),
        merge=int(image_processor.merge_size),
        frames=int(image_processor.temporal_patch_size),
    )
    return layout.pixels(patches, rows, columns)


def _normalisation(image_processor: Any) -> Normalisation:  # noqa: ANN401
    """How the processor makes numbers of pixels, as far as it does."""
    scale, mean, std = 1.0, [0.0] * 3, [1.0] * 3
    if getattr(image_processor, "do_rescale", True):
        scale = float(image_processor.rescale_factor)
    if getattr(image_processor, "do_normalize", True):
        mean, std = list(image_processor.image_mean), list(image_processor.image_std)
    return Normalisation(mean, std, scale)
