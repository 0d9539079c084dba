"""What checkpoints say in older or shorter ways means the same as what they say in full."""

from __future__ import annotations

import json
import shutil
import warnings

import pytest
import torch
import transformers
from PIL import Image

from controller.protocol.chat import ChatMessage, ImagePart, ImageUrl, TextPart
from tests.checkpoint.tiny_models import FAMILIES
from worker.checkpoint import errors
from worker.checkpoint.load import load_checkpoint
from worker.checkpoint.pinpoints import read_pinpoints
from worker.checkpoint.spec import LoadSpec
from worker.checkpoint.tower import find_tower

PICTURE = Image.effect_noise((60, 40), 80).convert("RGB")
QUESTION = ChatMessage(
    role="user", content=[ImagePart(image_url=ImageUrl(url="data:,")), TextPart(text="What?")]
)

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")


def load(folder, **options):
    spec = LoadSpec(str(folder), device="cpu", **options)
    return load_checkpoint(spec, lambda _progress: None)


@pytest.fixture(scope="module", params=["llava", "llava_next"])
def native(request, tmp_path_factory):
    """A tiny checkpoint of Hugging Face's Llava or LlavaNext."""
    folder = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config, processor = FAMILIES[request.param].make()
        transformers.AutoModelForImageTextToText.from_config(config).save_pretrained(folder)
        processor.save_pretrained(folder)
    return folder


def without(folder, *keys):
    file = folder / "processor_config.json"
    settings = json.loads(file.read_text())
    assert {*keys} <= set(settings)
    file.write_text(json.dumps({key: settings[key] for key in settings if key not in keys}))


def before_4_46(folder):
    """The image processor has a file of its own, and the processor itself has none."""
    settings = json.loads((folder / "processor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps(settings["image_processor"]))
    (folder / "processor_config.json").unlink()


def before_4_49(folder):
    """The class token was counted without a setting."""
    without(folder, "num_additional_image_tokens")


@pytest.mark.parametrize("age", [before_4_46, before_4_49])
def test_a_processor_of_an_older_transformers_counts_an_images_tokens_all_the_same(
    native, tmp_path, age
):
    folder = tmp_path / "older"
    shutil.copytree(native, folder)
    age(folder)
    expected = load(native).prepare([QUESTION], [PICTURE])
    loaded = load(folder)
    found = loaded.prepare([QUESTION], [PICTURE])
    assert found.input_ids == expected.input_ids
    assert found.image_tokens == expected.image_tokens > 0
    with torch.inference_mode():  # which checks that features and places are as many
        assert loaded.model(**loaded.inputs(found)).logits.isfinite().all()


def test_a_template_without_a_place_for_images_is_refused_when_it_is_loaded(native, tmp_path):
    folder = tmp_path / "blind"
    shutil.copytree(native, folder)
    (folder / "chat_template.jinja").write_text("{% for m in messages %}{{ m.role }}{% endfor %}")
    with pytest.raises(errors.TemplateError, match=r"make no prompt of a first.*--chat-template"):
        load(folder)


def test_a_processor_of_an_unknown_name_says_that_it_prepares_no_images(native, tmp_path):
    folder = tmp_path / "unnamed"
    shutil.copytree(native, folder)
    file = folder / "processor_config.json"
    named = json.loads(file.read_text()) | {"processor_class": "NobodysProcessor"}
    file.write_text(json.dumps(named))
    with pytest.raises(errors.TokenizerError, match=r"name no class that prepares images"):
        load(folder)


@pytest.mark.parametrize(
    "written",
    [
        [[28, 56], [56, 28]],
        "[(28, 56), (56, 28)]",
        "[[28, 56], [56, 28]]",
    ],
)
def test_sizes_of_anyres_are_read_as_lists_and_as_strings(written):
    assert read_pinpoints({"image_grid_pinpoints": written}, 28) == ((28, 56), (56, 28))


def test_sizes_of_anyres_may_be_a_range_of_tiles():
    found = read_pinpoints({"image_grid_pinpoints": "(1x1),...,(2x3)"}, 10)
    assert found == ((10, 10), (10, 20), (10, 30), (20, 10), (20, 20), (20, 30))


@pytest.mark.parametrize("written", [None, "", "all", [], [[1]], [["1", "2"]], [[0, 28]], 7])
def test_what_are_no_sizes_of_anyres_is_refused(written):
    with pytest.raises(errors.FormatError, match=r"image_grid_pinpoints .* are no sizes"):
        read_pinpoints({"image_grid_pinpoints": written}, 28)


def test_a_tower_may_leave_out_what_is_transformers_default(tmp_path):
    tower = tmp_path / "siglip"
    tower.mkdir()
    said = {"model_type": "siglip", "vision_config": {"model_type": "siglip_vision_model"}}
    (tower / "config.json").write_text(json.dumps(said))
    config = find_tower("siglip", [tmp_path]).config
    assert (config["hidden_size"], config["image_size"], config["patch_size"]) == (768, 224, 16)
