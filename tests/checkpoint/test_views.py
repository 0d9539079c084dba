"""What a preview shows is what the encoder gets: its own numbers, as pictures again."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch
from PIL import Image

from controller.protocol.chat import ImageProcessMode as Mode
from controller.protocol.errors import UnsupportedError
from tests.checkpoint.tiny_models import FAMILIES, save
from worker.checkpoint.load import load_checkpoint
from worker.checkpoint.spec import LoadSpec
from worker.vision.tiles import ImageView

# Of transformers' own making, when tiny models are saved, or a processor hands numpy a tensor.
pytestmark = pytest.mark.filterwarnings(
    "ignore::FutureWarning", "ignore::UserWarning", "ignore:__array__ impl:DeprecationWarning"
)

# One family for each shape in which processors hand pixels over.
SHAPES = ("llava", "llava_next", "llava_onevision", "qwen3_vl", "idefics3", "gemma3", "mistral3",
          "internvl", "mllama", "deepseek_vl")  # fmt: skip
# Families that see a square from the middle, and those that put the picture into something larger.
CROPPING = {"llava"}
PADDING = {"llava_next", "llava_onevision", "deepseek_vl", "mllama"}


def gradient(width: int, height: int) -> Image.Image:
    """Red grows to the right and green downwards, so that no two places look the same."""
    red, green = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([red, green, np.full_like(red, 128)], -1).astype(np.uint8))


def load(path):
    return load_checkpoint(LoadSpec(str(path), device="cpu"), lambda _progress: None)


def put_together(view: ImageView) -> Image.Image:
    """The picture that the tiles make."""
    assert view.grid is not None
    rows, columns = view.grid
    tiles = [tile for index, tile in enumerate(view.tiles) if index != view.overview_index]
    assert len(tiles) == rows * columns
    width, height = tiles[0].size
    whole = Image.new("RGB", (columns * width, rows * height))
    for index, tile in enumerate(tiles):
        whole.paste(tile, (index % columns * width, index // columns * height))
    return whole


def assert_alike(picture: Image.Image, original: Image.Image) -> None:
    expected = np.asarray(original.resize(picture.size), dtype=float)
    assert np.abs(np.asarray(picture, dtype=float) - expected).mean() < 8


@pytest.fixture(scope="module")
def square_llava(oracle):
    return load(oracle / "llava-v1.5-tiny").prompting


@pytest.fixture(scope="module")
def tiled_llava(oracle):
    return load(oracle / "llava-v1.6-tiny").prompting


def test_llavas_default_pads_with_grey(square_llava):
    view = square_llava.views(gradient(80, 40), Mode.DEFAULT)
    (tile,) = view.tiles
    assert (view.grid, view.overview_index) == ((1, 1), None)
    assert tile.width == tile.height
    assert tile.getpixel((3, 0)) == pytest.approx((122, 116, 104), abs=1)
    quarter = tile.height // 4
    assert_alike(tile.crop((0, quarter, tile.width, 3 * quarter)), gradient(80, 40))


def test_crop_shows_the_middle_and_resize_all_of_it(square_llava):
    image = gradient(120, 40)
    (cropped,) = square_llava.views(image, Mode.CROP).tiles
    assert_alike(cropped, image.crop((40, 0, 80, 40)))
    (resized,) = square_llava.views(image, Mode.RESIZE).tiles
    assert_alike(resized, image)


def test_the_pictures_are_the_encoders_numbers(square_llava):
    image = gradient(80, 40)
    prompt = square_llava.prepare_text("<image>", [image])
    (tile,) = square_llava.views(image, Mode.DEFAULT).tiles
    back = square_llava._processor.pixels(tile)
    assert torch.equal(torch.from_numpy(back), prompt.model_inputs["pixel_values"][0])


def test_anyres_shows_an_overview_and_the_tiles(tiled_llava):
    image = gradient(100, 200)
    view = tiled_llava.views(image, Mode.DEFAULT)
    prompt = tiled_llava.prepare_text("<image>", [image])
    assert view.image_tokens == prompt.image_tokens
    assert len(view.tiles) == prompt.model_inputs["pixel_values"].shape[1]
    assert view.overview_index == 0
    assert_alike(view.tiles[0], image)
    whole = put_together(view)
    assert whole.height >= whole.width
    # The picture keeps its shape, in the middle of black.
    scale = min(whole.width / 100, whole.height / 200)
    width, height = int(100 * scale), int(200 * scale)
    left, top = (whole.width - width) // 2, (whole.height - height) // 2
    assert_alike(whole.crop((left, top, left + width, top + height)), image)


def test_pad_changes_what_the_tiles_cover(tiled_llava):
    image = gradient(100, 200)
    padded = tiled_llava.views(image, Mode.PAD)
    assert padded.grid == tiled_llava.views(gradient(200, 200), Mode.DEFAULT).grid
    assert padded.tiles[0].getpixel((0, padded.tiles[0].height // 2)) == pytest.approx(
        (122, 116, 104), abs=1
    )


def test_a_language_model_shows_and_counts_nothing(oracle):
    prompting = load(oracle / "vicuna-tiny").prompting
    with pytest.raises(UnsupportedError, match="cannot see images"):
        prompting.views(gradient(8, 8), Mode.DEFAULT)
    with pytest.raises(UnsupportedError, match="cannot see images"):
        prompting.image_tokens((8, 8))


@pytest.mark.parametrize("size", [(1920, 1080), (40, 300), (336, 336), (7, 5)])
def test_an_images_tokens_follow_from_its_size(square_llava, tiled_llava, size):
    for prompting in (square_llava, tiled_llava):
        prompt = prompting.prepare_text("<image>", [gradient(*size)])
        assert prompting.image_tokens(size) == prompt.image_tokens


@pytest.fixture(scope="module", params=SHAPES)
def native(request, tmp_path_factory):
    tiny = FAMILIES[request.param]
    if tiny.needs is not None and importlib.util.find_spec(tiny.needs) is None:
        pytest.skip(f"this family's processor needs {tiny.needs}, which is not installed")
    folder = tmp_path_factory.mktemp(request.param)
    save(request.param, folder)
    return request.param, load(folder).prompting


@pytest.mark.parametrize("size", [(120, 60), (60, 120), (50, 50)])
def test_every_familys_pictures_show_the_whole_image(native, size):
    family, prompting = native
    image = gradient(*size)
    view = prompting.views(image, Mode.DEFAULT)
    assert view.image_tokens == prompting.prepare_text("<image>", [image]).image_tokens > 0
    if family in CROPPING:
        short = min(size)
        left, top = (size[0] - short) // 2, (size[1] - short) // 2
        image = image.crop((left, top, left + short, top + short))
    if view.overview_index is not None:
        assert_alike(view.tiles[view.overview_index], image)
    whole = put_together(view)
    if family not in PADDING:
        assert_alike(whole, image)
