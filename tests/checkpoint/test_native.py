"""Hugging Face's vision-language checkpoints load as they are, with their own processors."""

from __future__ import annotations

import importlib.util
import json
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


def test_a_checkpoint_without_its_processor_says_which_files_it_lacks(llava, tmp_path):
    folder = tmp_path / "bare"
    shutil.copytree(llava, folder)
    (folder / "processor_config.json").unlink()
    with pytest.raises(errors.TokenizerError, match=r"no processor.*preprocessor_config.json"):
        load(folder)


def test_a_tokenizer_with_more_tokens_than_embeddings_is_of_another_model(llava, tmp_path):
    folder = tmp_path / "small"
    shutil.copytree(llava, folder)
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["vocab_size"] = 259
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(errors.TokenizerError, match="has 260 tokens and the model 259 embeddings"):
        load(folder)


def test_a_tensor_that_is_missing_is_named_before_a_weight_is_read(llava, tmp_path, monkeypatch):
    folder = tmp_path / "gap"
    shutil.copytree(llava, folder)
    state = load_file(folder / "model.safetensors")
    state.pop(next(name for name in state if "layers.1.self_attn.q_proj" in name))
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    monkeypatch.setattr("worker.checkpoint.tensors.TensorStore.read", lambda *_args: 1 / 0)
    with pytest.raises(errors.IncompleteError, match=r"lacks 1 tensors.*layers.1.self_attn.q_proj"):
        load(folder)


@pytest.mark.skipif(importlib.util.find_spec("torchvision") is not None, reason="it is there")
def test_a_processor_that_cannot_do_without_torchvision_says_how_to_get_it(tmp_path):
    config, processor = FAMILIES["mistral3"].make()
    transformers.AutoModelForImageTextToText.from_config(config).save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    with pytest.raises(errors.TokenizerError, match=r"pip install torchvision torch==\d"):
        load(tmp_path)


def test_an_encoder_with_a_decoder_is_refused(llava, tmp_path):
    folder = tmp_path / "t5gemma2"
    shutil.copytree(llava, folder)
    transformers.T5Gemma2Config().save_pretrained(folder)
    with pytest.raises(errors.ArchitectureError, match=r"'t5gemma2', an encoder with a decoder"):
        load(folder)


@pytest.mark.parametrize("bits", [{"load_in_4bit": True}, {"load_in_8bit": True}])
def test_a_checkpoint_that_bitsandbytes_quantised_on_disk_loads_as_it_is(llava, tmp_path, bits):
    shutil.copytree(llava, tmp_path, dirs_exist_ok=True)
    settings = transformers.BitsAndBytesConfig(
        **bits,
        llm_int8_skip_modules=["lm_head", "model.vision_tower", "model.multi_modal_projector"],
    )
    saved = transformers.LlavaForConditionalGeneration.from_pretrained(
        llava, quantization_config=settings
    )
    saved.save_pretrained(tmp_path)
    loaded = load(tmp_path)
    inputs = loaded.inputs(loaded.prepare([question()], [PICTURE]))
    with torch.inference_mode():
        assert torch.equal(loaded.model(**inputs).logits, saved(**inputs).logits)


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


ADAPTED = ["llava", "qwen2_5_vl", "gemma3", "idefics3"]


@pytest.fixture(scope="module", params=ADAPTED)
def adapted(request, tmp_path_factory):
    """A base, an adapter over it that names it, and the model that PEFT made of the two."""
    root = tmp_path_factory.mktemp(f"{request.param}-lora")
    base, adapter = root / "base", root / "adapter"
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config, processor = FAMILIES[request.param].make()
        model = transformers.AutoModelForImageTextToText.from_config(config).eval()
        wake_up(model)
        model.save_pretrained(base)
        processor.save_pretrained(base)
        model.name_or_path = "base"
        # The decoder's layers and a part of the encoder's, as checkpoints are tuned.
        layers = r".*(language_model|text_model)\.layers.*(q_proj|v_proj|down_proj)|.*\.1\..*fc1"
        trained = get_peft_model(
            model, LoraConfig(r=4, target_modules=layers, init_lora_weights=False)
        ).eval()
        trained.save_pretrained(adapter)
    return base, adapter, trained


def test_an_adapter_finds_the_base_that_it_names_and_stays_unmerged(adapted):
    base, adapter, trained = adapted
    named = load(adapter)
    assert (named.card.format, named.card.base) == ("vision-language-lora", "base")
    given = load(adapter, base=base)
    inputs = named.inputs(named.prepare([question()], [PICTURE]))
    with torch.inference_mode():
        expected = trained(**inputs).logits
        assert torch.allclose(named.model(**inputs).logits, expected, atol=1e-5)
        assert torch.allclose(given.model(**inputs).logits, expected, atol=1e-5)
        named.adapters.use(None)
        plain = named.model(**inputs).logits
        with trained.disable_adapter():
            assert torch.equal(plain, trained(**inputs).logits)
    assert not torch.allclose(plain, expected, atol=1e-3)


@pytest.mark.parametrize("quantisation", [Quantisation.INT8, Quantisation.NF4])
def test_an_adapter_over_a_quantised_base_answers_as_generate_does(adapted, quantisation):
    base, adapter, _ = adapted
    loaded = load(adapter, base=base, quantisation=quantisation)
    kinds = {type(module).__name__ for module in loaded.model.modules()}
    assert kinds & {"Linear8bitLt", "Linear4bit"}
    prompt = loaded.prepare([question()], [PICTURE])
    inputs = loaded.inputs(prompt)
    expected = generated(loaded, prompt)
    assert answered(loaded, prompt) == expected
    with torch.inference_mode():
        adapted_logits = loaded.model(**inputs).logits
        loaded.adapters.use(None)
        assert not torch.allclose(adapted_logits, loaded.model(**inputs).logits, atol=1e-3)


def test_an_adapter_for_another_family_names_the_modules_that_its_base_lacks(llava, tmp_path):
    config, _ = FAMILIES["qwen2_5_vl"].make()
    model = transformers.AutoModelForImageTextToText.from_config(config)
    layers = LoraConfig(r=4, target_modules=r".*visual.*qkv")
    get_peft_model(model, layers).save_pretrained(tmp_path)
    with pytest.raises(errors.AdapterError, match=r"2 modules that its base lacks: \S*visual"):
        load(tmp_path, base=llava)
