"""What the original LLaVA answered, answered again: the same ids, the same log-probabilities."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest
import torch
from PIL import Image

from controller.protocol.chat import ChatMessage, ImagePart, ImageUrl, TextPart
from worker.checkpoint.load import LoadedCheckpoint, load_checkpoint
from worker.checkpoint.prompt import PreparedPrompt
from worker.checkpoint.spec import LoadSpec

ORACLE = Path(__file__).parent.parent / "data" / "oracle"
CASES = json.loads((ORACLE / "expected.json").read_text(encoding="utf-8"))
NAMES = [f"{case['checkpoint']}-{len(case['images'])}-images" for case in CASES]
NEW_TOKENS = 24


@cache
def checkpoint(name: str, base: str | None, template: str) -> LoadedCheckpoint:
    spec = LoadSpec(
        str(ORACLE / name),
        model_base=str(ORACLE / base) if base else None,
        dtype="float32",
        device="cpu",
        chat_template=template,
    )
    return load_checkpoint(spec, lambda _progress: None)


def images_of(case) -> list[Image.Image]:
    return [Image.open(ORACLE / f"{name}.png").convert("RGB") for name in case["images"]]


@torch.inference_mode()
def greedy(loaded: LoadedCheckpoint, prompt: PreparedPrompt) -> tuple[torch.Tensor, list[int]]:
    """The first step's log-probabilities, and the ids that follow."""
    out = loaded.model(**loaded.inputs(prompt), use_cache=True)
    first = out.logits[0, -1].log_softmax(-1)
    tokens = [int(first.argmax())]
    while len(tokens) < NEW_TOKENS and tokens[-1] not in loaded.eos_token_ids:
        out = loaded.model(
            input_ids=torch.tensor([tokens[-1:]]), past_key_values=out.past_key_values
        )
        tokens.append(int(out.logits[0, -1].argmax()))
    return first, tokens


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_the_original_programs_answers_come_back_token_by_token(case):
    loaded = checkpoint(case["checkpoint"], case["base"], case["template"])
    images = images_of(case)
    for turn in case["turns"]:
        prompt = loaded.prompting.prepare_text(turn["prompt"], images)
        first, tokens = greedy(loaded, prompt)
        for token, expected in turn["first_top5"]:
            assert first[token].item() == pytest.approx(expected, abs=1e-3)
        # The record of a multimodal answer starts with the <s> that generate() of that time put
        # before ids that it had not been given; a text-only answer of the multimodal class was cut
        # away with its prompt, and only its first step is on record.
        recorded = turn["token_ids"]
        if recorded:
            assert tokens == recorded[recorded[0] == 1 :]
            assert loaded.tokenizer.decode(tokens, skip_special_tokens=True) == turn["text"]


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_the_chat_templates_render_the_original_programs_prompts(case):
    loaded = checkpoint(case["checkpoint"], case["base"], case["template"])
    messages = []
    for turn in case["turns"]:
        # In these records "<image>" was typed as text. Typed text stays where it is.
        messages.append(ChatMessage(role="user", content=turn["user"]))
        assert loaded.prepare(messages).text == turn["prompt"]
        messages.append(ChatMessage(role="assistant", content=turn["text"]))


def test_the_first_questions_image_comes_before_its_text():
    loaded = checkpoint("llava-v1.5-tiny", None, "llava_v1")
    image = ImagePart(image_url=ImageUrl(url="data:,"))
    message = ChatMessage(role="user", content=[TextPart(text="What is this?"), image])
    prompt = loaded.prepare([message], [Image.new("RGB", (8, 8))])
    assert " USER: <image>\nWhat is this? ASSISTANT:" in prompt.text


def test_a_later_questions_image_stays_where_it_was_put():
    loaded = checkpoint("llava-v1.5-tiny", None, "llava_v1")
    image = ImagePart(image_url=ImageUrl(url="data:,"))
    messages = [
        ChatMessage(role="user", content="Hello"),
        ChatMessage(role="assistant", content="Hi"),
        ChatMessage(role="user", content=[TextPart(text="And this?"), image]),
    ]
    prompt = loaded.prepare(messages, [Image.new("RGB", (8, 8))])
    assert prompt.text.endswith("ASSISTANT: Hi</s>USER: And this?\n<image> ASSISTANT:")
    assert prompt.image_tokens == 16


def test_a_typed_image_marker_stays_text_beside_a_real_image():
    loaded = checkpoint("llava-v1.5-tiny", None, "llava_v1")
    image = ImagePart(image_url=ImageUrl(url="data:,"))
    message = ChatMessage(role="user", content=[TextPart(text="What does <image> mean?"), image])
    prompt = loaded.prepare([message], [Image.new("RGB", (8, 8))])
    assert prompt.input_ids.count(loaded.image_token_id) == 16
    assert "What does <image> mean?" in loaded.tokenizer.decode(
        [token for token in prompt.input_ids if token != loaded.image_token_id]
    )
    with torch.inference_mode():
        assert loaded.model(**loaded.inputs(prompt)).logits.isfinite().all()
