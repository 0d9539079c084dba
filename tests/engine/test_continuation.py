"""Prompts that are continued as they are: nothing is lost between prompt and answer."""

from dataclasses import replace

import pytest

from controller.protocol.chat import ChatMessage
from controller.protocol.errors import BadRequestError
from tests.engine.test_transformers_model import loaded, request
from worker.engine.detokenizer import REPLACEMENT, Detokenizer
from worker.engine.protocol import SamplingParams, TextDelta
from worker.engine.queued import CONTEXT_TOKENS
from worker.engine.sequential import SequentialEngine
from worker.engine.transformers_model import TransformersModel


def model():
    return TransformersModel(loaded("llava-v1.5-tiny"))


def asked(prompt, **sampling):
    return replace(request("", **sampling), messages=(), prompt=prompt)


def ids_of(text):
    return tuple(loaded("llava-v1.5-tiny").tokenizer(text, add_special_tokens=False).input_ids)


@pytest.mark.parametrize(
    "text", ["The sea is wide.", "图中有 一个红色的圆形", "one  two\n three", "x 👩‍👩‍👧 y"]
)
def test_an_answer_goes_on_from_its_prompt_wherever_that_ends(text):
    decode = model().serving("tiny").decode
    ids = ids_of(text)
    for end in range(1, len(ids)):
        before = decode(ids[:end])
        if before.endswith(REPLACEMENT):
            continue
        detokenizer = Detokenizer(decode, context=ids[max(0, end - CONTEXT_TOKENS) : end])
        after = "".join(detokenizer.push(each) for each in ids[end:]) + detokenizer.flush()
        assert before + after == decode(ids)


def test_a_context_that_ends_within_a_character_is_none():
    decode = model().serving("tiny").decode
    first, *rest = ids_of("👩")[-4:]
    detokenizer = Detokenizer(decode, context=[first])
    assert [detokenizer.push(each) for each in rest][:1] == [""]


def test_text_and_its_token_ids_are_the_same_prompt():
    made = model()
    prepared = made.prepare(asked("The sea is")).prepared
    assert prepared.text == "The sea is"
    assert prepared.input_ids[1:] == ids_of("The sea is")
    again = made.prepare(asked(prepared.input_ids))
    assert again.input_ids == prepared.input_ids
    assert again.image_tokens == 0


@pytest.mark.parametrize(
    ("prompt", "reason"), [((), "empty"), ((5, 3_000_000), "no token 3000000")]
)
def test_a_prompt_that_cannot_be_continued_is_refused(prompt, reason):
    with pytest.raises(BadRequestError, match=reason) as caught:
        model().prepare(asked(prompt))
    assert caught.value.param == "prompt"


def test_an_image_has_no_place_among_token_ids():
    checkpoint = loaded("llava-v1.5-tiny")
    made = TransformersModel(checkpoint)
    placeholder = checkpoint.image_token_id
    samplers = made.serving("tiny").samplers
    samplers._vocab_size = max(samplers._vocab_size, placeholder + 1)
    with pytest.raises(BadRequestError, match="/v1/chat/completions"):
        made.prepare(asked((5, placeholder)))


@pytest.mark.anyio
async def test_the_leading_space_of_a_continuation_is_kept():
    decode = model().serving("tiny").decode
    space = next(i for i in range(3_000) if decode([5, i]).endswith(" the"))
    engine = SequentialEngine(model(), max_waiting=1)
    bias = SamplingParams(temperature=0.0, max_tokens=2, logit_bias=((space, 100.0),))
    texts = []
    begun = request("Hello")
    begun = replace(begun, messages=(*begun.messages, ChatMessage(role="assistant", content="In")))
    for each in (asked("The sea is"), request("Hello"), begun):
        events = [e async for e in engine.generate(replace(each, sampling=bias))]
        texts.append("".join(e.text for e in events if isinstance(e, TextDelta)))
    await engine.aclose()
    assert texts == [" the the", "the the", " the the"]
