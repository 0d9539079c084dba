"""Answers are held to a schema whatever the model would like to say, with any tokenizer."""

import json
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.protocol.chat import FinishReason
from controller.protocol.errors import BadRequestError, UnsupportedError
from tests.checkpoint.tiny_models import tokenizer as byte_tokenizer
from tests.engine.test_transformers_model import loaded, request
from worker.engine.batched import BatchedEngine
from worker.engine.protocol import Finished, SamplingParams, TextDelta
from worker.engine.sampler import SamplingDefaults
from worker.engine.sampler_factory import SamplerFactory
from worker.engine.sampling_batch import SamplingBatch
from worker.engine.sequential import SequentialEngine
from worker.engine.slot_model import SlotModel
from worker.engine.transformers_model import TransformersModel
from worker.engine.vocabulary import REMEMBERED_SCHEMAS, Vocabulary

SCHEMA = {
    "type": "object",
    "properties": {
        "colour": {"enum": ["red", "grün", "蓝"]},
        "sides": {"type": "integer", "minimum": 0, "maximum": 99},
        "small": {"type": "boolean"},
    },
    "required": ["sides", "colour"],
    "additionalProperties": False,
}
ANY_OBJECT = '{"type": "object"}'


@cache
def tokenizer(kind):
    if kind == "bytes":
        return byte_tokenizer("<image>")
    return loaded("llava-v1.5-tiny").tokenizer


@cache
def factory(kind, vocab_size=None):
    made = tokenizer(kind)
    ends = frozenset({made.eos_token_id})
    return SamplerFactory(
        SamplingDefaults(),
        vocabulary=Vocabulary(made, ends),
        vocab_size=vocab_size or len(made),
        end_token_ids=ends,
    )


def check_answer(text):
    answer = json.loads(text)
    assert list(answer)[:2] == ["colour", "sides"]
    assert answer.keys() <= SCHEMA["properties"].keys()
    assert answer["colour"] in SCHEMA["properties"]["colour"]["enum"]
    assert type(answer["sides"]) is int
    assert 0 <= answer["sides"] <= 99
    assert type(answer.get("small", False)) is bool


@settings(max_examples=12, deadline=None)
@given(st.sampled_from(["bytes", "sentencepiece"]), st.integers(0, 10_000), st.integers(0, 200))
def test_a_model_of_pure_chance_keeps_to_the_schema(kind, seed, min_tokens):
    """Beside a row that is held to nothing, and with embeddings that have no token."""
    made = tokenizer(kind)
    makes = factory(kind, len(made) + 37)
    asked = SamplingParams(
        temperature=1.0, seed=seed, json_schema=json.dumps(SCHEMA), min_tokens=min_tokens
    )
    free = makes.sampler(SamplingParams(temperature=1.0, seed=seed), ())
    held, batch, tokens = makes.sampler(asked, ()), SamplingBatch(), []
    chance = torch.Generator().manual_seed(seed)
    while not tokens or tokens[-1] != made.eos_token_id:
        logits = torch.randn(2, len(made) + 37, generator=chance)
        _, token = batch.sample([free, held], logits)
        assert token.error is None
        tokens.append(int(token))
        assert len(tokens) < 500
    check_answer(made.decode(tokens, skip_special_tokens=True))


@pytest.mark.parametrize("kind", ["bytes", "sentencepiece"])
def test_a_model_that_likes_blanks_best_still_comes_to_the_end_of_its_json(kind):
    made = tokenizer(kind)
    makes = factory(kind, len(made))
    held = makes.sampler(SamplingParams(temperature=0.0, json_schema=json.dumps(SCHEMA)), ())
    blanks = [not made.decode([each]).strip(" \n\t\r") for each in range(len(made))]
    # Then whatever ends a text or a number soonest.
    closing = [any(mark in made.decode([each]) for mark in '",:}') for each in range(len(made))]
    logits = 2.0 * torch.tensor([blanks]) + torch.tensor([closing])
    batch, tokens = SamplingBatch(), []
    while not tokens or tokens[-1] != made.eos_token_id:
        (token,) = batch.sample([held], logits)
        tokens.append(int(token))
        assert len(tokens) < 250
    check_answer(made.decode(tokens, skip_special_tokens=True))


@pytest.mark.parametrize("indent", [None, 1, 2, 4, "\t"])
def test_json_may_be_written_on_one_line_or_indented(indent):
    made = tokenizer("bytes")
    text = json.dumps({"colour": "red", "sides": 4, "small": True}, indent=indent)
    held = factory("bytes", len(made)).sampler(SamplingParams(json_schema=json.dumps(SCHEMA)), ())
    for token in [*made.encode(text, add_special_tokens=False), made.eos_token_id]:
        held.accept(token)
        assert held.constraint.error is None
    assert held.constraint.is_complete


def test_rows_of_different_tokenizers_are_held_together():
    chance = torch.Generator().manual_seed(0)
    kinds = ("bytes", "sentencepiece")
    asked = SamplingParams(temperature=1.0, seed=1, json_schema=ANY_OBJECT)
    rows, batch = [factory(kind, 4_000).sampler(asked, ()) for kind in kinds], SamplingBatch()
    for _ in range(20):
        tokens = batch.sample(rows, torch.randn(2, 4_000, generator=chance))
        assert [token.error for token in tokens] == [None, None]


async def answer_of(engine, asked):
    text, finished = "", None
    async for event in engine.generate(asked):
        if isinstance(event, TextDelta):
            text += event.text
        elif isinstance(event, Finished):
            finished = event
    await engine.aclose()
    return text, finished


@pytest.mark.anyio
async def test_both_engines_give_the_same_json_to_the_same_seed():
    asked = request(
        "What is in this image?",
        "wide",
        temperature=1.0,
        seed=5,
        max_tokens=500,
        json_schema=json.dumps(SCHEMA),
    )
    checkpoint = loaded("llava-v1.5-tiny")
    alone, finished = await answer_of(
        SequentialEngine(TransformersModel(checkpoint), max_waiting=1), asked
    )
    together, _ = await answer_of(
        BatchedEngine(SlotModel(checkpoint), capacity=2, max_waiting=1), asked
    )
    check_answer(alone)
    assert alone == together
    assert finished.reason is FinishReason.STOP


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"type": "banana"}, "banana"),
        ({"type": "object", "unevaluatedProperties": False}, "unevaluatedProperties"),
        ({"$ref": "#/definitions/x"}, "does not exist"),
        ({"type": "string", "pattern": "(a"}, "unclosed group"),
        ({"allOf": [{"type": "integer"}, {"type": "string"}]}, "incompatible types"),
    ],
)
def test_a_schema_that_cannot_be_used_is_refused_with_the_reason(schema, reason):
    with pytest.raises(BadRequestError, match=reason) as caught:
        factory("bytes").check(SamplingParams(json_schema=json.dumps(schema)))
    assert caught.value.param == "response_format"


@pytest.mark.parametrize("asked", [{"logit_bias": ((260, 1.0),)}, {"stop_token_ids": {5, 260}}])
def test_a_token_that_the_model_does_not_have_is_refused(asked):
    with pytest.raises(BadRequestError, match="no token 260") as caught:
        factory("bytes").check(SamplingParams(**asked))
    assert caught.value.param == next(iter(asked))


def test_a_model_without_an_end_can_be_held_to_no_schema():
    vocabulary = Vocabulary(tokenizer("bytes"), frozenset())
    with pytest.raises(UnsupportedError, match="ends an answer"):
        vocabulary.constraint(ANY_OBJECT)


def test_a_tokenizer_that_cannot_be_read_says_so():
    class Unknown:
        def __len__(self):
            return 3

    with pytest.raises(UnsupportedError, match="without response_format and logprobs"):
        Vocabulary(Unknown(), frozenset({1})).read()


def test_an_answer_that_breaks_its_schema_says_so():
    constraint = Vocabulary(tokenizer("bytes"), frozenset({257})).constraint(ANY_OBJECT)
    assert constraint.error is None
    constraint.accept(tokenizer("bytes").convert_tokens_to_ids("x"))
    assert constraint.error.param == "response_format"


def test_answers_to_one_schema_go_their_own_ways():
    vocabulary = Vocabulary(tokenizer("bytes"), frozenset({257}))
    first, second = vocabulary.constraint(ANY_OBJECT), vocabulary.constraint(ANY_OBJECT)
    for character in "{}":
        first.accept(tokenizer("bytes").convert_tokens_to_ids(character))
    assert (first.is_complete, second.is_complete) == (True, False)


def test_few_schemas_are_remembered():
    vocabulary = Vocabulary(tokenizer("bytes"), frozenset({257}))
    for size in range(REMEMBERED_SCHEMAS + 9):
        vocabulary.constraint(json.dumps({"type": "string", "maxLength": size}))
    assert len(vocabulary._matchers) == REMEMBERED_SCHEMAS


def test_tokens_are_told_as_the_bytes_they_stand_for():
    def told(kind, text):
        ids = tokenizer(kind)(text, add_special_tokens=False).input_ids
        vocabulary = Vocabulary(tokenizer(kind), frozenset({tokenizer(kind).eos_token_id}))
        return [vocabulary.token_bytes(token_id) for token_id in ids]

    assert b"".join(told("bytes", "a é蓝")) == "a é蓝".encode()
    assert b"".join(told("sentencepiece", "see the 👩 sea")).strip() == "see the 👩 sea".encode()
    assert any(piece.startswith(b" ") for piece in told("sentencepiece", "see the sea")[1:])
    assert Vocabulary(tokenizer("bytes"), frozenset({257})).token_bytes(100_000) == b""
