"""Requests that wait at the controller: who goes first, who is turned away, and with what words."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import httpx
import pytest

from controller.breaker import BreakerState
from controller.lines import UNKNOWN_PACE_SECONDS, Lines
from controller.protocol.errors import QueueFullError
from controller.protocol.fleet import WorkerLoad
from tests.controller.conftest import Fleet, question, running_controller
from tests.controller.mock_worker import Fault, MockWorker, Script
from tests.controller.test_registry import Clock
from tests.waiting import until

pytestmark = pytest.mark.anyio

WAITING = 'num_requests_waiting{model_name="demo"}'
ONE = WorkerLoad(capacity=1)  # two requests at a time: one runs, one is prepared


def held() -> tuple[Script, asyncio.Event]:
    """A worker that answers nothing before it is told to; and what tells it."""
    gate = asyncio.Event()
    return Script(gate=gate), gate


async def asked(fleet: Fleet, count: int) -> list[asyncio.Task[httpx.Response]]:
    """Requests that are with a worker or in line by now, in this order; none ends meanwhile."""
    tasks: list[asyncio.Task[httpx.Response]] = []
    before = await placed(fleet)
    for _ in range(count):
        tasks.append(asyncio.create_task(fleet.ask()))
        await reached(lambda: placed(fleet), before + len(tasks))
    return tasks


async def reached(figure: Callable[[], Awaitable[float]], value: float) -> None:
    """Waits until a figure of the controller is this."""
    async with asyncio.timeout(60):
        while await figure() != value:  # noqa: ASYNC110  # it is asked for over the wire
            await asyncio.sleep(0.002)


async def placed(fleet: Fleet) -> float:
    """How many requests are with a worker, or wait for one."""
    return await metric(fleet, WAITING) + sum(
        record.in_flight for record in fleet.registry.workers()
    )


async def metric(fleet: Fleet, name: str) -> float:
    """One that nobody has counted yet is 0."""
    text = (await fleet.client.get("/metrics")).text
    start = f"paragone_controller_{name}"
    line = next((x for x in text.splitlines() if x.startswith(start)), "0")
    return float(line.rpartition(" ")[2])


async def test_a_worker_gets_what_it_can_run_and_as_many_to_prepare_the_rest_waits_here(
    fleet: Fleet,
) -> None:
    script, gate = held()
    worker = await fleet.worker(script=script, load=ONE)
    tasks = await asked(fleet, 5)
    await until(lambda: len(worker.received) == 2)
    assert await metric(fleet, WAITING) == 3
    assert await metric(fleet, 'num_requests_running{model_name="demo"}') == 2
    gate.set()
    replies = await asyncio.gather(*tasks)
    assert {reply.status_code for reply in replies} == {200}
    assert len(worker.received) == 5
    assert await metric(fleet, 'request_queue_time_seconds_count{model_name="demo"}') == 3


async def test_who_came_first_goes_first(fleet: Fleet) -> None:
    script, gate = held()
    worker = await fleet.worker(script=script, load=ONE)
    tasks = await asked(fleet, 6)
    gate.set()
    replies = await asyncio.gather(*tasks)
    came = [request.headers["x-request-id"] for request in worker.received]
    # Two are with the worker together, and it may read either first.
    assert sorted(came[:2]) == sorted(reply.headers["x-request-id"] for reply in replies[:2])
    assert came[2:] == [reply.headers["x-request-id"] for reply in replies[2:]]


async def test_beyond_the_bound_it_is_a_429_with_a_reason_and_a_time() -> None:
    async with running_controller(max_queue=1) as fleet:
        script, gate = held()
        await fleet.worker(script=script, load=ONE)
        tasks = await asked(fleet, 3)
        refused = await fleet.ask()
        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "queue_full"
        assert refused.headers["x-error-code"] == "queue_full"
        assert int(refused.headers["retry-after"]) >= 1
        # One model's line is no other model's.
        await fleet.worker("other", models=["other"], script=Script())
        assert (await fleet.ask("other")).status_code == 200
        gate.set()
        for reply in await asyncio.gather(*tasks):
            assert reply.status_code == 200


async def test_who_waits_too_long_gets_a_503_that_says_so() -> None:
    async with running_controller(queue_seconds=0.2) as fleet:
        await fleet.worker(script=Script(fault=Fault.HANG), load=ONE)
        tasks = await asked(fleet, 2)
        refused = await fleet.ask()
        assert refused.status_code == 503
        assert refused.headers["x-error-code"] == "queue_timeout"
        assert "retry-after" in refused.headers
        for task in tasks:
            task.cancel()


async def test_a_new_worker_serves_who_waits_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controller.app.CHECK_SECONDS", 3600)  # no timer of the controller's own
    async with running_controller() as fleet:
        await fleet.worker("full", script=Script(fault=Fault.HANG), load=ONE)
        tasks = await asked(fleet, 3)
        await fleet.worker("fresh", load=ONE)
        async with asyncio.timeout(60):
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        assert done.pop().result().headers["x-worker-id"] == "fresh"
        for task in tasks:
            task.cancel()


async def test_who_waits_for_a_model_that_goes_gets_its_503(fleet: Fleet) -> None:
    worker = await fleet.worker(script=Script(fault=Fault.HANG), load=ONE)
    tasks = await asked(fleet, 3)
    await fleet.client.post("/fleet/drain", json={"worker_id": worker.worker_id})
    async with asyncio.timeout(60):
        reply = await tasks[2]
    assert reply.status_code == 503
    assert reply.headers["x-error-code"] == "no_live_worker"
    for task in tasks:
        task.cancel()


async def test_a_client_that_leaves_the_line_takes_nobodys_place(fleet: Fleet) -> None:
    script, gate = held()
    worker = await fleet.worker(script=script, load=ONE)
    tasks = await asked(fleet, 4)
    tasks[2].cancel()
    await reached(lambda: placed(fleet), 3)
    gate.set()
    assert (await tasks[3]).status_code == 200
    assert len(worker.received) == 3
    await asyncio.gather(*tasks[:2])


async def test_a_stream_that_waits_is_kept_open_and_then_answered(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controller.reply.Reply.keep_alive_seconds", 0.05)
    script, gate = held()
    await fleet.worker(script=script, load=ONE)
    tasks = await asked(fleet, 2)
    async with fleet.client.stream(
        "POST", "/v1/chat/completions", json=question(stream=True)
    ) as reply:
        assert reply.headers["content-type"] == "text/event-stream"
        pieces = reply.aiter_bytes()
        assert (await anext(pieces)).startswith(b": ping\n\n")
        gate.set()
        rest = b"".join([piece async for piece in pieces])
    assert rest.endswith(b"data: [DONE]\n\n")
    await asyncio.gather(*tasks)


async def test_a_request_that_was_with_a_lost_worker_goes_before_those_that_wait(
    fleet: Fleet,
) -> None:
    dying = MockWorker(worker_id="dying", script=Script(fault=Fault.HANG))
    await fleet.stack.enter_async_context(dying)
    await fleet.register(dying, load=ONE)
    first = (await asked(fleet, 1))[0]
    await until(lambda: dying.received)
    script, gate = held()
    other = await fleet.worker("other", script=script, load=ONE)
    filling = await asked(fleet, 4)
    await dying.die()
    # It is in line again, with all others but the two that the other worker has.
    await reached(lambda: metric(fleet, WAITING), 3)
    gate.set()
    await first
    # The two that ran already, then the one that moved, then those in line.
    order = [request.headers["x-request-id"] for request in other.received]
    assert order.index(first.result().headers["x-request-id"]) <= 3
    await asyncio.gather(*filling)


def test_retry_after_is_the_pace_of_late_times_the_line() -> None:
    clock = Clock()
    lines = Lines(max_waiting=2, clock=clock)
    assert lines.retry_after_seconds("m") == UNKNOWN_PACE_SECONDS
    for _ in range(5):
        lines.note_departure("m")
        clock.now += 2
    with lines.join("m", ahead=False), lines.join("m", ahead=False):
        with pytest.raises(QueueFullError) as caught, lines.join("m", ahead=False):
            pass
        # Five departures in ten seconds; two before it and itself.
        assert caught.value.retry_after_seconds == pytest.approx(7.5)
        with lines.join("m", ahead=True) as place:
            assert place.is_first


# Deadlines


@pytest.mark.parametrize(
    ("body", "headers"),
    [({"timeout": 0.2}, {}), ({}, {"x-request-timeout": "0.2"}), ({"timeout": 9}, None)],
)
async def test_an_answer_that_takes_too_long_is_a_504_and_the_worker_stops(
    body: dict, headers: dict | None
) -> None:
    settings = {"request_seconds": 0.2} if headers is None else {}
    async with running_controller(**settings) as fleet:
        worker = await fleet.worker(script=Script(fault=Fault.HANG))
        start = time.monotonic()
        reply = await fleet.client.post(
            "/v1/chat/completions", json=question(**body), headers=headers or {}
        )
        assert reply.status_code == 504
        assert reply.headers["x-error-code"] == "deadline_exceeded"
        assert time.monotonic() - start >= 0.2
        await until(worker.hung_up.is_set)
        assert await fleet.models() == ["demo"]  # slow is not hung


async def test_a_stream_that_takes_too_long_ends_in_an_error_event(fleet: Fleet) -> None:
    await fleet.worker(script=Script(words=["a"] * 1000, word_seconds=0.05))
    _, events = await fleet.stream(timeout=3)
    assert events[-1].event == "error"
    assert "deadline_exceeded" in events[-1].data
    assert len(events) > 1


async def test_a_deadline_passes_in_the_line_too(fleet: Fleet) -> None:
    await fleet.worker(script=Script(fault=Fault.HANG), load=ONE)
    tasks = await asked(fleet, 2)
    assert (await fleet.ask(timeout=0.1)).status_code == 504
    for task in tasks:
        task.cancel()


@pytest.mark.parametrize("said", ["soon", "0", "-1", "nan", "inf"])
async def test_a_timeout_that_is_no_time_is_a_400(fleet: Fleet, said: str) -> None:
    await fleet.worker()
    reply = await fleet.client.post(
        "/v1/chat/completions", json=question(), headers={"x-request-timeout": said}
    )
    assert reply.status_code == 400
    assert "x-request-timeout" in reply.json()["error"]["message"]


# The breaker and the budget, in the relay


async def test_a_worker_that_beats_and_fails_gets_one_probe_at_a_time(fleet: Fleet) -> None:
    bad = await fleet.worker("bad", script=Script(fault=Fault.AT_BYTE_ZERO))
    await fleet.worker("good", load=WorkerLoad(running=50, capacity=64))
    assert (await fleet.ask()).headers["x-worker-id"] == "good"
    await fleet.heartbeat(bad)  # it says it is well
    bad.script.fault = Fault.HANG
    probe = (await asked(fleet, 1))[0]
    await until(lambda: len(bad.received) == 2)
    others = await asyncio.gather(*(fleet.ask() for _ in range(5)))
    assert {reply.headers["x-worker-id"] for reply in others} == {"good"}
    assert len(bad.received) == 2
    probe.cancel()


async def test_a_worker_that_registers_anew_is_in_rotation_at_once_whatever_it_did(
    fleet: Fleet,
) -> None:
    bad = await fleet.worker("bad", script=Script(fault=Fault.AT_BYTE_ZERO))
    for _ in range(4):
        await fleet.ask()
        await fleet.heartbeat(bad)
    assert (await fleet.client.get("/fleet/workers")).json()["workers"][0]["suspect"]
    bad.script.fault = None
    await fleet.register(bad)
    assert await fleet.models() == ["demo"]
    assert (await fleet.ask()).status_code == 200


async def test_without_budget_nobody_is_tried_again(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controller.retry_budget.RetryBudget.spend", lambda _: False)
    for name in ("a", "b"):
        await fleet.worker(name, script=Script(fault=Fault.AT_BYTE_ZERO))
    assert (await fleet.ask()).status_code == 502
    assert await metric(fleet, 'relay_attempts_failed_total{reason="retry_budget"}') == 1


def test_the_states_of_a_breaker_are_named() -> None:
    assert {state.value for state in BreakerState} == {"closed", "open", "half_open"}
