"""Tiles and their tokens agree with what transformers' LlavaNext makes of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers import LlavaNextProcessor, LlavaOnevisionProcessor
from transformers.image_processing_utils import select_best_resolution

from worker.vision import anyres

SIDE, PATCHES = 56, 4
# (height, width), in the order in which LLaVA lists them as (width, height)
PINPOINTS = [(112, 56), (56, 112), (112, 112), (56, 168), (168, 56)]
SIDES = st.integers(min_value=1, max_value=400)


@given(height=SIDES, width=SIDES)
def test_the_grid_is_the_one_that_the_model_chooses(height, width):
    chosen = select_best_resolution((height, width), PINPOINTS)
    assert anyres.best_grid((height, width), PINPOINTS) == tuple(chosen)


@given(height=SIDES, width=SIDES)
def test_the_number_of_tokens_is_the_processors(height, width):
    processor = LlavaNextProcessor.__new__(LlavaNextProcessor)
    grid_height, grid_width = anyres.best_grid((height, width), PINPOINTS)
    unpadded, newlines = processor._get_unpadded_features(
        height, width, PATCHES, PATCHES, grid_height // SIDE, grid_width // SIDE
    )
    counted = anyres.num_tokens((height, width), PINPOINTS, side=SIDE, patches=PATCHES)
    assert counted == PATCHES * PATCHES + unpadded + newlines


@given(height=SIDES, width=SIDES, max_tiles=st.integers(min_value=1, max_value=4))
def test_anyres_max_makes_as_many_tokens_as_llava_onevisions_processor(height, width, max_tiles):
    processor = LlavaOnevisionProcessor.__new__(LlavaOnevisionProcessor)
    processor.vision_aspect_ratio = f"anyres_max_{max_tiles}"
    grid_height, grid_width = anyres.best_grid((height, width), PINPOINTS)
    unpadded, newlines = processor._get_unpadded_features(
        height, width, PATCHES, PATCHES, grid_height // SIDE, grid_width // SIDE
    )
    counted = anyres.num_tokens(
        (height, width), PINPOINTS, side=SIDE, patches=PATCHES, max_tiles=max_tiles
    )
    assert counted == PATCHES * PATCHES + unpadded + newlines


def test_the_overview_comes_first_and_then_the_tiles_row_by_row():
    image = Image.new("RGB", (112, 112))
    colours = [(1, 1, 1), (2, 2, 2), (3, 3, 3), (4, 4, 4)]
    for index, colour in enumerate(colours):
        left, top = index % 2 * SIDE, index // 2 * SIDE
        image.paste(colour, (left, top, left + SIDE, top + SIDE))
    views = anyres.views(image, PINPOINTS, SIDE)
    assert [view.size for view in views] == [(SIDE, SIDE)] * 5
    assert [view.getpixel((20, 20)) for view in views[1:]] == colours


@pytest.mark.parametrize("size", [(300, 100), (100, 300), (100, 100)])
def test_a_picture_keeps_its_shape_within_the_grid(size):
    views = anyres.views(Image.new("RGB", size, (255, 255, 255)), PINPOINTS, SIDE)
    grid_height, grid_width = anyres.best_grid((size[1], size[0]), PINPOINTS)
    assert len(views) == 1 + grid_height * grid_width // SIDE**2
