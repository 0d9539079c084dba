"""The batched engine: rows share steps, and each request has one end, whatever happens."""

import asyncio
import threading
from contextlib import aclosing
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.protocol.chat import FinishReason
from controller.protocol.errors import (
    BadRequestError,
    ConflictError,
    DeviceLostError,
    DrainingError,
    InternalError,
    OutOfMemoryError,
    ParagoneError,
    QueueFullError,
)
from tests.engine import engines
from tests.engine.engines import events_of, text_of
from tests.engine.fake_model import FakeBatchModel, ask
from tests.waiting import until
from worker.engine.batched import BatchedEngine
from worker.engine.protocol import Accepted, Finished, TextDelta

pytestmark = pytest.mark.anyio


def running(model, **options):
    return engines.running(BatchedEngine, model, **{"capacity": 4, "max_waiting": 32, **options})


async def test_an_answer_is_accepted_told_and_finished():
    async with running(FakeBatchModel()) as engine:
        first, *deltas, last = await events_of(engine, ask("hello there"))
    assert first == Accepted(prompt_tokens=2, image_tokens=0)
    assert "".join(delta.text for delta in deltas) == "You said: hello there"
    assert last.reason is FinishReason.STOP
    assert last.usage.completion_tokens == len("You said: hello there") + 1


async def test_answers_are_made_together_up_to_the_capacity():
    model = FakeBatchModel(step_seconds=0.001)
    async with running(model, capacity=3) as engine:
        texts = await asyncio.gather(*(text_of(engine, ask(f"{i}")) for i in range(9)))
    assert texts == [f"You said: {i}" for i in range(9)]
    assert max(model.batches) == 3
    assert model.threads == {"model", "prepare"}
    assert sum(model.batches) < 4 * len(model.batches)


async def test_a_request_joins_those_that_run_without_waiting_for_their_end():
    model = FakeBatchModel(answer=lambda p: "x" * (500 if p.text == "long" else 3))
    model.step_seconds = 0.002
    async with running(model) as engine:
        long = asyncio.create_task(text_of(engine, ask("long")))
        await until(lambda: model.batches)
        assert await text_of(engine, ask("short")) == "xxx"
        assert not long.done()
        assert await long == "x" * 500


async def test_a_long_prompt_is_read_in_parts_while_others_go_on():
    model = FakeBatchModel(
        answer=lambda p: "x" * (3 if len(p.text) > 50 else 400), context_length=5_000
    )
    model.step_seconds = 0.001
    async with running(model) as engine:
        first = asyncio.create_task(text_of(engine, ask("first")))
        await until(lambda: len(model.batches) > 3)
        # The fake reads a prompt in no time; as on a machine where that takes long:
        engine._batch._pacer.prefilled = lambda tokens, seconds: None
        engine._batch._pacer._token_seconds = 1.0
        before = len(model.batches)
        prompt = "word " * 300
        await text_of(engine, ask(prompt))
        parts = [size for text, size in model.parts if text == prompt]
        assert sum(parts) == 300
        assert len(parts) > 3
        assert len(model.batches) - before >= len(parts)
        assert await first == "x" * 400


async def test_a_stream_that_is_closed_ends_within_one_step_and_the_others_go_on():
    model = FakeBatchModel(answer=lambda p: "x" * 60, step_seconds=0.01)
    async with running(model) as engine:
        other = asyncio.create_task(text_of(engine, ask("other")))
        async with aclosing(engine.generate(ask("closed"))) as events:
            async for event in events:
                if isinstance(event, TextDelta) and len(model.batches) > 2:
                    break
        steps = model.steps
        await until(lambda: engine.stats().running == 1)
        assert model.steps <= steps + 2
        assert await other == "x" * 60


async def test_a_request_that_is_closed_while_it_waits_is_never_run():
    model = FakeBatchModel(gate=threading.Event())
    async with running(model, capacity=1) as engine:
        first = asyncio.create_task(text_of(engine, ask("1")))
        await until(lambda: model.started)
        async with aclosing(engine.generate(ask("2"))) as waiting:
            assert isinstance(await anext(waiting), Accepted)
            assert engine.stats().waiting == 1
        assert engine.stats().waiting == 0
        model.gate.set()
        await first
    assert model.started == ["1"]


async def test_a_full_queue_refuses():
    model = FakeBatchModel(gate=threading.Event())
    async with running(model, capacity=1, max_waiting=1) as engine:
        tasks = [asyncio.create_task(text_of(engine, ask(f"{i}"))) for i in range(2)]
        await until(lambda: engine.stats().waiting == 1 and engine.stats().running == 1)
        with pytest.raises(QueueFullError):
            await text_of(engine, ask("3"))
        model.gate.set()
        assert await asyncio.gather(*tasks) == ["You said: 0", "You said: 1"]


async def test_rows_that_do_not_fit_the_cache_together_run_one_after_the_other():
    model = FakeBatchModel(step_seconds=0.001)
    async with running(model, kv_tokens=1_500) as engine:
        asked = [text_of(engine, ask(f"{i}", max_tokens=900)) for i in range(3)]
        assert await asyncio.gather(*asked) == [f"You said: {i}" for i in range(3)]
        assert max(model.batches) == 1
        asked = [text_of(engine, ask(f"{i}", max_tokens=400)) for i in range(3)]
        assert await asyncio.gather(*asked) == [f"You said: {i}" for i in range(3)]
        assert max(model.batches) == 3


async def test_answers_of_any_length_begin_together_and_the_newest_gives_way():
    # Without max_tokens; three of them begin with 257 tokens each, and grow to 400.
    model = FakeBatchModel(answer=lambda p: f"{p.text} " + "x" * 400, kv_limit=1_000)
    async with running(model, kv_tokens=1_000) as engine:
        texts = await asyncio.gather(*(text_of(engine, ask(f"{i}")) for i in range(3)))
        assert texts == [f"{i} " + "x" * 400 for i in range(3)]
        assert max(model.batches) == 3
        assert engine.stats().caches.preemptions == 1
    # The last one was read again, with what it had said; the first ones were not.
    assert sorted({text for text, size in model.parts if size > 1}) == ["2"]


async def test_one_answer_that_outgrows_the_memory_alone_is_told_so():
    model = FakeBatchModel(answer=lambda p: "x" * 400, kv_limit=100)
    async with running(model) as engine:
        with pytest.raises(OutOfMemoryError, match="--kv-cache-memory"):
            await text_of(engine, ask("long"))
        assert await text_of(engine, ask("short", max_tokens=50)) == "x" * 50


async def test_too_little_memory_takes_what_is_kept_for_later_first():
    model = FakeBatchModel(most_rows=2, step_seconds=0.002, caches=1)
    async with running(model) as engine:
        texts = await asyncio.gather(*(text_of(engine, ask(f"{i}")) for i in range(3)))
    assert texts == [f"You said: {i}" for i in range(3)]
    assert model.caches == 0


async def test_too_little_memory_for_a_prompt_takes_the_caches_and_reads_it_again():
    model = FakeBatchModel(prefill_error=OutOfMemoryError("no"), caches=1)
    async with running(model) as engine:
        with pytest.raises(OutOfMemoryError):
            await text_of(engine, ask("bad"))
        assert model.started == ["bad", "bad"]
        assert await text_of(engine, ask("good")) == "You said: good"


async def test_an_adapter_comes_between_two_steps_and_goes_with_its_last_answer():
    model = FakeBatchModel(answer=lambda p: "x" * 200, step_seconds=0.002)
    async with running(model) as engine:
        first = asyncio.create_task(text_of(engine, ask("first")))
        await until(lambda: model.batches)
        assert (await engine.load_adapter("zh", "/zh")).name == "zh"
        assert not first.done()
        assert [card.name for card in engine.models] == ["fake", "zh"]
        with pytest.raises(ConflictError, match="'zh' is served here"):
            await engine.load_adapter("zh", "/zh")
        second = asyncio.create_task(text_of(engine, replace(ask("second"), model="zh")))
        await until(lambda: engine.stats().running == 2)
        await engine.unload_adapter("zh")
        assert [card.name for card in engine.models] == ["fake"]
        with pytest.raises(ConflictError, match="still being made"):
            await engine.load_adapter("zh", "/zh")
        assert model.freed == []
        assert await second == "x" * 200
        await until(lambda: not engine._retiring)
        await first
        assert model.freed == [("zh", 1)] or model.freed == [("zh", 0)]
        await engine.load_adapter("zh", "/zh")
        assert model.threads == {"model", "prepare"}


async def test_an_adapter_is_freed_once_where_its_last_answers_end_together():
    model = FakeBatchModel(answer=lambda p: "x" * 500, gate=threading.Event())
    async with running(model) as engine:
        await engine.load_adapter("zh", "/zh")
        asked = [replace(ask(f"question {i}"), model="zh") for i in range(4)]
        answers = [asyncio.create_task(text_of(engine, each)) for each in asked]
        await until(lambda: engine.stats().running == 4)
        await engine.unload_adapter("zh")
        for answer in answers:
            answer.cancel()
        await asyncio.gather(*answers, return_exceptions=True)
        model.gate.set()
        await until(lambda: not engine._retiring and not engine._retirements)
        assert model.freed == [("zh", 0)]


async def test_of_two_adapters_of_one_name_that_come_at_once_one_is_taken():
    model = FakeBatchModel()
    async with running(model) as engine:
        loads = [engine.load_adapter("zh", "/zh") for _ in range(2)]
        first, second = await asyncio.gather(*loads, return_exceptions=True)
        assert first.name == "zh"
        assert isinstance(second, ConflictError)
        assert model.adapters == ["zh"]
        with pytest.raises(BadRequestError):
            await engine.load_adapter("en", "/bad")
        await engine.load_adapter("en", "/en")  # the name of one that failed is free


async def test_too_little_memory_fails_the_newest_row_alone():
    model = FakeBatchModel(most_rows=2, step_seconds=0.002)
    async with running(model) as engine:
        tasks = []
        for i in range(3):
            tasks.append(asyncio.create_task(text_of(engine, ask(f"{i}"))))
            await until(lambda count=i + 1: len(model.started) == count)
        assert await asyncio.gather(*tasks[:2]) == ["You said: 0", "You said: 1"]
        with pytest.raises(OutOfMemoryError):
            await tasks[2]


async def test_a_bug_in_one_prompt_fails_that_request_alone(caplog):
    model = FakeBatchModel(prefill_error=ZeroDivisionError("a bug"), step_seconds=0.001)
    async with running(model) as engine:
        good, bad = await asyncio.gather(
            text_of(engine, ask("good")),
            text_of(engine, ask("bad", request_id="req-7")),
            return_exceptions=True,
        )
    assert good == "You said: good"
    assert isinstance(bad, InternalError)
    assert "req-7" in bad.message
    assert any("req-7" in record.getMessage() for record in caplog.records)


async def test_a_bug_in_a_step_fails_its_rows_and_the_next_request_is_answered():
    model = FakeBatchModel(error=ZeroDivisionError("a bug"), error_after=2)
    async with running(model) as engine:
        asked = [text_of(engine, ask(f"{i}")) for i in range(2)]
        ends = await asyncio.gather(*asked, return_exceptions=True)
        assert all(isinstance(end, InternalError) for end in ends)
        model.error = None
        assert await text_of(engine, ask("next")) == "You said: next"


async def test_a_lost_device_ends_all_streams_and_is_told_once():
    lost = []
    model = FakeBatchModel(error=DeviceLostError("gone"), error_after=2, step_seconds=0.01)
    async with running(model, on_device_lost=lost.append) as engine:
        asked = [text_of(engine, ask(f"{i}")) for i in range(3)]
        ends = await asyncio.gather(*asked, return_exceptions=True)
    assert all(isinstance(end, DeviceLostError) for end in ends)
    assert lost == ["gone"]


async def test_a_shutdown_ends_what_runs_and_refuses_what_waits():
    model = FakeBatchModel(answer=lambda p: "x" * 10_000, step_seconds=0.005)
    async with running(model, capacity=1) as engine:
        first = asyncio.create_task(events_of(engine, ask("1")))
        await until(lambda: model.batches)
        second = asyncio.create_task(events_of(engine, ask("2")))
        await until(lambda: engine.stats().waiting == 1)
        engine.abort_all()
        assert (await first)[-1].reason is FinishReason.ABORT
        with pytest.raises(DrainingError):
            await second


async def test_a_thousand_requests_closed_at_random_leave_nothing_behind():
    model = FakeBatchModel()
    async with running(model, max_waiting=2_000) as engine:

        async def close_after(count):
            async with aclosing(engine.generate(ask("a few words"))) as events:
                for _ in range(count):
                    await anext(events)

        await asyncio.gather(*(close_after(i % 7) for i in range(1_000)))
        await until(lambda: engine.stats().running == 0)
        assert await text_of(engine, ask("last")) == "You said: last"


async def test_the_pace_is_that_of_all_rows_together():
    model = FakeBatchModel(answer=lambda p: "x" * 12, step_seconds=0.001)
    async with running(model, clock=lambda: model.steps * 0.01) as engine:
        assert engine.stats().tokens_per_second is None
        await asyncio.gather(*(text_of(engine, ask(f"{i}")) for i in range(4)))
        tokens, seconds = sum(model.batches), len(model.batches) * 0.01
        assert engine.stats().tokens_per_second == pytest.approx(tokens / seconds, rel=0.01)


ARRIVAL = st.tuples(
    st.sampled_from(["a", "some words", "bad", "word " * 40]),
    st.integers(0, 8),  # half milliseconds before it arrives
    st.one_of(st.none(), st.integers(0, 6)),  # events after which its client leaves
    st.one_of(st.none(), st.integers(1, 12)),  # max_tokens
)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(ARRIVAL, min_size=1, max_size=10),
    st.integers(1, 4),
    st.one_of(st.none(), st.just(1_000), st.just(2_500)),
    st.integers(1, 4),
    st.sampled_from([300, 400, 10**6]),
)
def test_whatever_comes_each_request_has_one_end(
    arrivals, capacity, kv_tokens, most_rows, kv_limit
):
    """Arrivals, departures, bugs, limits, preemptions and too little memory, in any order."""

    async def client(engine, model, arrival):
        text, after, leaves, max_tokens = arrival
        await asyncio.sleep(after / 2_000)
        seen, ends, error = [], 0, None
        try:
            async with aclosing(engine.generate(ask(text, max_tokens=max_tokens))) as events:
                async for event in events:
                    assert ends == 0
                    seen.append(event)
                    ends += isinstance(event, Finished)
                    if leaves is not None and len(seen) > leaves:
                        return
        except ParagoneError as exc:
            error = exc
        if error is None:
            assert ends == 1
            assert "bad" not in text
            shown = "".join(e.text for e in seen if isinstance(e, TextDelta))
            assert shown == f"You said: {text}"[:max_tokens]
        else:
            assert ends == 0
            assert isinstance(error, InternalError if "bad" in text else OutOfMemoryError)

    async def main():
        model = FakeBatchModel(
            prefill_error=ValueError("bad"), most_rows=most_rows, kv_limit=kv_limit
        )
        async with running(model, capacity=capacity, kv_tokens=kv_tokens) as engine:
            async with asyncio.timeout(20):
                await asyncio.gather(*(client(engine, model, each) for each in arrivals))
        assert max(model.batches, default=0) <= min(capacity, most_rows)

    asyncio.run(main())


async def test_memory_that_waits_for_the_next_answer_is_given_back_once_none_has_come(monkeypatch):
    # Longer than a busy machine may take from one answer to the next.
    monkeypatch.setattr("worker.engine.batched.REST_SECONDS", 2)
    model = FakeBatchModel()
    async with running(model) as engine:
        for _ in range(3):
            await text_of(engine, ask("hello"))
        assert model.rests == [], "each came before the other's memory was given back"
        await until(lambda: model.rests)
        await asyncio.sleep(1)
        assert model.rests == [len(model.batches)], "once"
        await text_of(engine, ask("hello"))
        await until(lambda: len(model.rests) == 2)
        await text_of(engine, ask("hello"))
    await asyncio.sleep(2.5)
    assert len(model.rests) == 2, "an engine that is closed rests for good"
    assert model.threads == {"model", "prepare"}
