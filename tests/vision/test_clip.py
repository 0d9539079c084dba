"""The encoder's pixels are what the original processing makes of a picture, number by number."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from transformers import CLIPImageProcessorPil

from controller.protocol.chat import ImageProcessMode as Mode
from worker.vision.clip import ClipProcessor, pad_to_square

SIDE = 56


def noise(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(7).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("size", [(56, 56), (80, 45), (45, 80), (31, 200), (57, 56)])
def test_crop_is_clips_own_processing(size):
    image = noise(*size)
    ours = ClipProcessor(SIDE)
    theirs = CLIPImageProcessorPil(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}
    )
    expected = theirs(image, return_tensors="np")["pixel_values"][0]
    np.testing.assert_allclose(ours.pixels(ours.view(image, Mode.CROP)), expected, atol=1e-6)


def test_pad_puts_the_picture_in_the_middle_of_clips_grey():
    padded = pad_to_square(Image.new("RGB", (10, 4), (255, 0, 0)), ClipProcessor(SIDE).mean_colour)
    assert padded.size == (10, 10)
    assert padded.getpixel((0, 2)) == (122, 116, 104)
    assert padded.getpixel((0, 3)) == (255, 0, 0)


def test_pad_keeps_the_whole_picture_and_crop_its_middle():
    image = Image.new("RGB", (120, 40))
    image.paste((255, 255, 255), (0, 0, 30, 40))
    ours = ClipProcessor(SIDE)
    assert np.asarray(ours.view(image, Mode.PAD)).max() == 255
    assert np.asarray(ours.view(image, Mode.CROP)).max() == 0


def test_resize_ignores_the_aspect_ratio():
    view = ClipProcessor(SIDE).view(Image.new("RGB", (100, 10), (9, 9, 9)), Mode.RESIZE)
    assert view.size == (SIDE, SIDE)
    assert np.asarray(view).min() == 9


def test_siglip_style_sizes_bring_both_sides_to_size():
    config = {
        "size": {"height": SIDE, "width": SIDE},
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }
    ours = ClipProcessor.from_config(config, SIDE)
    pixels = ours.pixels(ours.fit(Image.new("RGB", (100, 10), (255, 255, 255))))
    assert pixels.shape == (3, SIDE, SIDE)
    assert pixels.min() == pixels.max() == 1.0
