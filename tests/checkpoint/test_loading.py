"""Checkpoints load by what is on disk, each part from where it lies, and say how far they are."""

from __future__ import annotations

import json
import shutil
from collections import Counter

import bitsandbytes
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import (
    GenerationConfig,
    LlavaForConditionalGeneration,
    LlavaNextForConditionalGeneration,
)

from controller.protocol.chat import ChatMessage, ImagePart, ImageProcessMode, ImageUrl, TextPart
from controller.protocol.errors import BadRequestError, UnsupportedError
from controller.protocol.fleet import Quantisation
from worker.checkpoint.facts import describe
from worker.checkpoint.load import load_checkpoint
from worker.checkpoint.spec import LoadSpec

PROMPT = "USER: <image>\nWhat is this? ASSISTANT:"


def load(path, base=None, *, on_progress=lambda _progress: None, **options):
    spec = LoadSpec(str(path), model_base=base and str(base), device="cpu", **options)
    return load_checkpoint(spec, on_progress)


@pytest.fixture(scope="module")
def wide(oracle):
    return Image.open(oracle / "wide.png").convert("RGB")


@torch.inference_mode()
def logits(loaded, *images, prompt=PROMPT):
    """Of the prompt's last position: ``(vocab_size,)``."""
    prepared = loaded.prompting.prepare_text(prompt, images)
    return loaded.model(**loaded.inputs(prepared)).logits[0, -1]


def question(*parts):
    """A user's message; an image part where an image stands."""
    image = ImagePart(image_url=ImageUrl(url="data:,"))
    content = [TextPart(text=part) if isinstance(part, str) else image for part in parts]
    return ChatMessage(role="user", content=content)


# --- what it is


def test_a_folders_name_says_nothing(copy, wide, oracle):
    copy("clip-tiny-patch14")
    renamed = copy("llava-v1.5-tiny", "some-mpt-lora-mistral")
    loaded = load(renamed)
    assert loaded.card.format == "llava"
    assert torch.equal(logits(loaded, wide), logits(load(oracle / "llava-v1.5-tiny"), wide))


@pytest.mark.parametrize("model_type", ["llava", "llava_llama"])
def test_the_models_are_transformers_own(oracle, copy, edit, model_type):
    copy("clip-tiny-patch14")
    folder = copy("llava-v1.5-tiny")
    edit(folder / "config.json", model_type=model_type)
    assert type(load(folder).model) is LlavaForConditionalGeneration
    assert type(load(oracle / "llava-v1.6-tiny").model) is LlavaNextForConditionalGeneration


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/models/llava-v1.5-7b", "llava-v1.5-7b"),
        ("/models/llava-v1.5-7b/", "llava-v1.5-7b"),
        ("liuhaotian/llava-v1.5-7b", "liuhaotian/llava-v1.5-7b".rpartition("/")[2]),
        ("runs/mine/checkpoint-500", "mine_checkpoint-500"),
        ("checkpoint-500", "checkpoint-500"),
        ("C:\\models\\llava", "llava"),
        (".", "."),
    ],
)
def test_the_default_name_is_llavas(path, name):
    assert LoadSpec(path).served_name == name


def test_a_given_name_wins(oracle):
    assert describe(LoadSpec(str(oracle / "vicuna-tiny"), model_name="mine")).card.name == "mine"


def test_the_facts_are_known_without_loading(oracle):
    spec = LoadSpec(str(oracle / "llava-v1.5-tiny-lora"), model_base=str(oracle / "vicuna-tiny"))
    facts = describe(spec)
    assert facts.card.format == "llava-lora"
    assert facts.card.base == "vicuna-tiny"
    assert facts.card.adapter == "llava-v1.5-tiny-lora"
    assert facts.card.context_length == 2048
    assert facts.language_model == "llama"
    assert facts.vision_tower == "clip_vision_model"
    assert facts.card.image_tokens == 16
    loaded = load(spec.model_path, spec.model_base)
    assert facts.card.parameters == sum(p.numel() for p in loaded.model.parameters())


# --- where its parts are


@pytest.mark.parametrize("place", ["inside", "beside", "beside, the name has a path"])
def test_the_tower_is_found(copy, edit, oracle, wide, place):
    folder = copy("llava-v1.5-tiny")
    target = folder if place == "inside" else folder.parent
    shutil.copytree(oracle / "clip-tiny-patch14", target / "clip-tiny-patch14")
    if "path" in place:
        edit(folder / "config.json", mm_vision_tower="/gone/away/clip-tiny-patch14")
    assert torch.equal(logits(load(folder), wide), logits(load(oracle / "llava-v1.5-tiny"), wide))


def test_a_tower_that_was_trained_with_the_rest_is_the_checkpoints_own(copy, edit, oracle):
    copy("clip-tiny-patch14")
    folder = copy("llava-v1.6-tiny")
    state = torch.load(folder / "pytorch_model.bin", weights_only=True)
    name = "vision_model.embeddings.patch_embedding.weight"
    own = state[f"model.vision_tower.vision_tower.{name}"].float()
    for is_trained in (True, False):
        edit(folder / "config.json", unfreeze_mm_vision_tower=is_trained)
        loaded = load(folder).model.model.vision_tower.embeddings.patch_embedding.weight
        assert torch.equal(loaded, own) is is_trained


def test_the_base_may_lie_beside_an_adapter_that_names_it(oracle):
    assert load(oracle / "llava-v1.5-tiny-lora").card.base == "vicuna-tiny"


def test_safetensors_and_pickles_hold_the_same(copy, oracle, wide):
    copy("clip-tiny-patch14")
    folder = copy("llava-v1.5-tiny")
    state = torch.load(folder / "pytorch_model.bin", weights_only=True)
    save_file(state, folder / "model.safetensors")
    # Safetensors are preferred, so that the pickle is not even looked at.
    (folder / "pytorch_model.bin").write_bytes(b"not read")
    assert torch.equal(logits(load(folder), wide), logits(load(oracle / "llava-v1.5-tiny"), wide))


def test_pickles_from_before_the_zip_format_load_too(copy, oracle, wide):
    copy("clip-tiny-patch14")
    folder = copy("llava-v1.5-tiny")
    state = torch.load(folder / "pytorch_model.bin", weights_only=True)
    # A transposed tensor does not lie in one piece either.
    name = "model.layers.0.self_attn.q_proj.weight"
    state[name] = state[name].T.contiguous().T
    expected = logits(load(oracle / "llava-v1.5-tiny"), wide)
    for is_zip in (True, False):
        torch.save(state, folder / "pytorch_model.bin", _use_new_zipfile_serialization=is_zip)
        assert torch.equal(logits(load(folder), wide), expected)


# --- adapters


@pytest.mark.parametrize("quantisation", list(Quantisation))
def test_an_adapter_is_kept_apart_over_any_base(oracle, wide, quantisation):
    loaded = load(oracle / "llava-v1.5-tiny-lora", quantisation=quantisation)
    # Before a first forward: transformers hooks itself into the tower to keep its hidden states.
    adapted = {name for name, module in loaded.model.named_modules() if module._forward_hooks}
    assert len(adapted) == 21
    assert not [name for name in adapted if "vision_tower" in name]
    plain = logits(loaded, wide)
    loaded.adapters.use(None)
    assert not torch.allclose(plain, logits(loaded, wide), atol=1e-2)
    loaded.use()
    assert torch.equal(plain, logits(loaded, wide))


def test_a_merged_adapter_answers_as_the_unmerged_one(oracle, wide):
    unmerged = load(oracle / "llava-v1.5-tiny-lora")
    merged = load(oracle / "llava-v1.5-tiny-lora", merge_lora=True)
    assert type(merged.model) is LlavaForConditionalGeneration
    torch.testing.assert_close(logits(merged, wide), logits(unmerged, wide), atol=1e-4, rtol=0)


# --- how it is held


@pytest.mark.parametrize(
    ("quantisation", "layer"),
    [
        (Quantisation.INT8, bitsandbytes.nn.Linear8bitLt),
        (Quantisation.NF4, bitsandbytes.nn.Linear4bit),
    ],
)
def test_quantisation_covers_the_language_models_linear_layers_alone(
    oracle, wide, quantisation, layer
):
    loaded = load(oracle / "llava-v1.5-tiny", quantisation=quantisation)
    kinds = Counter(
        ("language_model" in name, type(module) is layer)
        for name, module in loaded.model.named_modules()
        if isinstance(module, torch.nn.Linear)
    )
    assert kinds == {(True, True): 21, (False, False): 21}
    full = logits(load(oracle / "llava-v1.5-tiny"), wide)
    assert torch.cosine_similarity(logits(loaded, wide), full, dim=0) > 0.95
    assert loaded.card.quantisation is quantisation


@pytest.mark.parametrize(
    ("asked", "held"),
    [("auto", torch.float32), ("bfloat16", torch.bfloat16), ("float16", torch.float16)],
)
def test_half_precision_files_are_computed_in_float32_on_a_cpu_unless_asked(oracle, asked, held):
    loaded = load(oracle / "llava-v1.5-tiny", dtype=asked)
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {held}
    assert loaded.dtype is held
    assert loaded.card.dtype == str(held).removeprefix("torch.")


def test_progress_names_each_part_and_counts_every_byte(oracle):
    seen = []
    loaded = load(oracle / "llava-v1.5-tiny", on_progress=seen.append)
    assert [seen[0].phase, seen[-1].phase] == ["reading config", "ready"]
    assert {"language model", "projector", "vision tower"} <= {progress.phase for progress in seen}
    fractions = [progress.fraction for progress in seen]
    assert fractions == sorted(fractions)
    assert seen[-1].bytes_done == seen[-1].bytes_total == loaded.card.weight_bytes


# --- other projectors


@pytest.mark.parametrize(("kind", "depth"), [("linear", 1), ("mlp3x_gelu", 3)])
def test_projectors_of_other_depths_load_and_compute(copy, edit, wide, kind, depth):
    copy("clip-tiny-patch14")
    folder = copy("llava-v1.5-tiny")
    edit(folder / "config.json", mm_projector_type=kind)
    state = torch.load(folder / "pytorch_model.bin", weights_only=True)
    state = {name: tensor for name, tensor in state.items() if "mm_projector" not in name}
    torch.manual_seed(1)
    layers = [torch.nn.Linear(64 if index == 0 else 128, 128) for index in range(depth)]
    for index, layer in enumerate(layers):
        place = "mm_projector." if kind == "linear" else f"mm_projector.{2 * index}."
        state |= {f"model.{place}{name}": tensor for name, tensor in layer.state_dict().items()}
    torch.save(state, folder / "pytorch_model.bin")
    loaded = load(folder)
    assert isinstance(loaded.model, LlavaForConditionalGeneration)
    hidden = features = torch.randn(3, 64)
    for index, layer in enumerate(layers):
        hidden = layer(hidden if index == 0 else torch.nn.functional.gelu(hidden))
    with torch.inference_mode():
        torch.testing.assert_close(loaded.model.model.multi_modal_projector(features), hidden)
        assert logits(loaded, wide).isfinite().all()


# --- how it is asked


def test_start_and_end_tokens_go_around_an_image_where_the_config_says_so(copy, edit, wide):
    copy("clip-tiny-patch14")
    folder = copy("llava-v1.5-tiny")
    edit(folder / "config.json", mm_use_im_start_end=True, vocab_size=3002)
    tokens = json.loads((folder / "tokenizer_config.json").read_text())["added_tokens_decoder"]
    for number, name in ((3000, "<im_start>"), (3001, "<im_end>")):
        tokens[str(number)] = tokens["1"] | {"content": name}
    edit(folder / "tokenizer_config.json", added_tokens_decoder=tokens)
    state = torch.load(folder / "pytorch_model.bin", weights_only=True)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        state[name] = torch.nn.functional.pad(state[name], (0, 0, 0, 2))
    torch.save(state, folder / "pytorch_model.bin")
    loaded = load(folder)
    prompt = loaded.prompting.prepare_text(PROMPT, [wide])
    first = prompt.input_ids.index(loaded.image_token_id)
    assert prompt.input_ids[first - 1] == 3000
    assert prompt.input_ids[first + 16] == 3001
    assert prompt.text == PROMPT


def test_two_images_in_one_question_both_come_first(oracle, wide):
    loaded = load(oracle / "llava-v1.6-tiny")
    tall = Image.open(oracle / "tall.png").convert("RGB")
    prompt = loaded.prepare([question("Compare them.", wide, tall)], [wide, tall])
    assert "USER: <image>\n<image>\nCompare them. ASSISTANT:" in prompt.text
    assert prompt.model_inputs["image_sizes"].tolist() == [
        [wide.height, wide.width],
        [tall.height, tall.width],
    ]
    with torch.inference_mode():
        assert loaded.model(**loaded.inputs(prompt)).logits.isfinite().all()


def test_an_image_that_is_not_the_checkpoints_default_mode_gives_other_pixels(oracle, wide):
    loaded = load(oracle / "llava-v1.5-tiny")
    message = question("What?", wide)
    pixels = {
        mode: loaded.prepare([message], [wide], mode).model_inputs["pixel_values"]
        for mode in ImageProcessMode
        if mode is not ImageProcessMode.ANYRES
    }
    assert torch.equal(pixels[ImageProcessMode.DEFAULT], pixels[ImageProcessMode.PAD])
    for mode in (ImageProcessMode.CROP, ImageProcessMode.RESIZE):
        assert not torch.equal(pixels[ImageProcessMode.DEFAULT], pixels[mode])


def test_anyres_is_refused_where_the_checkpoint_has_none(oracle, wide):
    loaded = load(oracle / "llava-v1.5-tiny")
    with pytest.raises(UnsupportedError, match="not trained with anyres"):
        loaded.prepare([question("What?", wide)], [wide], ImageProcessMode.ANYRES)


def test_images_and_image_parts_must_agree(oracle, wide):
    loaded = load(oracle / "llava-v1.5-tiny")
    with pytest.raises(BadRequestError, match="has 1 image parts and 0 images"):
        loaded.prepare([question("What?", wide)], [])
    with pytest.raises(BadRequestError, match="has 0 <image> markers and 1 images"):
        loaded.prompting.prepare_text("What?", [wide])


def test_a_language_model_refuses_images(oracle, wide):
    loaded = load(oracle / "vicuna-tiny")
    assert not loaded.prompting.takes_images
    with pytest.raises(UnsupportedError, match="reads text only"):
        loaded.prepare([question("What?", wide)], [wide])


def test_a_typed_image_marker_without_an_image_is_text(oracle):
    loaded = load(oracle / "llava-v1.5-tiny")
    prompt = loaded.prepare([question("<image> \ufdd0 <image>")])
    assert prompt.image_tokens == 0
    assert max(prompt.input_ids) < 3000
    with torch.inference_mode():
        assert loaded.model(**loaded.inputs(prompt)).logits.shape[-1] == 3000


def test_a_system_message_takes_the_templates_place(oracle):
    loaded = load(oracle / "vicuna-tiny")
    system = ChatMessage(role="system", content="Be brief.")
    text = loaded.prepare([system, question("Hello")]).text
    assert text == "Be brief. USER: Hello ASSISTANT:"


def test_a_checkpoints_own_template_is_preferred_and_a_flag_wins_over_it(copy):
    folder = copy("vicuna-tiny")
    (folder / "chat_template.jinja").write_text("{{ bos_token }}own: {{ messages[0].content }}")
    loaded = load(folder)
    own = loaded.prepare([question("Hello")])
    assert own.text == "<s>own: Hello"
    assert own.input_ids.count(loaded.tokenizer.bos_token_id) == 1
    chosen = load(folder, chat_template="llava_v1").prepare([question("Hello")])
    assert chosen.text.startswith("A chat between a curious human")


def test_end_tokens_and_sampling_defaults_come_from_the_checkpoint(copy, edit):
    folder = copy("vicuna-tiny")
    edit(folder / "generation_config.json", eos_token_id=[2, 7], temperature=0.2, do_sample=True)
    loaded = load(folder)
    assert loaded.eos_token_ids == {2, 7}
    assert loaded.generation_defaults.temperature == 0.2
    edit(folder / "generation_config.json", do_sample=None)
    assert load(folder).generation_defaults.temperature is None


@pytest.mark.parametrize(
    "said",
    [
        '{"do_sample": true}',
        '{"do_sample": true, "temperature": null, "top_k": null, "top_p": null}',
    ],
)
def test_a_checkpoint_that_samples_without_saying_how_samples_as_transformers_does(copy, said):
    folder = copy("vicuna-tiny")
    (folder / "generation_config.json").write_text(said)
    defaults = load(folder).generation_defaults
    theirs = GenerationConfig.from_pretrained(folder)
    theirs.update(**GenerationConfig._get_default_generation_params(), defaults_only=True)
    assert (defaults.temperature, defaults.top_k) == (theirs.temperature, theirs.top_k) == (1.0, 50)
    assert (defaults.top_p or 1.0) == theirs.top_p
