"""How original checkpoints want their images cut, by their config; and their prompts with it."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image

from worker.checkpoint import errors, llava
from worker.checkpoint.load import load_checkpoint
from worker.checkpoint.spec import LoadSpec


@pytest.fixture
def load(copy, edit):
    """Loads a copy of a tiny checkpoint whose config is changed."""
    copy("clip-tiny-patch14")

    def load_one(name, to=None, **config):
        folder = copy(name, to)
        edit(folder / "config.json", **config)
        return load_checkpoint(
            LoadSpec(str(folder), device="cpu", dtype="float32"), lambda _progress: None
        )

    return load_one


def test_anyres_max_with_room_for_all_tiles_answers_as_anyres_does(oracle, load):
    cases = json.loads((oracle / "expected.json").read_text())
    (turn,) = next(c for c in cases if c["checkpoint"] == "llava-v1.6-tiny")["turns"]
    loaded = load("llava-v1.6-tiny", image_aspect_ratio="anyres_max_9")
    assert type(loaded.model).__name__ == "LlavaOnevisionForConditionalGeneration"
    with Image.open(oracle / "tall.png") as image:
        prompt = loaded.prompting.prepare_text(turn["prompt"], [image.convert("RGB")])
    with torch.inference_mode():
        first = loaded.model(**loaded.inputs(prompt)).logits[0, -1].log_softmax(-1)
    for token, expected in turn["first_top5"]:
        assert first[token].item() == pytest.approx(expected, abs=1e-3)


def test_anyres_max_makes_the_features_of_many_tiles_fewer(load):
    image = Image.effect_noise((200, 200), 80).convert("RGB")
    counts = []
    for ratio in ("anyres_max_1", "anyres_max_2", "anyres"):
        loaded = load("llava-v1.6-tiny", ratio, image_aspect_ratio=ratio)
        prompt = loaded.prompting.prepare_text("<image> What?", [image])
        counts.append(prompt.image_tokens)
        with torch.inference_mode():
            assert loaded.model(**loaded.inputs(prompt)).logits.isfinite().all()
    assert counts == sorted(set(counts))


def test_towers_of_several_scales_are_refused_by_their_name(load):
    with pytest.raises(errors.ArchitectureError, match=r"s2_scales '336,672,1008'.*without S2"):
        load("llava-v1.5-tiny", s2=True, s2_scales="336,672,1008")


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ({"model_type": "llava_llama", "vocab_size": 32000}, "vicuna_v1"),
        ({"model_type": "llava_llama", "vocab_size": 128256}, "llava_llama_3"),
        ({"model_type": "llava_mistral", "vocab_size": 32000}, "mistral_instruct"),
        ({"model_type": "llava_qwen", "vocab_size": 151646}, "qwen_1_5"),
    ],
)
def test_the_language_model_decides_the_template(config, name):
    assert llava.template_name(config) == name
