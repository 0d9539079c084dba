"""The strings that LLaVA's own conversations make, for each of its templates."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from controller.protocol.chat import ChatMessage, ImagePart, ImageUrl, TextPart
from worker.checkpoint.prompt import IMAGE_MARKER, PLACEHOLDER, flatten, render
from worker.checkpoint.templates import read_template, template_names

HUMAN = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions."
)
USER = HUMAN.replace("human", "user")
# Without a space between its last sentences, as in the original.
TAGGED = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant is able "
    "to understand the visual content that the user provides, and assist the user with a variety "
    "of tasks using natural language.The visual content will be provided with the following "
    "format: <Image>visual content</Image>."
)
VISUAL = (
    "You are a helpful language and vision assistant. You are able to understand the visual "
    "content that the user provides, and assist the user with a variety of tasks using natural "
    "language."
)
MPT = (
    "A conversation between a user and an LLM-based AI assistant. The assistant gives helpful and "
    "honest answers."
)

# A picture with the first question, an answer, a second picture after the second question's text.
GOLDEN = {
    "vicuna_v1": f"{USER} USER: <image>\nQ1 ASSISTANT: A1</s>USER: Q2\n<image> ASSISTANT:",
    "llava_v1": f"{HUMAN} USER: <image>\nQ1 ASSISTANT: A1</s>USER: Q2\n<image> ASSISTANT:",
    "v1_mmtag": (
        f"{TAGGED} USER: <Image><image></Image> ASSISTANT: Received.</s>"
        "USER: Q1 ASSISTANT: A1</s>USER: Q2\n<image> ASSISTANT:"
    ),
    "llava_v0": f"{HUMAN}###Human: <image>\nQ1###Assistant: A1###Human: Q2\n<image>###Assistant:",
    "v0_mmtag": (
        f"{TAGGED}###Human: <Image><image></Image>###Assistant: Received.###"
        "Human: Q1###Assistant: A1###Human: Q2\n<image>###Assistant:"
    ),
    "mistral_instruct": "[INST] <image>\nQ1 [/INST] A1 </s>[INST] Q2\n<image> [/INST]",
    "llava_llama_2": (
        f"[INST] <<SYS>>\n{VISUAL}\n<</SYS>>\n\n<image>\nQ1 [/INST] A1 </s>"
        "<s>[INST] Q2\n<image> [/INST]"
    ),
    "chatml_direct": (
        "<|im_start|>system\nAnswer the questions.<|im_end|><|im_start|>user\n<image>\nQ1<|im_end|>"
        "<|im_start|>assistant\nA1<|im_end|><|im_start|>user\nQ2\n<image><|im_end|>"
        "<|im_start|>assistant\n"
    ),
    "mpt": (
        f"<|im_start|>system\n{MPT}<|im_end|><|im_start|>user\n<image>\nQ1<|im_end|>"
        "<|im_start|>assistant\nA1<|im_end|><|im_start|>user\nQ2\n<image><|im_end|>"
        "<|im_start|>assistant\n"
    ),
    "qwen_1_5": (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n<image>\nQ1<|im_end|>\n<|im_start|>assistant\nA1<|im_end|>\n"
        "<|im_start|>user\nQ2\n<image><|im_end|>\n<|im_start|>assistant\n"
    ),
    "plain": "<image>\nQ1\nA1\nQ2\n<image>\n",
}


@pytest.fixture(scope="module")
def tokenizer():
    """Any tokenizer: rendering needs its Jinja, not its vocabulary."""
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()))


def user(*parts: str) -> ChatMessage:
    image = ImagePart(image_url=ImageUrl(url="data:,"))
    content = [image if part == IMAGE_MARKER else TextPart(text=part) for part in parts]
    return ChatMessage(role="user", content=content)


def rendered(tokenizer, name, *messages):
    text = render(tokenizer, read_template(name), flatten(messages))
    return text.replace(PLACEHOLDER, IMAGE_MARKER)


@pytest.mark.parametrize("name", GOLDEN)
def test_a_conversation_with_two_images_is_the_originals_string(tokenizer, name):
    answer = ChatMessage(role="assistant", content="A1")
    second = user("Q2", IMAGE_MARKER)
    # Where the first question's picture is written makes no difference.
    for first in (user("Q1", IMAGE_MARKER), user(IMAGE_MARKER, "Q1")):
        assert rendered(tokenizer, name, first, answer, second) == GOLDEN[name]


def test_llama_2_has_its_own_long_system_message(tokenizer):
    text = rendered(tokenizer, "llama_2", user("Q1"))
    assert text.startswith("[INST] <<SYS>>\nYou are a helpful, respectful and honest assistant. ")
    assert text.endswith("please don't share false information.\n<</SYS>>\n\nQ1 [/INST]")
    assert "while being safe.  Your answers" in text


@pytest.mark.parametrize("name", sorted(set(template_names()) - {"plain"}))
def test_a_system_message_replaces_the_templates_own(tokenizer, name):
    system = ChatMessage(role="system", content="Be brief.")
    text = rendered(tokenizer, name, system, user("Q1"))
    assert "Be brief." in text
    assert "helpful" not in text
    assert "Answer the questions" not in text


def test_every_template_is_tested_and_lies_where_configs_points(tokenizer):
    assert set(template_names()) == {*GOLDEN, "llama_2"}
    pointer = Path(__file__).resolve().parents[2] / "configs" / "chat_templates"
    assert {file.stem for file in pointer.glob("*.jinja")} == set(template_names())
    for name in template_names():
        # Typed braces are text, not Jinja.
        assert "{{ 7 * 7 }}" in rendered(tokenizer, name, user("{{ 7 * 7 }}"))


def test_several_images_of_the_first_question_share_its_exchange(tokenizer):
    text = rendered(tokenizer, "v1_mmtag", user(IMAGE_MARKER, "Q1", IMAGE_MARKER))
    tags = "<Image><image></Image><Image><image></Image>"
    assert text == f"{TAGGED} USER: {tags} ASSISTANT: Received.</s>USER: Q1 ASSISTANT:"
