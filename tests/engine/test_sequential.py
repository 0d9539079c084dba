"""The sequential engine: one end for every request, whatever happens to it."""

import asyncio
import logging
import threading
from contextlib import aclosing
from dataclasses import replace

import pytest

from controller.protocol.chat import FinishReason
from controller.protocol.errors import (
    BadImageError,
    ContextLengthError,
    DeviceLostError,
    DrainingError,
    InternalError,
    OutOfMemoryError,
    QueueFullError,
)
from tests.engine import engines
from tests.engine.engines import events_of, text_of
from tests.engine.fake_model import FakeModel, ask
from tests.waiting import until
from worker.engine.protocol import Accepted, Finished, TextDelta
from worker.engine.sequential import SequentialEngine

pytestmark = pytest.mark.anyio


def running(model, **options):
    return engines.running(SequentialEngine, model, **{"max_waiting": 8, **options})


async def test_an_answer_is_accepted_told_and_finished():
    async with running(FakeModel()) as engine:
        first, *deltas, last = await events_of(engine, ask("hello there"))
    assert first == Accepted(prompt_tokens=2, image_tokens=0)
    assert "".join(delta.text for delta in deltas) == "You said: hello there"
    assert isinstance(last, Finished)
    assert last.reason is FinishReason.STOP
    assert last.usage.completion_tokens == len("You said: hello there") + 1
    assert last.usage.total_tokens == last.usage.completion_tokens + 2
    assert last.metrics.time_to_first_token_ms is not None


async def test_the_model_and_the_preparation_have_their_own_threads():
    model = FakeModel()
    async with running(model) as engine:
        await asyncio.gather(*(events_of(engine, ask(f"{i}")) for i in range(5)))
    assert model.threads == {"model", "prepare"}


async def test_requests_are_answered_in_the_order_of_their_arrival():
    model = FakeModel()
    async with running(model) as engine:
        texts = await asyncio.gather(*(text_of(engine, ask(f"{i}")) for i in range(5)))
    assert texts == [f"You said: {i}" for i in range(5)]
    assert model.started == ["0", "1", "2", "3", "4"]


async def test_a_full_queue_refuses_and_says_when_to_come_back():
    model = FakeModel(gate=threading.Event())
    async with running(model, max_waiting=1) as engine:
        first = asyncio.create_task(text_of(engine, ask("1")))
        await until(lambda: model.started)
        second = asyncio.create_task(text_of(engine, ask("2")))
        await until(lambda: engine.stats().waiting == 1)
        with pytest.raises(QueueFullError) as caught:
            await text_of(engine, ask("3"))
        assert caught.value.retry_after_seconds is not None
        model.gate.set()
        assert await first == "You said: 1"
        assert await second == "You said: 2"


async def test_a_stream_that_is_closed_ends_within_one_step():
    model = FakeModel(answer=lambda _: "x" * 10_000, step_seconds=0.02)
    async with running(model) as engine:
        async with aclosing(engine.generate(ask())) as events:
            async for event in events:
                if isinstance(event, TextDelta):
                    break
        steps = model.steps
        await until(lambda: engine.stats().running == 0)
        assert model.steps <= steps + 1


async def test_a_request_that_is_closed_while_it_waits_is_never_run():
    model = FakeModel(gate=threading.Event())
    async with running(model) as engine:
        first = asyncio.create_task(text_of(engine, ask("1")))
        await until(lambda: model.started)
        async with aclosing(engine.generate(ask("2"))) as waiting:
            assert isinstance(await anext(waiting), Accepted)
            assert engine.stats().waiting == 1
        assert engine.stats().waiting == 0
        model.gate.set()
        await first
    assert model.started == ["1"]


async def test_a_request_that_is_cancelled_while_it_is_prepared_leaves_nothing():
    model = FakeModel(prepare_seconds=0.2)
    async with running(model) as engine:
        task = asyncio.create_task(text_of(engine, ask("1")))
        await until(lambda: engine.stats().waiting == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert engine.stats().waiting == 0
        assert await text_of(engine, ask("2")) == "You said: 2"
    assert model.started == ["2"]


async def test_an_exception_in_one_request_fails_that_one_alone(caplog):
    model = FakeModel(error=ZeroDivisionError("a bug"), error_after=3)
    async with running(model) as engine:
        with pytest.raises(InternalError, match=r"ZeroDivisionError while generating.*req-7"):
            await events_of(engine, ask(request_id="req-7"))
        model.error = None
        assert await text_of(engine, ask("next")) == "You said: next"
    (record,) = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert "req-7" in record.getMessage()
    assert record.exc_info is not None


async def test_what_was_said_before_an_exception_arrives():
    model = FakeModel(error=OutOfMemoryError("8 GiB needed, 1 GiB free"), error_after=3)
    async with running(model) as engine:
        events = engine.generate(ask())
        assert [type(await anext(events)) for _ in range(4)] == [Accepted] + 3 * [TextDelta]
        with pytest.raises(OutOfMemoryError, match="8 GiB"):
            await anext(events)
        model.error = None
        assert await text_of(engine, ask("next")) == "You said: next"


async def test_a_failure_of_the_preparation_fails_that_request_alone():
    model = FakeModel(prepare_error=BadImageError("not an image"))
    async with running(model) as engine:
        with pytest.raises(BadImageError):
            await events_of(engine, ask())
        model.prepare_error = KeyError("a bug")
        with pytest.raises(InternalError, match="KeyError while preparing the prompt"):
            await events_of(engine, ask())
        model.prepare_error = None
        assert await text_of(engine, ask("next")) == "You said: next"
    assert model.started == ["next"]


async def test_a_lost_device_is_told_to_the_request_and_to_the_worker():
    reasons = []
    model = FakeModel(error=DeviceLostError("unspecified launch failure"))
    async with running(model, on_device_lost=reasons.append) as engine:
        with pytest.raises(DeviceLostError):
            await events_of(engine, ask())
    assert reasons == ["unspecified launch failure"]


async def test_a_prompt_that_fills_the_context_is_refused_with_its_length():
    model = FakeModel(context_length=3)
    async with running(model) as engine:
        with pytest.raises(ContextLengthError, match=r"has 4 tokens.*holds 3"):
            await events_of(engine, ask("one two three four"))
        with pytest.raises(ContextLengthError):
            await events_of(engine, ask("one two three"))
    assert model.started == []


async def test_without_max_tokens_an_answer_may_fill_the_context():
    model = FakeModel(answer=lambda _: "x" * 100, context_length=12)
    async with running(model) as engine:
        last = (await events_of(engine, ask("one two")))[-1]
        assert (last.reason, last.usage.total_tokens) == (FinishReason.LENGTH, 12)
        last = (await events_of(engine, ask("one two", max_tokens=1_000_000)))[-1]
        assert (last.reason, last.usage.total_tokens) == (FinishReason.LENGTH, 12)
        last = (await events_of(engine, ask("one two", max_tokens=3)))[-1]
        assert (last.reason, last.usage.completion_tokens) == (FinishReason.LENGTH, 3)


async def test_a_stop_string_ends_the_generation():
    model = FakeModel(answer=lambda _: "one###two" * 100)
    async with running(model) as engine:
        assert await text_of(engine, ask(stop=("###",))) == "one"
    assert model.steps == len("one###")


async def test_an_abort_ends_what_runs_and_what_waits():
    model = FakeModel(answer=lambda _: "x" * 10_000, step_seconds=0.005)
    async with running(model) as engine:
        first = asyncio.create_task(events_of(engine, ask("1")))
        await until(lambda: model.steps > 2)
        second = asyncio.create_task(events_of(engine, ask("2")))
        await until(lambda: engine.stats().waiting == 1)
        engine.abort_all()
        assert (await first)[-1].reason is FinishReason.ABORT
        with pytest.raises(DrainingError):
            await second


async def test_a_closed_engine_refuses():
    engine = SequentialEngine(FakeModel(), max_waiting=1)
    await engine.aclose()
    with pytest.raises(DrainingError):
        await events_of(engine, ask())


async def test_a_thousand_requests_closed_at_random_leave_nothing_behind():
    model = FakeModel()
    async with running(model, max_waiting=2_000) as engine:

        async def close_after(count):
            async with aclosing(engine.generate(ask("a few words"))) as events:
                for _ in range(count):
                    await anext(events)

        await asyncio.gather(*(close_after(i % 7) for i in range(1_000)))
        await until(lambda: engine.stats().running == 0)
        assert await text_of(engine, ask("last")) == "You said: last"


async def test_time_is_counted_from_the_arrival_at_the_process():
    now = 100.0
    async with running(FakeModel(), clock=lambda: now) as engine:
        last = (await events_of(engine, replace(ask(), arrived=97.5)))[-1]
    assert last.metrics.queue_time_ms == 2500
    assert last.metrics.time_to_first_token_ms == 2500


async def test_the_pace_of_recent_answers_is_known():
    model = FakeModel(step_seconds=0.002)
    async with running(model) as engine:
        assert engine.stats().tokens_per_second is None
        await events_of(engine, ask())
        stats = engine.stats()
    assert stats.tokens_per_second == pytest.approx(400, rel=0.6)
    assert stats.decode_steps == len("You said: hello")
