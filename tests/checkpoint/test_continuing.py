"""A conversation that ends with an answer is continued: the prompt ends where the answer does."""

from __future__ import annotations

import pytest
from PIL import Image

from controller.protocol.chat import ChatMessage, ImagePart, ImageUrl, TextPart
from tests.checkpoint.tiny_models import save
from worker.checkpoint.load import load_checkpoint
from worker.checkpoint.spec import LoadSpec
from worker.checkpoint.templates import requested_template

# Of transformers' own making, when tiny models are saved.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")

PICTURE = Image.effect_noise((60, 40), 80).convert("RGB")
IMAGE = ImagePart(image_url=ImageUrl(url="data:,"))
QUESTION = ChatMessage(role="user", content=[TextPart(text="What is it?"), IMAGE])
BEGUN = "It is a red circ"


@pytest.fixture(scope="module")
def checkpoint(oracle):
    spec = LoadSpec(str(oracle / "llava-v1.5-tiny"), device="cpu")
    return load_checkpoint(spec, lambda _progress: None)


def _text(checkpoint, *messages: ChatMessage, template: str | None = None) -> str:
    return checkpoint.prepare(messages, [PICTURE], template=requested_template(template)).text


@pytest.mark.parametrize("template", [None, "llava_v0", "qwen_1_5", "llava_llama_2", "mpt"])
def test_the_prompt_ends_with_what_was_said_and_no_end_mark(checkpoint, template):
    fresh = _text(checkpoint, QUESTION, template=template)
    begun = _text(
        checkpoint, QUESTION, ChatMessage(role="assistant", content=BEGUN), template=template
    )
    assert begun.endswith(BEGUN)
    assert begun.removesuffix(BEGUN).rstrip() == fresh.rstrip()


def test_an_earlier_answer_is_not_the_one_that_goes_on(checkpoint):
    answer = ChatMessage(role="assistant", content=BEGUN)
    text = _text(checkpoint, QUESTION, answer, ChatMessage(role="user", content="Sure?"))
    assert text.endswith("ASSISTANT:")


@pytest.mark.parametrize("family", ["llava", "qwen2_vl", "gemma3", "idefics3"])
def test_a_processor_of_hugging_face_s_goes_on_too(family, tmp_path):
    save(family, tmp_path)
    loaded = load_checkpoint(LoadSpec(str(tmp_path), device="cpu"), lambda _progress: None)
    fresh = _text(loaded, QUESTION)
    begun = _text(loaded, QUESTION, ChatMessage(role="assistant", content=BEGUN))
    assert begun.endswith(BEGUN)
    assert begun.removesuffix(BEGUN).rstrip() == fresh.rstrip()
