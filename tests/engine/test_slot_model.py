"""Answers that share steps are those that each would get alone, on tiny random checkpoints."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from transformers import MistralConfig, Qwen2Config, Qwen3Config

from controller.protocol.errors import OutOfMemoryError
from controller.protocol.fleet import Quantisation
from tests.engine.test_transformers_model import GREEDY, first_tokens, loaded, request
from worker.checkpoint.kv import bytes_per_token
from worker.engine.batch import KVFullError
from worker.engine.batchable import why_not, why_not_batched
from worker.engine.kv_slots import rounded
from worker.engine.prefix_tree import prefix_keys
from worker.engine.protocol import Reuse, SamplingParams
from worker.engine.slot_model import SlotModel
from worker.engine.transformers_model import TransformersModel

LONGEST = 16
LLAVA = ("llava-v1.5-tiny", None, Quantisation.NONE)
NEXT = ("llava-v1.6-tiny", None, Quantisation.NONE)
TEXT = ("vicuna-tiny", None, Quantisation.NONE)
LORA = ("llava-v1.5-tiny-lora", "vicuna-tiny", Quantisation.NONE)
NF4 = ("llava-v1.5-tiny", None, Quantisation.NF4)
INT8 = ("llava-v1.5-tiny", None, Quantisation.INT8)

ASKED = {
    "short": request("Hi"),
    "text": request("Tell me a long story about the sea and those who sail it, in some detail."),
    "wide": request("What is in this image?", "wide"),
    "two": request("Compare them.", "tall", "square"),
}


@cache
def generated(which, name):
    """transformers' own answer, of which ends are no part."""
    checkpoint = loaded(*which)
    inputs = checkpoint.inputs(checkpoint.prepare(ASKED[name].messages, ASKED[name].images))
    tokens = checkpoint.model.generate(
        **inputs, do_sample=False, min_new_tokens=LONGEST, max_new_tokens=LONGEST
    )
    return tokens[0, inputs["input_ids"].shape[1] :].tolist()


@cache
def alone(which, name, sampling=GREEDY):
    return first_tokens(TransformersModel(loaded(*which)), ASKED[name], LONGEST, sampling)


def run(model, arrivals, sampling=GREEDY):
    """Steps a batch by hand.

    ``arrivals``: the step at which each comes, what it asks, how many tokens it wants, and how much
    of its prompt is read at once. Returns the tokens of each.
    """
    waiting = sorted(enumerate(arrivals), key=lambda each: each[1][0])
    answers, reading, rows, step = {}, [], {}, 0
    while waiting or reading or rows:
        while waiting and waiting[0][1][0] <= step:
            index, (_, name, wanted, part) = waiting.pop(0)
            row = model.open(model.prepare(ASKED[name]), sampling)
            reading.append((index, row, wanted, part))
        for each in tuple(reading):
            index, row, wanted, part = each
            token = model.prefill(row, part)
            if token is not None:
                answers[index] = [token]
                reading.remove(each)
                rows[index] = (row, wanted)
        leave(model, rows, answers)
        if rows:
            tokens = model.step([row for row, _ in rows.values()])
            for index, token in zip(rows, tokens, strict=True):
                answers[index].append(token)
        leave(model, rows, answers)
        step += 1
    model.rest()
    assert model.kv_reserved_tokens == 0
    return [answers[index] for index in range(len(arrivals))]


def leave(model, rows, answers):
    for index in [i for i, (_, wanted) in rows.items() if len(answers[i]) >= wanted]:
        row, _ = rows.pop(index)
        model.close(row)


ARRIVALS = st.lists(
    st.tuples(
        st.integers(0, 8),
        st.sampled_from(sorted(ASKED)),
        st.integers(1, LONGEST),
        st.sampled_from([7, 64, 4_096]),
    ),
    min_size=1,
    max_size=5,
)


def until_end(tokens, model):
    """Tokens up to the end token; transformers was kept from making it."""
    for index, token in enumerate(tokens):
        if token in model.serving("tiny").end_token_ids:
            return tokens[:index]
    return tokens


OFF = {"prefix_tokens": 0, "image_cache_bytes": 0}
SMALL = {"kv_tokens": 1_024, "prefix_tokens": 256, "image_cache_bytes": 20_000}


@pytest.mark.parametrize(
    ("which", "examples", "caches"),
    [
        (LLAVA, 10, {}),
        (LLAVA, 6, OFF),
        (LLAVA, 8, SMALL),
        (NEXT, 6, {}),
        (LORA, 4, {}),
        (NF4, 4, {}),
    ],
    ids=["1.5", "1.5 without caches", "1.5 with small caches", "1.6", "lora", "nf4"],
)
def test_rows_that_join_and_leave_at_any_time_say_what_generate_says(which, examples, caches):
    # One model for all examples: what the first ones have read, the later ones know.
    model = SlotModel(loaded(*which), **caches)
    assert why_not_batched(loaded(*which)) is None

    @settings(max_examples=examples, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(ARRIVALS)
    @example([(0, "wide", 4, 64), (1, "wide", 4, 64)])  # the caches are used, whatever is drawn
    def check(arrivals):
        for (_, name, wanted, _), tokens in zip(arrivals, run(model, arrivals), strict=True):
            ours = until_end(tokens, model)
            assert ours == generated(which, name)[:wanted][: len(ours)]
            assert len(ours) > 0

    check()
    stats = model.cache_stats()
    assert (stats.prefix_hits > 0) == (stats.image_bytes > 0) == (caches is not OFF)


def read(model, name, part=4_096):
    """A row of which the prompt has been read."""
    row = model.open(model.prepare(ASKED[name]), GREEDY)
    token = None
    while token is None:
        token = model.prefill(row, part)
    return row


def test_an_image_is_encoded_once_and_a_prompt_is_read_once():
    model = SlotModel(loaded(*LLAVA))
    model.close(read(model, "wide"))
    asked = request("What is in this image?", "wide")
    row = model.open(model.prepare(asked), GREEDY)
    # The last token is always read: its logits are not kept.
    assert row.reuse == Reuse(row.prompt.prompt_tokens - 1, 1, 0)
    assert model.unread(row) == 1
    model.close(row)
    # The same image in another place: its features are known, its keys and values are not.
    other = model.open(model.prepare(request("Hm. So what do you think of it?", "wide")), GREEDY)
    assert (other.reuse.image_cache_hits, other.reuse.encoded_images) == (1, 0)
    two = model.open(model.prepare(request("Compare them.", "tall", "wide")), GREEDY)
    assert (two.reuse.image_cache_hits, two.reuse.encoded_images) == (1, 1)
    model.close(other)
    model.close(two)


@pytest.mark.parametrize("which", [LLAVA, NEXT], ids=lambda which: which[0])
@pytest.mark.parametrize("engine", [SlotModel, TransformersModel])
def test_a_prompt_that_came_rendered_sees_its_images_as_its_conversation_would(which, engine):
    """As LLaVA's and FastChat's programs send them."""
    model = engine(loaded(*which))
    chat = model.prepare(ASKED["two"])
    asked = replace(ASKED["two"], messages=(), prompt=chat.prepared.text)
    assert model.prepare(asked).input_ids == chat.input_ids
    if engine is TransformersModel:
        assert first_tokens(model, asked, LONGEST) == generated(which, "two")
        return
    row = model.open(model.prepare(asked), GREEDY)
    assert row.reuse == Reuse(0, 0, 2)
    assert model.prefill(row, 4_096) == generated(which, "two")[0]
    model.close(row)


def test_the_next_turn_of_a_conversation_reads_its_question_alone():
    model = SlotModel(loaded(*LLAVA))
    row = read(model, "wide")
    for _ in range(5):
        model.step([row])
    said = row.answer[:-1]  # the last token has not been read yet
    asked = model.prepare(ASKED["wide"])
    longer = replace(
        asked, prepared=replace(asked.prepared, input_ids=(*asked.prepared.input_ids, *said, 5, 6))
    )
    model.close(row)
    again = model.open(longer, GREEDY)
    assert again.reuse.cached_tokens == asked.prompt_tokens + len(said)
    assert model.unread(again) == 2
    model.close(again)


def test_another_image_or_its_absence_is_another_prompt():
    model = SlotModel(loaded(*LLAVA))
    model.close(read(model, "wide"))
    before = prefix_keys(
        model.prepare(ASKED["wide"]).prepared.input_ids, loaded(*LLAVA).image_token_id, [b"x"]
    )[1][0].start
    row = model.open(model.prepare(request("What is in this image?", "tall")), GREEDY)
    assert row.reuse == Reuse(before if before >= 16 else 0, 0, 1)
    model.close(row)


def test_what_is_kept_is_bounded_and_goes_before_rows_do():
    model = SlotModel(loaded(*TEXT), kv_tokens=640)
    for index in range(20):
        row = model.open(model.prepare(request(f"{index} and {index + 1} words " * 4)), GREEDY)
        model.prefill(row, 4_096)
        stats = model.cache_stats()
        assert stats.kv_used_tokens <= 640
        model.close(row)
    assert 0 < model.cache_stats().kv_used_tokens <= 320
    rows = [read(model, "text") for _ in range(3)]
    while rows[0].length < 192:
        model.step(rows)
    with pytest.raises(KVFullError):  # three rows of 256 tokens would be too much
        model.step(rows)
    assert model.kv_reserved_tokens == 3 * 192
    assert 0 < model.cache_stats().kv_used_tokens <= 640
    for row in rows:
        model.close(row)


def test_a_row_that_gave_way_goes_on_where_it_was():
    model = SlotModel(loaded(*LLAVA))
    first, second = read(model, "wide"), read(model, "two")
    for _ in range(4):
        model.step([first, second])
    model.preempt(first)
    assert model.step([second])
    model.release_caches()
    model.reopen(first)
    tokens = [*first.answer]
    assert model.unread(first) == first.prompt.prompt_tokens + len(tokens)
    while (token := model.prefill(first, 30)) is None:
        pass
    assert [*tokens, token] == alone(LLAVA, "wide")[:6]
    model.step([first, second])
    assert first.answer == alone(LLAVA, "wide")[:7]
    assert second.answer == alone(LLAVA, "two")[:7]
    model.close(first)
    model.close(second)


def test_text_alone_says_what_generate_says():
    model = SlotModel(loaded(*TEXT))
    arrivals = [(0, "short", 16, 64), (2, "text", 16, 7), (3, "short", 9, 4_096), (9, "text", 5, 5)]
    for (_, name, wanted, _), tokens in zip(arrivals, run(model, arrivals), strict=True):
        ours = until_end(tokens, model)
        assert ours == generated(TEXT, name)[:wanted][: len(ours)]


def test_int8_answers_alone_are_those_of_the_sequential_engine():
    # With others in the batch they may differ: its outliers are found over all rows together.
    model = SlotModel(loaded(*INT8))
    assert run(model, [(0, "wide", 16, 4_096)]) == [alone(INT8, "wide")[:16]]


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(ARRIVALS, st.integers(0, 1_000))
def test_a_seed_gives_the_same_answer_whatever_else_is_in_the_batch(arrivals, seed):
    sampling = SamplingParams(temperature=1.2, top_p=0.95, seed=seed)
    model = SlotModel(loaded(*LLAVA))
    for (_, name, wanted, _), tokens in zip(arrivals, run(model, arrivals, sampling), strict=True):
        assert tokens == alone(LLAVA, name, sampling)[:wanted]


def test_memory_grows_with_what_rows_hold_and_is_given_back():
    model = SlotModel(loaded(*TEXT), kv_tokens=4_096)
    assert model.kv_reserved_tokens == 0
    first = model.open(model.prepare(ASKED["short"]), GREEDY)
    model.prefill(first, 4_096)
    one = model.kv_reserved_tokens
    assert first.length < one <= first.length + 64
    second = model.open(model.prepare(ASKED["text"]), GREEDY)
    model.prefill(second, 4_096)
    assert model.kv_reserved_tokens > one
    model.close(first)
    model.rest()  # nothing is to be given back while there are rows
    assert model.kv_reserved_tokens > one
    model.close(second)
    assert model.kv_reserved_tokens > one, "the next answer has its memory at once"
    model.rest()
    assert model.kv_reserved_tokens == 0


def test_on_a_cpu_rows_have_room_to_grow_in_that_takes_memory_only_when_it_is_used():
    model = SlotModel(loaded(*TEXT), prefix_tokens=0)
    rows = [model.open(model.prepare(ASKED[name]), GREEDY) for name in ("short", "text")]
    for row in rows:
        model.prefill(row, 4_096)
    assert model.kv_reserved_tokens == 16 * 1_024
    assert model.cache_stats().kv_used_tokens == 2 * rounded(rows[1].length)
    place = model._kv.layers[0].keys.data_ptr()
    for _ in range(80):
        model.step(rows)
    assert model._kv.layers[0].keys.data_ptr() == place
    for row in rows:
        model.close(row)
    model.rest()
    assert model.kv_reserved_tokens == 0


def test_the_cache_bounds_the_context():
    # In the steps that memory is taken in.
    assert SlotModel(loaded(*TEXT), kv_tokens=200).serving("tiny").context_length == 192
    assert SlotModel(loaded(*TEXT), kv_tokens=10**9).serving("tiny").context_length == 2048


def test_a_step_that_fails_for_memory_can_be_made_again(monkeypatch):
    model = SlotModel(loaded(*LLAVA))
    rows = []
    for name in ("wide", "short"):
        row = model.open(model.prepare(ASKED[name]), GREEDY)
        rows.append((row, [model.prefill(row, 4_096)]))
    forward, failures = model._reader.forward, [2]

    def failing(**inputs):
        result = forward(**inputs)
        if failures.pop(0) if failures else 0:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return result

    monkeypatch.setattr(model._reader, "forward", failing)
    with pytest.raises(OutOfMemoryError):
        model.step([row for row, _ in rows])
    for _ in range(8):
        for (_, tokens), token in zip(rows, model.step([r for r, _ in rows]), strict=True):
            tokens.append(token)
    assert rows[0][1] == alone(LLAVA, "wide")[:9]
    assert rows[1][1] == alone(LLAVA, "short")[:9]


def config(kind, **settings):
    made = kind(attn_implementation="sdpa", **settings)
    assert made._attn_implementation == "sdpa"
    return made


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (config(Qwen2Config), None),
        (config(Qwen3Config), None),
        (config(MistralConfig, sliding_window=None), None),
        (config(MistralConfig, sliding_window=4_096), None),
        (config(Qwen2Config, layer_types=["chunked_attention"] * 32), "chunked"),
        (MistralConfig(sliding_window=None, attn_implementation="eager"), "eager"),
        (
            config(
                Qwen2Config,
                rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0},
            ),
            "dynamic",
        ),
    ],
)
def test_a_model_that_cannot_share_a_batch_is_known_by_its_config(made, reason):
    found = why_not(made)
    assert found is None if reason is None else reason in found


def test_an_unknown_family_is_not_batched():
    checkpoint = loaded(*LLAVA)

    class Unknown:
        model_type = "unheard_of"

        def get_text_config(self, decoder):
            return checkpoint.model.config.get_text_config()

    class Model:
        config = Unknown()

    assert "unheard_of" in why_not_batched(replace(checkpoint, model=Model()))


def test_a_tokens_memory_is_counted_as_it_is_taken():
    checkpoint = loaded(*TEXT)
    model = SlotModel(checkpoint)
    row = model.open(model.prepare(ASKED["short"]), GREEDY)
    model.prefill(row, 4_096)
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in model._kv.layers)
    counted = bytes_per_token(checkpoint.model.config, checkpoint.dtype)
    assert held == counted * model.kv_reserved_tokens
    model.close(row)
