"""A template that an operator or a request chooses takes the place of the checkpoint's own."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from controller.protocol.chat import ChatMessage, ImagePart, ImageProcessMode, ImageUrl, TextPart
from controller.protocol.errors import BadRequestError
from tests.checkpoint.tiny_models import save
from worker.checkpoint import errors
from worker.checkpoint.load import load_checkpoint
from worker.checkpoint.spec import LoadSpec
from worker.engine.protocol import GenerationRequest
from worker.engine.transformers_model import TransformersModel

# Of transformers' own making, when tiny models are saved.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")

PICTURE = Image.effect_noise((60, 40), 80).convert("RGB")
IMAGE = ImagePart(image_url=ImageUrl(url="data:,"))
QUESTION = ChatMessage(role="user", content=[TextPart(text="What is it?"), IMAGE])


def load(path, **options):
    return load_checkpoint(LoadSpec(str(path), device="cpu", **options), lambda _progress: None)


def asked(model, template: str | None, *messages: ChatMessage) -> GenerationRequest:
    return GenerationRequest(
        request_id="r",
        model=model.cards[0].name,
        messages=messages or (QUESTION,),
        images=(PICTURE,),
        chat_template=template,
    )


@pytest.fixture(scope="module")
def model(oracle):
    return TransformersModel(load(oracle / "llava-v1.5-tiny"))


def test_a_request_may_choose_a_template_by_its_name(model):
    own = model.prepare(asked(model, None)).prepared
    chosen = model.prepare(asked(model, "llava_v0")).prepared
    assert own.text.endswith("USER: <image>\nWhat is it? ASSISTANT:")
    assert own.stop_strings == ()
    assert chosen.text.endswith("###Human: <image>\nWhat is it?###Assistant:")
    assert chosen.stop_strings == ("###",)
    assert chosen.image_tokens == own.image_tokens


@pytest.mark.parametrize("name", ["vicuna_v9", "../../../etc/passwd", "/etc/hostname"])
def test_a_request_that_names_no_template_of_ours_is_told_the_names(model, name):
    with pytest.raises(BadRequestError, match=r"no chat template.*vicuna_v1") as caught:
        model.prepare(asked(model, name))
    assert caught.value.param == "chat_template"


def test_an_operators_template_decides_where_a_request_names_none(oracle):
    loaded = load(oracle / "vicuna-tiny", chat_template="v0")
    prompt = loaded.prepare([ChatMessage(role="user", content="Hello")])
    assert prompt.text.endswith("instability.\n###Human: Hello###Assistant:")
    assert prompt.stop_strings == ("###",)


def test_a_hugging_face_checkpoint_without_a_template_answers_with_one_of_ours(tmp_path):
    save("llava", tmp_path)
    own = load(tmp_path).prepare([QUESTION], [PICTURE])
    (tmp_path / "chat_template.jinja").unlink()
    loaded = load(tmp_path, chat_template="vicuna_v1")
    prompt = loaded.prepare([QUESTION], [PICTURE])
    assert prompt.text.endswith("USER: <image>\nWhat is it? ASSISTANT:")
    assert prompt.image_tokens == own.image_tokens
    assert torch.equal(prompt.model_inputs["pixel_values"], own.model_inputs["pixel_values"])
    with torch.inference_mode():
        assert loaded.model(**loaded.inputs(prompt)).logits.isfinite().all()


def test_a_placeholder_that_is_typed_stays_text_under_a_template_of_ours(tmp_path):
    save("llava", tmp_path)
    model = TransformersModel(load(tmp_path))
    typed = ChatMessage(role="user", content=[TextPart(text="What is <image>?"), IMAGE])
    asked_with, asked_without = asked(model, "vicuna_v1", typed), asked(model, "vicuna_v1")
    assert model.prepare(asked_with).image_tokens == model.prepare(asked_without).image_tokens


def test_a_file_whose_messages_are_text_alone_works_with_a_processor(tmp_path):
    save("llava", tmp_path / "model")
    file = tmp_path / "mine.jinja"
    file.write_text(
        '{%- set stop_strings = ["!!"] -%}'
        '{% for m in messages %}{{ m.role + "> " + m.content + "\\n" }}{% endfor %}'
    )
    prompt = load(tmp_path / "model", chat_template=str(file)).prepare([QUESTION], [PICTURE])
    assert prompt.text == "user> <image>\nWhat is it?\n"
    assert prompt.stop_strings == ("!!",)
    assert prompt.image_tokens > 0


@pytest.mark.parametrize("checkpoint", ["llava-v1.5-tiny", "vicuna-tiny"])
def test_a_file_for_messages_in_parts_is_refused_where_they_have_text_alone(
    oracle, tmp_path, checkpoint
):
    file = tmp_path / "parts.jinja"
    file.write_text(
        "{% for m in messages %}{% for part in m.content %}"
        "{% if part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %}{% endfor %}"
    )
    with pytest.raises(errors.TemplateError, match=r"parts\.jinja.*messages in parts.*vicuna_v1"):
        load(oracle / checkpoint, chat_template=str(file))


def test_anyres_is_a_mode_of_hugging_faces_llava_next_too(tmp_path):
    save("llava_next", tmp_path)
    loaded = load(tmp_path)
    prompts = [
        loaded.prepare([QUESTION], [PICTURE], mode)
        for mode in (ImageProcessMode.DEFAULT, ImageProcessMode.ANYRES)
    ]
    assert prompts[0].input_ids == prompts[1].input_ids
