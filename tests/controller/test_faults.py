"""Faults that only real processes and real sockets have: kills, stops, silence, floods, clocks."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import psutil
import pytest

from controller.app import create_app
from controller.settings import ControllerSettings
from tests.controller.conftest import Fleet, question, running_controller
from tests.controller.mock_worker import Fault, MockWorker, Script
from tests.controller.test_process import ROOT, controller, eventually, has_models, mock
from tests.waiting import until

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def mock_that_stands_still(
    url: str, worker_id: str, fault: Fault
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A worker's process that says so on its output when it has come to the fault."""
    running = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.controller.mock_worker", url, worker_id, "demo", "0.0", fault,
        cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield running
    finally:
        with contextlib.suppress(ProcessLookupError):
            running.kill()
        await running.communicate()


async def kill_at_the_fault(process: asyncio.subprocess.Process) -> None:
    assert process.stdout is not None
    async with asyncio.timeout(60):
        assert await process.stdout.readline() == b"standing still\n"
    process.kill()


async def fleet_has(client: httpx.AsyncClient, url: str, count: int) -> None:
    await eventually(client, f"{url}/fleet/workers", lambda r: len(r.json()["workers"]) == count)


async def ask(client: httpx.AsyncClient, url: str) -> httpx.Response:
    return await client.post(f"{url}/v1/chat/completions", json=question(stream=True))


@pytest.mark.parametrize("fault", [Fault.AT_BYTE_ZERO, Fault.AFTER_HEADERS, Fault.AFTER_PING])
async def test_kill_9_before_the_first_word_is_not_noticed_by_the_client(fault: Fault) -> None:
    async with (
        controller() as (_, url),
        mock_that_stands_still(url, "dying", fault) as dying,
        httpx.AsyncClient(timeout=60) as client,
    ):
        await fleet_has(client, url, 1)
        asking = asyncio.create_task(ask(client, url))
        assert dying.stdout is not None
        async with mock(url, "other", "demo", 0.0):
            await fleet_has(client, url, 2)
            await kill_at_the_fault(dying)
            reply = await asking
            assert reply.status_code == 200
            assert reply.text.endswith("data: [DONE]\n\n")
            assert " 199" in reply.text
            assert "event: error" not in reply.text


@pytest.mark.parametrize("fault", [Fault.MID_EVENT, Fault.BEFORE_DONE])
async def test_kill_9_after_the_first_word_is_an_error_and_the_next_request_is_served(
    fault: Fault,
) -> None:
    async with (
        controller() as (_, url),
        mock_that_stands_still(url, "dying", fault) as dying,
        httpx.AsyncClient(timeout=60) as client,
    ):
        await fleet_has(client, url, 1)
        asking = asyncio.create_task(ask(client, url))
        await kill_at_the_fault(dying)
        reply = await asking
        *_, kind, data = [line for line in reply.text.splitlines() if line]
        assert kind == "event: error"
        assert json.loads(data.removeprefix("data: "))["error"]["code"] == "worker_lost"
        assert "[DONE]" not in reply.text
        # What came before is whole events.
        for line in reply.text.splitlines()[:-3]:
            assert not line or json.loads(line.removeprefix("data: "))
        async with mock(url, "next", "demo", 0.0):
            await eventually(client, f"{url}/v1/models", has_models("demo"))
            assert (await ask(client, url)).text.endswith("data: [DONE]\n\n")


async def test_kill_9_after_done_is_no_error() -> None:
    async with (
        controller() as (_, url),
        mock_that_stands_still(url, "dying", Fault.BEFORE_TERMINATOR) as dying,
        httpx.AsyncClient(timeout=60) as client,
    ):
        await fleet_has(client, url, 1)
        asking = asyncio.create_task(ask(client, url))
        await kill_at_the_fault(dying)
        assert (await asking).text.endswith("data: [DONE]\n\n")


async def test_a_killed_controllers_workers_stop_at_once() -> None:
    async with (
        controller() as (running, url),
        MockWorker(script=Script(words=["a"] * 10_000, word_seconds=0.02)) as worker,
        httpx.AsyncClient(timeout=60) as client,
    ):
        message = worker.registration().model_dump(mode="json")
        await client.post(f"{url}/fleet/register", json=message)
        asking = [asyncio.create_task(ask(client, url)) for _ in range(4)]
        await until(lambda: worker.open_answers == 4)
        running.kill()
        await until(lambda: worker.open_answers == 0)
        for result in await asyncio.gather(*asking, return_exceptions=True):
            assert isinstance(result, httpx.TransportError)


async def test_a_controller_that_stood_still_knows_its_workers_when_it_goes_on() -> None:
    async with (
        controller() as (running, url),
        MockWorker() as worker,
        httpx.AsyncClient(timeout=60) as client,
    ):
        # It never beats again: what the controller knows of it afterwards is by its own doing.
        message = worker.registration(heartbeat_seconds=1.5).model_dump(mode="json")
        await client.post(f"{url}/fleet/register", json=message)
        running.send_signal(signal.SIGSTOP)
        await asyncio.sleep(5)  # longer than a lease
        running.send_signal(signal.SIGCONT)
        async with asyncio.timeout(60):
            while not (await ask(client, url)).text.endswith("data: [DONE]\n\n"):
                pass


async def test_readers_that_do_not_read_cost_the_controller_next_to_nothing() -> None:
    async with (
        controller() as (running, url),
        MockWorker(script=Script(endless_bytes=65_536)) as worker,
        httpx.AsyncClient(timeout=60) as client,
        contextlib.AsyncExitStack() as stack,
    ):
        message = worker.registration().model_dump(mode="json")
        await client.post(f"{url}/fleet/register", json=message)
        process = psutil.Process(running.pid)
        before = process.memory_info().rss
        for _ in range(2):
            reply = await stack.enter_async_context(
                client.stream("POST", f"{url}/v1/chat/completions", json=question(stream=True))
            )
            assert reply.status_code == 200
        written = -1
        while worker.bytes_written > written:  # until all buffers on the way are full
            written = worker.bytes_written
            await asyncio.sleep(0.5)
        assert process.memory_info().rss - before < 16 * 2**20


# Clients that come and say nothing, or little, or too much


async def test_half_sent_requests_block_nobody_and_are_given_up(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controller.chassis.head_guard.HEAD_SECONDS", 0.5)
    await fleet.worker()
    host, port = httpx.URL(fleet.url).host, httpx.URL(fleet.url).port
    heads = [b"", b"POST /v1/ch", b"GET /health HTTP/1.1\r\nhost: x\r\nx-a: "]
    loris = []
    for number in range(150):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(heads[number % 3])
        loris.append((reader, writer))
    assert (await fleet.ask()).status_code == 200
    async with asyncio.timeout(60):
        for reader, writer in loris:
            while await reader.read(1000):  # a byte now and then does not help
                pass
            writer.close()
    assert (await fleet.ask()).status_code == 200


async def test_a_head_without_an_end_is_a_400_and_held_by_nobody(fleet: Fleet) -> None:
    reader, writer = await asyncio.open_connection(
        httpx.URL(fleet.url).host, httpx.URL(fleet.url).port
    )
    writer.write(b"GET /health HTTP/1.1\r\n")
    with contextlib.suppress(ConnectionError):
        for number in range(20):
            writer.write(b"x-%d: %b\r\n" % (number, b"a" * 8000))
            await writer.drain()
        assert (await reader.read(12)) == b"HTTP/1.1 400"
    writer.close()
    assert (await fleet.client.get("/health")).status_code == 200


async def test_a_slow_head_within_its_time_is_answered(fleet: Fleet) -> None:
    reader, writer = await asyncio.open_connection(
        httpx.URL(fleet.url).host, httpx.URL(fleet.url).port
    )
    for byte in b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n":
        writer.write(bytes([byte]))
        await asyncio.sleep(0.005)
    assert (await reader.read(12)) == b"HTTP/1.1 200"
    writer.close()


# Workers that are there and not there


async def test_a_host_that_accepts_nothing_is_passed_over_in_the_time_to_connect() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        filling = []
        for _ in range(4):  # until its backlog is: what comes later gets no answer at all
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(address)
            filling.append(filler)
        async with running_controller(connect_seconds=0.3) as fleet:
            gone = MockWorker(worker_id="gone", port=address[1])
            await fleet.register(gone)
            await fleet.worker("other", load=gone.registration().status.load.model_copy(
                update={"running": 50}
            ))  # fmt: skip
            reply = await fleet.ask()
            assert reply.headers["x-worker-id"] == "other"
        for filler in filling:
            filler.close()


async def test_two_workers_at_one_address_are_told_of_each_other(fleet: Fleet) -> None:
    first = await fleet.worker("first")
    second = MockWorker(worker_id="second", port=first.port)
    await fleet.register(second)
    reply = await fleet.heartbeat(first)
    assert reply.status_code == 409
    assert "--worker-address" in reply.json()["error"]["message"]
    assert (await fleet.ask()).headers["x-worker-id"] == "second"


@pytest.mark.parametrize("jump", [-1e9, -3600, 3600, 1e9])
async def test_a_wall_clock_that_jumps_moves_no_lease(jump: float) -> None:
    wall = [1_800_000_000.0]
    app = create_app(ControllerSettings(port=0), wall_clock=lambda: wall[0])
    worker = MockWorker(port=9)
    app.registry.register(worker.registration())
    wall[0] += jump
    assert [entry.id for entry in app.registry.models().data] == ["demo"]
    assert app.registry.expire() == []
    app.registry.register(worker.registration(models=["late"]))
    assert app.registry.models().data[0].created == int(wall[0])
