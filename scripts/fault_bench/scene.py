"""A relay and its workers, each a process that can be stopped, killed and started again."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import httpx
import psutil
from relay_bench.load import get
from relay_bench.relays import free_port, pinned, relay_arguments, until_ok

_log = logging.getLogger(__name__)

CHUNKS_PER_SECOND = 100.0
# A client's own patience; what takes longer has failed. Pages and SDKs wait longer, users do not.
CLIENT_SECONDS = 10.0
WARM_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Subject:
    """What is measured: a name, and how a peer is started; None is our own controller."""

    name: str
    command: str | None


class Scene:
    """One relay before several workers. Made by `scene`."""

    def __init__(self, subject: Subject, workers: int, stack: AsyncExitStack) -> None:
        self.port = free_port()
        self.worker_ports = [free_port() for _ in range(workers)]
        self.url = f"http://127.0.0.1:{self.port}"
        self._subject = subject
        self._stack = stack
        self._relay: psutil.Process
        self._workers: dict[int, psutil.Process] = {}

    async def start_worker(self, position: int) -> None:
        """Starts a worker, or starts it again, and returns once it listens."""
        port = self.worker_ports[position]
        command = [sys.executable, "-m", "fault_bench.worker", str(port), str(CHUNKS_PER_SECOND)]
        if self._subject.command is None:
            command.append(self.url)
        self._workers[position] = await self._start(command)
        await until_ok(f"http://127.0.0.1:{port}/count")

    async def start_relay(self) -> None:
        """Starts the relay, or starts it again; it need not listen yet."""
        addresses = [f"http://127.0.0.1:{port}" for port in self.worker_ports]
        self._relay = await self._start(
            relay_arguments(self._subject.command, self.port, addresses)
        )

    async def _start(self, command: list[str]) -> psutil.Process:
        started = pinned(command, os.sched_getaffinity(0))
        process = await self._stack.enter_async_context(started)
        # A stopped process obeys no SIGTERM, and one that goes on would be measured once more.
        self._stack.callback(_kill, process)
        return process

    def stop_worker(self, position: int) -> None:
        """Lets a worker stand still: it accepts connections, and answers nothing."""
        self._workers[position].send_signal(signal.SIGSTOP)

    def kill_worker(self, position: int) -> None:
        """As the kernel does when memory is out."""
        _kill(self._workers[position])

    def kill_relay(self) -> None:
        """Likewise, with all that it has started."""
        _kill(self._relay)

    async def requests_at(self, position: int) -> int:
        """How many a worker has seen; None of them are questions after its health."""
        counts = json.loads(await get(self.worker_ports[position], "/count"))
        return int(counts["requests"])

    async def until_all_serve(self, client: httpx.AsyncClient) -> None:
        """Asks until each worker was given a request."""
        async with asyncio.timeout(WARM_SECONDS):
            for position in range(len(self.worker_ports)):
                while not await self.requests_at(position):
                    await asks_well(client, self.url)
                    await asyncio.sleep(0.02)


def _kill(process: psutil.Process) -> None:
    try:
        family = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for each in family:
        try:
            each.kill()
        except psutil.NoSuchProcess:
            continue


@asynccontextmanager
async def scene(
    subject: Subject, *, workers: int
) -> AsyncIterator[tuple[Scene, httpx.AsyncClient]]:
    """A relay that gives requests to each of its workers, and a client. All is ended at the end."""
    limits = httpx.Limits(max_connections=None)
    async with AsyncExitStack() as stack:
        made = Scene(subject, workers, stack)
        for position in range(workers):
            await made.start_worker(position)
        await made.start_relay()
        client = httpx.AsyncClient(timeout=CLIENT_SECONDS, trust_env=False, limits=limits)
        await stack.enter_async_context(client)
        await until_ok(f"{made.url}/v1/models")
        await made.until_all_serve(client)
        yield made, client


def question(chunks: int) -> dict[str, object]:
    """A streamed request for so many chunks."""
    messages = [{"role": "user", "content": "hello"}]
    return {"model": "bench", "stream": True, "max_tokens": chunks, "messages": messages}


async def asks_well(client: httpx.AsyncClient, url: str) -> bool:
    """Whether a short answer comes whole, within a client's patience; else why not is logged."""
    try:
        async with asyncio.timeout(CLIENT_SECONDS):
            reply = await client.post(f"{url}/v1/chat/completions", json=question(10))
    except (httpx.HTTPError, TimeoutError) as exc:
        _log.info("%s: %s", url, str(exc) or type(exc).__name__)
        return False
    if reply.is_success and "[DONE]" in reply.text and '"error"' not in reply.text:
        return True
    _log.info("%s: %d %s", url, reply.status_code, reply.text[-300:])
    return False
