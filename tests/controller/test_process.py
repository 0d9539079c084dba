"""The controller as a process, with workers as processes: signals, kills, restarts."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from controller.chassis.serve import listen
from tests.controller.conftest import question
from tests.controller.mock_worker import MockWorker, Script
from tests.ports import free_port

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]


@asynccontextmanager
async def process(*arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A Python module as a process, killed at the end if it is still there."""
    running = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        *arguments,
        cwd=ROOT,
        stderr=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        yield running
    finally:
        if running.returncode is None:
            running.kill()
        await running.communicate()


@asynccontextmanager
async def controller(*flags: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """A controller's process and its address."""
    async with process("controller", "--port", "0", "--log-format", "pretty", *flags) as running:
        assert running.stderr is not None
        while line := (await running.stderr.readline()).decode():
            if found := re.search(r"listens on (http://\S+)", line):
                break
        else:
            pytest.fail("the controller did not start")
        url = found.group(1)
        async with httpx.AsyncClient() as client:
            await eventually(client, f"{url}/health", lambda reply: reply.status_code == 200)
        yield running, url


async def eventually(client, url, condition, *, seconds: float = 60.0) -> None:
    """Asks until the condition holds."""
    async with asyncio.timeout(seconds):
        while True:
            try:
                if condition(await client.get(url)):
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.02)


def has_models(*names: str):
    return lambda reply: [entry["id"] for entry in reply.json()["data"]] == list(names)


def mock(url: str, worker_id: str, model: str, word_seconds: float = 0.02):
    return process("tests.controller.mock_worker", url, worker_id, model, str(word_seconds))


async def test_a_killed_workers_model_is_gone_and_its_stream_ends_in_an_error() -> None:
    async with (
        controller() as (_, url),
        mock(url, "one", "demo-1") as first,
        mock(url, "two", "demo-2"),
        httpx.AsyncClient(timeout=60) as client,
    ):
        await eventually(client, f"{url}/v1/models", has_models("demo-1", "demo-2"))
        async with client.stream(
            "POST", f"{url}/v1/chat/completions", json=question("demo-1", stream=True)
        ) as reply:
            lines = reply.aiter_lines()
            for _ in range(8):
                await anext(lines)
            first.send_signal(signal.SIGKILL)
            rest = [line async for line in lines]
        await eventually(client, f"{url}/v1/models", has_models("demo-2"))
        assert rest[-3] == "event: error"
        assert json.loads(rest[-2].removeprefix("data: "))["error"]["code"] == "worker_lost"
        assert "data: [DONE]" not in rest
        # Others go on, and the killed one is back as soon as it registers.
        other = await client.post(f"{url}/v1/chat/completions", json=question("demo-2"))
        assert other.status_code == 200
        async with mock(url, "three", "demo-1"):
            await eventually(client, f"{url}/v1/models", has_models("demo-1", "demo-2"))


async def test_a_killed_idle_workers_model_is_gone() -> None:
    async with (
        controller() as (_, url),
        mock(url, "one", "demo") as worker,
        httpx.AsyncClient(timeout=60) as client,
    ):
        await eventually(client, f"{url}/v1/models", has_models("demo"))
        worker.kill()
        await eventually(client, f"{url}/v1/models", has_models())


async def test_a_stopped_workers_requests_go_elsewhere_and_none_fails() -> None:
    async with (
        controller() as (_, url),
        mock(url, "hung", "demo", 0.0) as hung,
        mock(url, "other", "demo", 0.0),
        httpx.AsyncClient(timeout=60) as client,
    ):
        await eventually(client, f"{url}/fleet/workers", lambda r: len(r.json()["workers"]) == 2)
        hung.send_signal(signal.SIGSTOP)

        async def ask() -> tuple[int, str]:
            reply = await client.post(f"{url}/v1/chat/completions", json=question())
            return reply.status_code, reply.headers["x-worker-id"]

        at_once = await asyncio.gather(*(ask() for _ in range(8)))
        assert set(at_once) == {(200, "other")}
        # Those that come later are not tried there at all.
        fleet = (await client.get(f"{url}/fleet/workers")).json()["workers"]
        assert all(each["suspect"] for each in fleet if each["worker_id"] == "hung")
        assert {await ask() for _ in range(4)} == {(200, "other")}

        # Once it goes on, it is heard of and asked again.
        hung.send_signal(signal.SIGCONT)
        async with asyncio.timeout(60):
            while (await ask())[1] != "hung":
                pass


async def test_a_restarted_controller_knows_its_workers_by_their_next_heartbeat() -> None:
    port = str(free_port())
    async with (
        controller("--port", port) as (first, url),
        mock(url, "one", "demo"),
        httpx.AsyncClient(timeout=60) as client,
    ):
        await eventually(client, f"{url}/v1/models", has_models("demo"))
        first.kill()
        await first.wait()
        async with controller("--port", port):
            await eventually(client, f"{url}/v1/models", has_models("demo"))


async def test_sigterm_turns_requests_away_lets_streams_finish_and_exits_0() -> None:
    async with (
        controller("--grace-seconds", "100") as (running, url),
        MockWorker(script=Script(endless_bytes=1, word_seconds=0.01)) as worker,
        httpx.AsyncClient(timeout=60) as client,
    ):
        message = worker.registration().model_dump(mode="json")
        await client.post(f"{url}/fleet/register", json=message)
        async with client.stream(
            "POST", f"{url}/v1/chat/completions", json=question(stream=True)
        ) as reply:
            lines = reply.aiter_lines()
            await anext(lines)
            running.terminate()
            await eventually(client, f"{url}/ready", lambda reply: reply.status_code == 503)
            assert (await client.get(f"{url}/health")).status_code == 200
            turned_away = await client.post(f"{url}/v1/chat/completions", json=question())
            assert turned_away.status_code == 503
            assert turned_away.json()["error"]["code"] == "draining"
            worker.script.endless_bytes = 0  # it has said all
            rest = [line async for line in lines if line]
        assert rest[-1] == "data: [DONE]"
        async with asyncio.timeout(60):
            assert await running.wait() == 0


async def test_a_stream_that_outlasts_the_grace_ends_in_an_error_event() -> None:
    async with (
        controller("--grace-seconds", "1") as (running, url),
        mock(url, "one", "demo", 0.5),
        httpx.AsyncClient(timeout=60) as client,
    ):
        await eventually(client, f"{url}/v1/models", has_models("demo"))
        async with client.stream(
            "POST", f"{url}/v1/chat/completions", json=question(stream=True)
        ) as reply:
            lines = reply.aiter_lines()
            await anext(lines)
            running.terminate()
            rest = [line async for line in lines if line]
        assert rest[-2] == "event: error"
        assert json.loads(rest[-1].removeprefix("data: "))["error"]["code"] == "draining"
        async with asyncio.timeout(60):
            assert await running.wait() == 0


async def test_an_idle_controller_stops_at_once() -> None:
    async with controller("--grace-seconds", "1000") as (running, _):
        running.terminate()
        async with asyncio.timeout(60):
            assert await running.wait() == 0


async def test_a_taken_port_is_said_before_anything_starts() -> None:
    with listen("127.0.0.1", 0) as sock:
        sock.listen()
        port = str(sock.getsockname()[1])
        async with process("controller", "--port", port) as running:
            _, stderr = await running.communicate()
    assert running.returncode == 1
    assert f"port {port} on 127.0.0.1 is taken" in stderr.decode()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "example.org"])
async def test_it_listens_beyond_this_machine_only_if_told_so_in_words(host: str) -> None:
    async with process("controller", "--host", host, "--port", "0") as running:
        _, stderr = await running.communicate()
    assert running.returncode == 2
    assert "--allow-anonymous-network-access" in stderr.decode()


async def test_settings_come_from_the_environment_too() -> None:
    environment = {**os.environ, "PARAGONE_CONTROLLER_DISPATCH_METHOD": "roulette"}
    running = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "controller",
        env=environment,
        cwd=ROOT,
        stderr=asyncio.subprocess.PIPE,
    )
    _, stderr = await running.communicate()
    assert running.returncode == 2
    assert "PARAGONE_CONTROLLER_DISPATCH_METHOD" in stderr.decode()
    assert "'roulette'" in stderr.decode()
