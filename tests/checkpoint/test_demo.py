"""The demo's checkpoints are asked as they were trained: the same pixels, the same ids."""

from __future__ import annotations

import random
import subprocess
import sys
from itertools import chain
from pathlib import Path

import pytest
import torch

from controller.protocol.chat import ChatMessage, ImagePart, ImageUrl, TextPart
from controller.protocol.fleet import Quantisation
from worker.checkpoint.load import load_checkpoint
from worker.checkpoint.spec import LoadSpec

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "worker" / "demo"

pytestmark = pytest.mark.skipif(
    not (DEMO / "demo-llava").is_dir(), reason="the demo's checkpoints have not been made"
)


@pytest.fixture
def recipe(monkeypatch):
    """The recipe's modules; they are scripts, found by their folder."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    from recipe import dialogue, drawing, packing, pixels, prompt, world  # noqa: PLC0415

    return {
        module.__name__.rpartition(".")[2]: module
        for module in (dialogue, drawing, packing, pixels, prompt, world)
    }


def load(name, base=None, quantisation=Quantisation.NONE):
    spec = LoadSpec(
        str(DEMO / name), base and str(DEMO / base), quantisation=quantisation, device="cpu"
    )
    return load_checkpoint(spec, lambda _progress: None)


def conversation(turns):
    """Messages up to the last question; the picture comes with the first."""
    messages = []
    for index, turn in enumerate(turns):
        image = [ImagePart(image_url=ImageUrl(url="data:,"))] if index == 0 else []
        messages.append(ChatMessage(role="user", content=[*image, TextPart(text=turn.question)]))
        if index < len(turns) - 1:
            messages.append(ChatMessage(role="assistant", content=turn.answer))
    return messages


@pytest.mark.parametrize(
    ("name", "base", "speech"),
    [("demo-llava", None, "ENGLISH"), ("demo-llava-zh-lora", "demo-base", "ENGLISH_TO_CHINESE")],
)
def test_prompts_and_pixels_are_those_of_the_training(recipe, name, base, speech):
    loaded = load(name, base)
    rng = random.Random(11)
    for _ in range(5):
        scene = recipe["world"].draw_any_scene(rng)
        picture = recipe["drawing"].draw(scene, rng).convert("RGB")
        turns = recipe["dialogue"].converse(scene, rng, 3, recipe["dialogue"].Speech[speech])
        prompt = loaded.prepare(conversation(turns), [picture])
        assert prompt.text == recipe["prompt"].render(turns, picture_in=0)
        patches = recipe["pixels"].PATCHES
        assert prompt.image_tokens == patches
        # The trainer encodes each question and answer by itself.
        pieces = [f"{recipe['prompt'].SYSTEM} USER: "]
        for index, turn in enumerate(turns):
            pieces.append(f"{'USER: ' if index else chr(10)}{turn.question} ASSISTANT:")
            pieces.append(f" {turn.answer}</s>")
        encoded = [loaded.tokenizer(p, add_special_tokens=False).input_ids for p in pieces[:-1]]
        image = [loaded.image_token_id] * patches
        assert list(prompt.input_ids) == [1, *encoded[0], *image, *chain.from_iterable(encoded[1:])]
        trained = recipe["pixels"].to_pixel_values(recipe["pixels"].to_bytes(picture)[None].copy())
        torch.testing.assert_close(prompt.model_inputs["pixel_values"], trained, atol=0, rtol=0)


@pytest.mark.parametrize(
    ("name", "base", "quantisation", "kind"),
    [
        ("demo-llava", None, Quantisation.NONE, "llava"),
        ("demo-llava", None, Quantisation.INT8, "llava"),
        ("demo-llava", None, Quantisation.NF4, "llava"),
        ("demo-llava-zh-lora", "demo-base", Quantisation.NONE, "llava-lora"),
    ],
)
def test_all_four_load_and_compute(name, base, quantisation, kind):
    loaded = load(name, base, quantisation)
    assert loaded.card.format == kind
    assert loaded.card.base == base
    prompt = loaded.prepare([ChatMessage(role="user", content="What can you do?")])
    with torch.inference_mode():
        assert loaded.model(**loaded.inputs(prompt)).logits.isfinite().all()


def test_its_facts_are_known_without_loading_torch():
    code = (
        "import sys; from worker.checkpoint.facts import describe; "
        "from worker.checkpoint.spec import LoadSpec; "
        "card = describe(LoadSpec(sys.argv[1], sys.argv[2])).card; "
        "print(card.format, card.image_tokens, {'torch', 'transformers'} & set(sys.modules))"
    )
    paths = [str(DEMO / "demo-llava-zh-lora"), str(DEMO / "demo-base")]
    done = subprocess.run(
        [sys.executable, "-c", code, *paths], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["llava-lora", "64", "set()"]
