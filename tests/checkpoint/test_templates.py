"""The strings that LLaVA's own conversations make, for each of its templates."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from controller.protocol.chat import ChatMessage, ImagePart, ImageUrl, TextPart
from controller.protocol.errors import BadRequestError
from worker.checkpoint import errors
from worker.checkpoint.conversation import render_conversation, stop_token_ids
from worker.checkpoint.prompt import IMAGE_MARKER, PLACEHOLDER
from worker.checkpoint.templates import (
    named_template,
    parse_template,
    read_template,
    requested_template,
    template_names,
)

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

SIMPLE = "Answer the questions about the visual content that the user provides."

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
    "llava_llama_3": (
        f"<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n{VISUAL}<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\n<image>\nQ1<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nA1<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nQ2\n<image><|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    ),
    "llava_llama_2_simple": (
        f"[INST] <<SYS>>\n{SIMPLE}\n<</SYS>>\n\n<image>\nQ1 [/INST] A1 </s>"
        "<s>[INST] Q2\n<image> [/INST]"
    ),
    "llava_llama_2_mmtag": (
        f"[INST] <<SYS>>\n{SIMPLE}The visual content will be provided with the following format: "
        "<Image>visual content</Image>.\n<</SYS>>\n\n<Image><image></Image> [/INST] Received. </s>"
        "<s>[INST] Q1 [/INST] A1 </s><s>[INST] Q2\n<image> [/INST]"
    ),
    "gemma_instruct": (
        "<start_of_turn>user\n<image>\nQ1<end_of_turn>\n<start_of_turn>model\nA1<end_of_turn>\n"
        "<start_of_turn>user\nQ2\n<image><end_of_turn>\n<start_of_turn>model\n"
    ),
    "mistral_orca": (
        "<|im_start|>system\nYou are MistralOrca, a large language model trained by Alignment Lab "
        "AI. Write out your reasoning step-by-step to be sure you get the right answers!<|im_end|>"
        "<|im_start|>user\n<image>\nQ1<|im_end|><|im_start|>assistant\nA1<|im_end|>"
        "<|im_start|>user\nQ2\n<image><|im_end|><|im_start|>assistant\n"
    ),
    "mistral_zephyr": (
        "<|system|>\nYou are a helpful AI assistant.</s><|user|>\n<image>\nQ1</s>"
        "<|assistant|>\nA1</s><|user|>\nQ2\n<image></s><|assistant|>\n"
    ),
}

# What LLaVA's clients send as `stop`: the separator of conversations that have one alone.
STOPS = {
    **dict.fromkeys(["v0", "llava_v0", "v0_mmtag"], ("###",)),
    **dict.fromkeys(["mpt", "chatml_direct", "mistral_orca", "qwen_1_5"], ("<|im_end|>",)),
    "mistral_zephyr": ("</s>",),
    "llava_llama_3": ("<|eot_id|>",),
    "gemma_instruct": ("<end_of_turn>",),
}


@pytest.fixture(scope="module")
def tokenizer():
    """Any tokenizer: rendering needs its Jinja, not its vocabulary."""
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()))


IMAGE = ImagePart(image_url=ImageUrl(url="data:,"))


def user(*parts: str) -> ChatMessage:
    content = [IMAGE if part == IMAGE_MARKER else TextPart(text=part) for part in parts]
    return ChatMessage(role="user", content=content)


ANSWER = ChatMessage(role="assistant", content="A1")


def rendered(tokenizer, name, *messages):
    parts = [part for message in messages for part in message.content or [] if part == IMAGE]
    text = render_conversation(tokenizer, read_template(name), messages, parts)
    return text.replace(PLACEHOLDER, IMAGE_MARKER)


@pytest.mark.parametrize("name", GOLDEN)
def test_a_conversation_with_two_images_is_the_originals_string(tokenizer, name):
    second = user("Q2", IMAGE_MARKER)
    # Where the first question's picture is written makes no difference.
    for first in (user("Q1", IMAGE_MARKER), user(IMAGE_MARKER, "Q1")):
        assert rendered(tokenizer, name, first, ANSWER, second) == GOLDEN[name]


def test_llama_2_has_its_own_long_system_message(tokenizer):
    text = rendered(tokenizer, "llama_2", user("Q1"))
    assert text.startswith("[INST] <<SYS>>\nYou are a helpful, respectful and honest assistant. ")
    assert text.endswith("please don't share false information.\n<</SYS>>\n\nQ1 [/INST]")
    assert "while being safe.  Your answers" in text


def test_v0_begins_with_its_example_and_leaves_pictures_where_they_are(tokenizer):
    text = rendered(tokenizer, "v0", user("Q1", IMAGE_MARKER), ANSWER, user(IMAGE_MARKER, "Q2"))
    example, _, conversation = text.partition("instability.\n###")
    assert example.startswith(
        f"{HUMAN}###Human: What are the key differences between renewable and non-renewable energy "
        "sources?###Assistant: Renewable energy sources are those that can be replenished naturally"
        " in a relatively short amount of time, such as solar, wind, hydro, geothermal, and biomass"
    )
    assert [line[:3] for line in example.split("\n")[1:]] == [f"{n}. " for n in range(1, 7)]
    assert conversation == ("Human: Q1\n<image>###Assistant: A1###Human: <image>\nQ2###Assistant:")


def test_an_image_alone_is_a_question(tokenizer):
    text = rendered(tokenizer, "vicuna_v1", user(IMAGE_MARKER))
    assert text == f"{USER} USER: <image>\n ASSISTANT:"


@pytest.mark.parametrize(
    "name", ["vicuna_v1", "chatml_direct", "llava_llama_3", "mistral_instruct"]
)
def test_several_images_of_a_question_have_a_line_each(tokenizer, name):
    text = rendered(tokenizer, name, user(IMAGE_MARKER, "Q1", IMAGE_MARKER), ANSWER,
                    user("Compare", IMAGE_MARKER, IMAGE_MARKER, "please"))  # fmt: skip
    assert "<image>\n<image>\nQ1" in text
    assert "Compare\n<image>\n<image>\nplease" in text


@pytest.mark.parametrize("name", sorted(set(template_names()) - {"plain"}))
def test_a_system_message_replaces_the_templates_own(tokenizer, name):
    system = ChatMessage(role="system", content="Be brief.")
    text = rendered(tokenizer, name, system, user("Q1"))
    assert "Be brief." in text
    assert "helpful" not in text
    assert "Answer the questions" not in text
    assert "MistralOrca" not in text


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("vicuna_v1", "Be brief. USER: <image>\nQ1 ASSISTANT:"),
        ("llava_v0", "Be brief.###Human: <image>\nQ1###Assistant:"),
        (
            "v0_mmtag",
            (
                "Be brief.###Human: <Image><image></Image>###Assistant: Received.###"
                "Human: Q1###Assistant:"
            ),
        ),
        ("llava_llama_2", "[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\n<image>\nQ1 [/INST]"),
        ("mistral_instruct", "[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\n<image>\nQ1 [/INST]"),
        (
            "mpt",
            (
                "<|im_start|>system\nBe brief.<|im_end|><|im_start|>user\n<image>\nQ1<|im_end|>"
                "<|im_start|>assistant\n"
            ),
        ),
        (
            "qwen_1_5",
            (
                "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n<image>\nQ1<|im_end|>\n"
                "<|im_start|>assistant\n"
            ),
        ),
        (
            "llava_llama_3",
            (
                "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
                "<|start_header_id|>user<|end_header_id|>\n\n<image>\nQ1<|eot_id|>"
                "<|start_header_id|>assistant<|end_header_id|>\n\n"
            ),
        ),
    ],
)
def test_a_system_message_stands_where_the_originals_did(tokenizer, name, expected):
    system = ChatMessage(role="developer", content="Be brief.")
    assert rendered(tokenizer, name, system, user("Q1", IMAGE_MARKER)) == expected


@pytest.mark.parametrize("name", template_names())
def test_each_template_ends_answers_where_the_original_did(name):
    assert read_template(name).stop_strings == STOPS.get(name, ())


def test_a_stop_string_that_is_one_special_token_ends_answers_as_a_token(tokenizer):
    marked = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()))
    marked.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    template = read_template("chatml_direct")
    end = marked.convert_tokens_to_ids("<|im_end|>")
    assert stop_token_ids(marked, template) == {end}
    assert stop_token_ids(marked, template, num_embeddings=end) == frozenset()
    assert stop_token_ids(tokenizer, template) == frozenset()


@pytest.mark.parametrize(
    ("alias", "name"),
    [("default", "v0"), ("v1", "vicuna_v1"), ("mistral_direct", "chatml_direct"),
     ("llava_v1_mmtag", "v1_mmtag")],
)  # fmt: skip
def test_llavas_second_names_are_known(alias, name):
    assert read_template(alias) == named_template(name)


def test_a_request_names_a_template_and_never_a_file(tmp_path):
    assert requested_template(None) is None
    assert requested_template("plain") == read_template("plain")
    file = tmp_path / "mine.jinja"
    file.write_text("mine")
    for name in (str(file), "../../mine", "vicuna_v9"):
        with pytest.raises(BadRequestError, match=r"no chat template .*; there are chatml_direct"):
            requested_template(name)
    assert read_template(str(file)).source == "mine"


def test_a_file_may_say_what_ends_its_answers_and_where_images_go():
    template = parse_template(
        '{%- set stop_strings = ["\\nUser:"] -%}{%- set images_first = false -%}'
        "{% generation %}x{% endgeneration %}",
        origin="mine",
    )
    assert template.stop_strings == ("\nUser:",)
    assert not template.images_first


@pytest.mark.parametrize("said", ['"###"', "[1]", '[""]', "messages"])
def test_nonsense_about_stop_strings_is_refused(said):
    with pytest.raises(errors.TemplateError, match=r"mine.*stop_strings"):
        parse_template("{%- set stop_strings = " + said + " -%}", origin="mine")


def test_every_template_is_tested_and_lies_where_configs_points(tokenizer):
    assert set(template_names()) == {*GOLDEN, "llama_2", "v0"}
    pointer = Path(__file__).resolve().parents[2] / "configs" / "chat_templates"
    assert {file.stem for file in pointer.glob("*.jinja")} == set(template_names())
    for name in template_names():
        # Typed braces are text, not Jinja.
        assert "{{ 7 * 7 }}" in rendered(tokenizer, name, user("{{ 7 * 7 }}"))


def test_several_images_of_the_first_question_share_its_exchange(tokenizer):
    text = rendered(tokenizer, "v1_mmtag", user(IMAGE_MARKER, "Q1", IMAGE_MARKER))
    tags = "<Image><image></Image><Image><image></Image>"
    assert text == f"{TAGGED} USER: {tags} ASSISTANT: Received.</s>USER: Q1 ASSISTANT:"
