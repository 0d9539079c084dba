"""Recorded steps say what steps say that are made as they come, whatever joins, leaves or moves.

A recorder stands in for CUDA graphs: it replays operations on the tensors that they were recorded
with, so that what a graph would not notice is not noticed here either.
"""

import logging

import pytest
from hypothesis import HealthCheck, given, settings

from controller.protocol.fleet import Quantisation
from tests.checkpoint.tiny_models import FAMILIES
from tests.engine import test_families as families
from tests.engine.recorder import Recorder
from tests.engine.test_shared_base import ASKED as ASKED_OF
from tests.engine.test_shared_base import BASE, loras, of  # noqa: F401 - loras is a fixture
from tests.engine.test_shared_base import alone as answer_of
from tests.engine.test_slot_model import (
    ARRIVALS,
    ASKED,
    GREEDY,
    LLAVA,
    LONGEST,
    NF4,
    SMALL,
    TEXT,
    alone,
    generated,
    leave,
    loaded,
    read,
    until_end,
)
from tests.engine.test_transformers_model import request
from worker.checkpoint.shared import load_shared
from worker.engine import graphs
from worker.engine.build import why_not_recorded
from worker.engine.graphs import batch_size, span_of
from worker.engine.slot_model import SlotModel


def run(model, arrivals):
    """The tokens of each; all that come at the same step are read before it."""
    answers, rows = {}, {}
    for step in range(40):
        for index, (when, name, wanted, part) in enumerate(arrivals):
            if when == step:
                row = read(model, name, part)
                answers[index], rows[index] = [row.last_token], (row, wanted)
        leave(model, rows, answers)
        if rows:
            said = model.step([row for row, _ in rows.values()])
            for index, token in zip(rows, said, strict=True):
                answers[index].append(token)
        leave(model, rows, answers)
    return [answers[index] for index in range(len(arrivals))]


@pytest.mark.parametrize(
    ("which", "examples", "caches"),
    [(LLAVA, 8, {}), (LLAVA, 8, SMALL), (NF4, 3, {})],
    ids=["1.5", "1.5 with little memory", "nf4"],
)
def test_rows_that_join_and_leave_at_any_time_say_what_generate_says(
    which, examples, caches, monkeypatch
):
    monkeypatch.setattr(graphs, "PLAIN_STEPS", 0)  # so that rare sizes are recorded too
    recorder = Recorder()
    model = SlotModel(loaded(*which), capture=recorder, **caches)

    @settings(max_examples=examples, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(ARRIVALS)
    def check(arrivals):
        for (_, name, wanted, _), tokens in zip(arrivals, run(model, arrivals), strict=True):
            ours = until_end(tokens, model)
            assert ours == generated(which, name)[:wanted][: len(ours)]

    check()
    assert recorder.replayed > 2 * recorder.recorded > 0


@pytest.mark.parametrize("name", ["mistral with a window", "gemma3", "llama"])
def test_language_models_with_and_without_windows_are_replayed(name, monkeypatch):
    recorder = Recorder()
    monkeypatch.setattr(families, "SlotModel", lambda *given: SlotModel(*given, capture=recorder))
    families.test_a_language_model_shares_batches(name)
    assert recorder.replayed > recorder.recorded > 0


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl", "gemma3", "llava_next"])
def test_families_that_see_are_replayed(family, tmp_path, monkeypatch):
    assert family in FAMILIES
    recorder = Recorder()
    monkeypatch.setattr(families, "SlotModel", lambda *given: SlotModel(*given, capture=recorder))
    families.test_a_family_that_sees_shares_batches(family, tmp_path)
    assert recorder.replayed > recorder.recorded > 0


def test_rows_of_any_adapters_are_replayed_in_any_order(loras, monkeypatch):  # noqa: F811
    monkeypatch.setattr(graphs, "PLAIN_STEPS", 1)
    base = load_shared(BASE, loras, lambda _progress: None)
    base.loras = loras
    recorder = Recorder()
    model = SlotModel(*base.checkpoints, capture=recorder, shared=base)
    expected = {name: answer_of(base, name) for name in ("one", "two", "text", "base")}
    orders = [
        ["one", "two", "text", "base", "one"],
        ["two", "base", "one", "text", "two"],
        ["one", "one", "one"],
        ["two", "two", "two"],
        ["base", "base", "two"],
    ]
    for order in [*orders, *orders]:
        check_adapters(model, order, expected)
    assert recorder.replayed > 2 * recorder.recorded
    # Another adapter moves the matrices of all.
    before = recorder.recorded
    model.read_adapter("three", loras[1].path)()
    expected["three"] = expected["two"]
    monkeypatch.setitem(ASKED_OF, "three", ASKED_OF["two"])
    check_adapters(model, ["three", "two", "one", "three", "text"], expected)
    model.dismiss("three")()
    check_adapters(model, orders[0], expected)
    assert recorder.recorded >= before + 2


def check_adapters(model, order, expected):
    rows = [model.open(model.prepare(of(name, ASKED_OF[name])), GREEDY) for name in order]
    said = [[model.prefill(row, 4_096)] for row in rows]
    for _ in range(11):
        for tokens, token in zip(said, model.step(rows), strict=True):
            tokens.append(token)
    for row in rows:
        model.close(row)
    for name, tokens in zip(order, said, strict=True):
        assert tokens == expected[name]


def test_a_step_is_recorded_when_it_comes_again_and_anew_where_memory_moves():
    recorder = Recorder()
    model = SlotModel(loaded(*LLAVA), kv_tokens=4_096, capture=recorder)
    row = read(model, "short")
    for _ in range(graphs.PLAIN_STEPS):
        model.step([row])
    assert recorder.recorded == 0
    for _ in range(5):
        model.step([row])
    assert (recorder.recorded, recorder.replayed) == (1, 6)  # once more to see that it can be
    longer = read(model, "two")  # takes more memory than there was
    for _ in range(6):
        model.step([row, longer])
    assert recorder.recorded == 2
    assert longer.answer == alone(LLAVA, "two")[:7]
    model.close(row)
    # One row is left, in memory that holds: another size of the same.
    for _ in range(5):
        model.step([longer])
    assert recorder.recorded == 3
    assert longer.answer == alone(LLAVA, "two")[:12]
    model.close(longer)


def test_memory_stays_for_the_next_answer_and_is_given_back_when_it_is_short():
    recorder = Recorder()
    model = SlotModel(loaded(*LLAVA), kv_tokens=1_024, capture=recorder)
    for _ in range(3):
        row = read(model, "short")
        for _ in range(6):
            model.step([row])
        model.close(row)
    assert recorder.recorded == 1
    assert model.kv_reserved_tokens > 0
    assert model.release_caches()
    assert model.kv_reserved_tokens == 0
    assert not model.release_caches()
    # What would leave kept prompts less than half is not kept.
    row = read(model, "two")
    while model.kv_reserved_tokens <= 512:
        model.step([row])
    model.close(row)
    assert model.kv_reserved_tokens == 0


def test_memory_that_stays_goes_before_the_limit_is_passed():
    model = SlotModel(loaded(*TEXT), kv_tokens=1_024, capture=Recorder())
    first = [read(model, "text") for _ in range(4)]
    for row in first:
        model.close(row)
    assert model.kv_reserved_tokens == 512
    asked = model.prepare(request("one two three four " * 60))
    assert asked.prompt_tokens > 512
    row = model.open(asked, GREEDY)
    assert model.cache_stats().kv_used_tokens <= 1_024
    model.prefill(row, 4_096)
    model.close(row)


def test_what_cannot_be_recorded_is_said_once_and_goes_on_as_it_comes(caplog):
    def capture(_work):
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    model = SlotModel(loaded(*LLAVA), capture=capture)
    with caplog.at_level(logging.WARNING, logger="worker.engine.graphs"):
        row = read(model, "wide")
        for _ in range(LONGEST - 1):
            model.step([row])
    assert row.answer == alone(LLAVA, "wide")[:LONGEST]
    assert len(caplog.records) == 1
    assert "operation not permitted when stream is capturing" in caplog.text
    assert [card.cuda_graphs for card in model.cards] == [
        "off: operation not permitted when stream is capturing"
    ]
    model.close(row)
    model.rest()
    assert model.kv_reserved_tokens == 0


def test_a_replay_that_gives_something_else_is_not_believed(caplog):
    def wrong(work):
        logits = work() + 1
        return lambda: logits

    model = SlotModel(loaded(*LLAVA), capture=wrong)
    with caplog.at_level(logging.WARNING, logger="worker.engine.graphs"):
        row = read(model, "wide")
        for _ in range(LONGEST - 1):
            model.step([row])
    assert row.answer == alone(LLAVA, "wide")[:LONGEST]
    assert "other logits" in caplog.text
    assert [card.cuda_graphs for card in model.cards] == [
        "off: its replay gives other logits than the step itself"
    ]


def test_the_card_says_whether_steps_are_recorded():
    assert [card.cuda_graphs for card in SlotModel(loaded(*LLAVA)).cards] == [None]
    model = SlotModel(loaded(*LLAVA), capture=Recorder())
    assert [card.cuda_graphs for card in model.cards] == ["on"]


def test_8_bit_weights_are_not_recorded_and_neither_is_what_was_not_to_be():
    assert why_not_recorded(Quantisation.NONE, is_wanted=True) is None
    assert why_not_recorded(Quantisation.NF4, is_wanted=True) is None
    assert "outliers" in (why_not_recorded(Quantisation.INT8, is_wanted=True) or "")
    assert "--no-cuda-graphs" in (why_not_recorded(Quantisation.NONE, is_wanted=False) or "")


def test_warming_up_records_a_step_so_that_it_is_known_whether_it_can_be():
    recorder = Recorder()
    model = SlotModel(loaded(*LLAVA), capture=recorder)
    model.warm_up()
    assert recorder.recorded == 1
    assert model.kv_reserved_tokens == 0


def test_recorded_sizes_are_few_and_bounded(monkeypatch):
    assert [batch_size(rows) for rows in (1, 2, 3, 4, 5, 8, 9, 33)] == [1, 2, 4, 4, 8, 8, 16, 40]
    for tokens in range(1, 9_000):
        span = span_of(tokens)
        assert span >= tokens
        assert span % 64 == 0
        assert span <= max(256, 1.25 * tokens + 1)
    assert len({span_of(tokens) for tokens in range(1, 4_097)}) == 17
    monkeypatch.setattr(graphs, "MAX_RECORDED", 2)
    monkeypatch.setattr(graphs, "PLAIN_STEPS", 0)
    model = SlotModel(loaded(*LLAVA), capture=Recorder())
    rows = [read(model, name) for name in ASKED]
    while rows:
        model.step(rows)
        assert model._graphs.recorded <= 2
        model.close(rows.pop())
