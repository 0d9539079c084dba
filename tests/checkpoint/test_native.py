"""Hugging Face's vision-language checkpoints load as they are, with their own processors."""

from __future__ import annotations

import importlib.util
import shutil
import warnings
from contextlib import closing
from itertools import islice

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from PIL import Image
from safetensors.torch import load_file, save_file

from controller.protocol.chat import ChatMessage, ImagePart, ImageProcessMode, ImageUrl, TextPart
from controller.protocol.errors import BadRequestError, UnsupportedError
from controller.protocol.fleet import Quantisation
from tests.checkpoint.tiny_models import FAMILIES
from worker.checkpoint import errors
from worker.checkpoint.load import load_checkpoint
from worker.checkpoint.spec import LoadSpec
from worker.engine.engine_prompt import EnginePrompt
from worker.engine.protocol import SamplingParams
from worker.engine.transformers_model import TransformersModel

# Of transformers' own making, when tiny models are saved, a model's code meets its own renames, or
# a processor hands a tensor to numpy.
pytestmark = pytest.mark.filterwarnings(
    "ignore::FutureWarning", "ignore::UserWarning", "ignore:__array__ impl:DeprecationWarning"
)

NEW_TOKENS = 12
GREEDY = SamplingParams(temperature=0.0)
PICTURE = Image.effect_noise((60, 40), 80).convert("RGB")


@pytest.fixture(scope="module", params=list(FAMILIES))
def family(request, tmp_path_factory):
    """A folder with a tiny checkpoint, the model that it was saved from, and its family."""
    tiny = FAMILIES[request.param]
    if tiny.needs is not None and importlib.util.find_spec(tiny.needs) is None:
        pytest.skip(f"this family's processor needs {tiny.needs}, which is not installed")
    folder = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config, processor = tiny.make()
        model = transformers.AutoModelForImageTextToText.from_config(config).eval()
        wake_up(model)
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
    return folder, model, tiny


@torch.no_grad()
def wake_up(model):
    """Gives gates and projections that start at zero a value, so that images reach the answer."""
    for parameter in model.parameters():
        if not parameter.any():
            parameter.normal_(std=0.3)


def load(folder, base=None, **options):
    spec = LoadSpec(str(folder), model_base=base and str(base), device="cpu", **options)
    return load_checkpoint(spec, lambda _progress: None)


def question(text="What is this?", images=1):
    image = ImagePart(image_url=ImageUrl(url="data:,"))
    return ChatMessage(role="user", content=[*[image] * images, TextPart(text=text)])


def generated(loaded, prompt):
    """The ids of transformers' own greedy answer."""
    # An answer that ends at once would compare nothing.
    loaded.model.generation_config.eos_token_id = None
    ids = loaded.model.generate(
        **loaded.inputs(prompt), max_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=258
    )[0, prompt.prompt_tokens :].tolist()
    assert len(ids) == NEW_TOKENS
    return ids


def test_it_is_the_model_that_was_saved(family):
    folder, original, _ = family
    loaded = load(folder)
    assert loaded.card.format == "vision-language"
    assert type(loaded.model) is type(original)
    prompt = loaded.prepare([question()], [PICTURE])
    assert prompt.image_tokens > 0
    assert prompt.text.startswith("user: ")
    inputs = loaded.inputs(prompt)
    with torch.inference_mode():
        assert torch.equal(loaded.model(**inputs).logits, original(**inputs).logits)


def answered(loaded, prompt):
    """What our own decode loop says."""
    model = TransformersModel(loaded)
    asked = EnginePrompt(prompt, model.serving(loaded.card.name))
    with closing(model.tokens(asked, GREEDY)) as tokens:
        return list(islice(tokens, NEW_TOKENS))


@pytest.mark.parametrize("quantisation", list(Quantisation))
def test_its_answer_about_an_image_is_that_of_generate(family, quantisation):
    folder, _, _ = family
    loaded = load(folder, quantisation=quantisation)
    prompt = loaded.prepare([question()], [PICTURE])
    expected = generated(loaded, prompt)
    assert answered(loaded, prompt) == expected
    # The image is seen: another one is answered otherwise.
    inputs = loaded.inputs(prompt)
    other = loaded.inputs(
        loaded.prepare([question()], [PICTURE.transpose(Image.Transpose.ROTATE_180)])
    )
    with torch.inference_mode():
        assert not torch.equal(
            loaded.model(**inputs).logits[0, -1], loaded.model(**other).logits[0, -1]
        )


@pytest.mark.parametrize("size", [(20, 20), (90, 8)])
def test_its_answer_is_that_of_generate_whatever_the_images_shape(family, size):
    folder, _, _ = family
    loaded = load(folder)
    images = [Image.effect_noise(size, 80).convert("RGB"), PICTURE]
    for count in (1, 2):
        prompt = loaded.prepare([question(images=count)], images[:count])
        expected = generated(loaded, prompt)
        assert answered(loaded, prompt) == expected


@pytest.mark.parametrize("quantisation", [Quantisation.INT8, Quantisation.NF4])
def test_it_loads_quantised_and_the_encoder_stays_as_it_was(family, quantisation):
    folder, original, _ = family
    loaded = load(folder, quantisation=quantisation)
    quantised = {
        name
        for name, module in loaded.model.named_modules()
        if type(module).__name__ in {"Linear8bitLt", "Linear4bit"}
    }
    assert quantised
    assert all(".layers." in name and "vis" not in name for name in quantised), quantised
    inputs = loaded.inputs(loaded.prepare([question()], [PICTURE]))
    with torch.inference_mode():
        ours, theirs = loaded.model(**inputs).logits[0, -1], original(**inputs).logits[0, -1]
    assert torch.cosine_similarity(ours, theirs, dim=0) > 0.8


def test_a_typed_placeholder_is_text(family):
    folder, _, tiny = family
    loaded = load(folder)
    plain = loaded.prepare([question()], [PICTURE])
    typed = loaded.prepare([question(f"What is {tiny.placeholder}?")], [PICTURE])
    assert typed.image_tokens == plain.image_tokens
    alone = ChatMessage(role="user", content=tiny.placeholder)
    if not tiny.takes_text_alone:
        with pytest.raises(BadRequestError, match="refuses a conversation without images"):
            loaded.prepare([alone])
        return
    assert loaded.prepare([alone]).image_tokens == 0


def test_a_rendered_prompt_takes_an_image_at_its_marker(family):
    folder, _, _ = family
    loaded = load(folder)
    rendered = loaded.prepare([question()], [PICTURE])
    prompt = loaded.prompting.prepare_text("user: <image>What is this? assistant:", [PICTURE])
    assert prompt.input_ids == rendered.input_ids
    with pytest.raises(BadRequestError, match="has 0 <image> markers and 1 images"):
        loaded.prompting.prepare_text("user: What is this?", [PICTURE])


@pytest.fixture(scope="module")
def llava(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llava")
    config, processor = FAMILIES["llava"].make()
    torch.manual_seed(0)
    transformers.AutoModelForImageTextToText.from_config(config).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def test_modes_shape_the_image_and_anyres_is_refused(llava):
    loaded = load(llava)
    pixels = [
        loaded.prepare([question()], [PICTURE], mode).model_inputs["pixel_values"]
        for mode in (ImageProcessMode.CROP, ImageProcessMode.PAD, ImageProcessMode.RESIZE)
    ]
    assert not torch.equal(pixels[0], pixels[1])
    assert not torch.equal(pixels[0], pixels[2])
    with pytest.raises(UnsupportedError, match=r"anyres is a mode of LLaVA 1\.6"):
        loaded.prepare([question()], [PICTURE], ImageProcessMode.ANYRES)


def test_a_checkpoint_without_a_chat_template_asks_for_one(llava, tmp_path):
    folder = tmp_path / "plain"
    shutil.copytree(llava, folder)
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(errors.TemplateError, match="choose one with --chat-template"):
        load(folder)


@pytest.mark.parametrize("prefix", ["model.language_model.layers", "language_model.model.layers"])
def test_an_adapter_over_it_is_kept_apart_whatever_names_it_was_trained_with(
    llava, tmp_path, prefix
):
    base = load(llava)
    inputs = base.inputs(base.prepare([question()], [PICTURE]))
    with torch.inference_mode():
        plain = base.model(**inputs).logits
    config = LoraConfig(
        r=4, target_modules=r"model\.language_model\..*q_proj", init_lora_weights=False
    )
    base.model.name_or_path = str(llava)
    trained = get_peft_model(base.model, config)
    trained.save_pretrained(tmp_path)
    with torch.inference_mode():
        expected = trained(**inputs).logits
    file = tmp_path / "adapter_model.safetensors"
    state = load_file(file)
    renamed = {k.replace("model.language_model.layers", prefix, 1): v for k, v in state.items()}
    save_file(renamed, file)
    adapted = load(tmp_path, base=llava)
    assert adapted.card.format == "vision-language-lora"
    with torch.inference_mode():
        assert torch.allclose(adapted.model(**inputs).logits, expected, atol=1e-5)
    assert not torch.allclose(plain, expected, atol=1e-3)
