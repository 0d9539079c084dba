import random

import numpy as np
import pytest
from PIL import Image
from recipe.drawing import draw, draw_clean
from recipe.pixels import CLIP_MEAN, CLIP_STD, IMAGE_SIDE, pad_to_square, to_bytes, to_pixel_values
from recipe.world import Placement, Scene, Thing, draw_any_scene


def test_a_seed_draws_the_same_picture_again() -> None:
    scene = draw_any_scene(random.Random(1))
    one, two = draw(scene, random.Random(2)), draw(scene, random.Random(2))
    assert np.array_equal(np.asarray(one), np.asarray(two))


def test_a_thing_is_drawn_where_it_is_placed() -> None:
    scene = Scene("white", (Thing(8, "blue", "square"),))
    picture = draw_clean(scene, (Placement(0.8, 0.8, 0.1, 0.0, 1.0),), 100)
    assert picture.getpixel((80, 80)) == (36, 84, 222)
    assert picture.getpixel((20, 20)) == (252, 252, 252)


def test_a_wide_picture_is_padded_above_and_below_with_the_mean_colour() -> None:
    square = pad_to_square(Image.new("RGB", (40, 20), (255, 0, 0)))
    assert square.size == (40, 40)
    assert square.getpixel((0, 0)) == (122, 116, 104)
    assert square.getpixel((0, 20)) == (255, 0, 0)


@pytest.mark.parametrize("size", [(112, 112), (300, 300), (320, 200)])
def test_pictures_are_read_as_clips_own_processor_reads_them(size: tuple[int, int]) -> None:
    processing = pytest.importorskip("transformers").CLIPImageProcessor(
        size={"shortest_edge": IMAGE_SIDE},
        crop_size={"height": IMAGE_SIDE, "width": IMAGE_SIDE},
        image_mean=list(CLIP_MEAN),
        image_std=list(CLIP_STD),
    )
    picture = draw(draw_any_scene(random.Random(3)), random.Random(3), size=size)
    ours = to_pixel_values(to_bytes(picture)[None])
    theirs = processing(pad_to_square(picture), return_tensors="pt")["pixel_values"]
    assert ours.shape == theirs.shape
    assert float((ours - theirs).abs().max()) < 0.02  # one step of a byte is 0.015
