"""The relays that are measured, each as a process pinned to a core of its own."""

from __future__ import annotations

import asyncio
import os
import shlex
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
import psutil

from controller.protocol.fleet import (
    ModelCard,
    RegisterRequest,
    WorkerLoad,
    WorkerState,
    WorkerStatus,
)
from relay_bench.worker import MODELS

OURS = "paragone"
START_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Relay:
    """A relay that runs; ``process`` is None for none at all, the worker asked directly."""

    name: str
    port: int
    process: psutil.Process | None

    def cpu_seconds(self) -> float:
        """CPU time so far, user and system, of the process and its children."""
        return sum(sum(p.cpu_times()[:2]) for p in self._family())

    def resident_bytes(self) -> int:
        """Resident memory of the process and its children."""
        return sum(int(p.memory_info().rss) for p in self._family())

    def _family(self) -> list[psutil.Process]:
        if self.process is None:
            return []
        return [self.process, *self.process.children(recursive=True)]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@asynccontextmanager
async def pinned(command: list[str], cores: set[int]) -> AsyncIterator[psutil.Process]:
    """A process on the given cores, ended at the end."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    try:
        yield psutil.Process(process.pid)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


@asynccontextmanager
async def bench_worker(cores: set[int], chunks_per_second: float) -> AsyncIterator[int]:
    """The worker; its port."""
    port = free_port()
    command = [sys.executable, "-m", "relay_bench.worker", str(port), str(chunks_per_second)]
    async with pinned(command, cores):
        await until_ok(f"http://127.0.0.1:{port}/v1/models")
        yield port


def relay_arguments(command: str | None, port: int, workers: Sequence[str]) -> list[str]:
    """A relay's command line; arguments as of `relay`, of several workers' addresses."""
    if command is None:
        return [
            *(sys.executable, "-m", "controller"),
            *("--port", str(port), "--log-level", "warning"),
        ]
    return shlex.split(command.format(port=port, worker=" ".join(workers)))


@asynccontextmanager
async def relay(
    name: str, command: str | None, worker_port: int, core: int
) -> AsyncIterator[Relay]:
    """A relay in front of the worker.

    Args:
        name: what it is called in the report; `OURS` is started and told of the worker.
        command: how a peer is started, with ``{port}`` and ``{worker}`` (an address) in it.
        worker_port: where the worker listens.
        core: the core that it is pinned to.
    """
    port = free_port()
    worker = f"http://127.0.0.1:{worker_port}"
    async with pinned(relay_arguments(command, port, [worker]), {core}) as process:
        await until_ok(f"http://127.0.0.1:{port}/v1/models")
        if command is None:
            await _register(port, worker)
        yield Relay(name, port, process)


async def _register(port: int, worker: str) -> None:
    status = WorkerStatus(
        state=WorkerState.READY,
        models=[ModelCard(name=name) for name in MODELS],
        load=WorkerLoad(capacity=1024),
    )
    message = RegisterRequest(
        worker_id="bench", address=worker, heartbeat_seconds=300, version="0", status=status
    )
    async with httpx.AsyncClient() as client:
        reply = await client.post(
            f"http://127.0.0.1:{port}/fleet/register", json=message.model_dump(mode="json")
        )
        reply.raise_for_status()


async def until_ok(url: str) -> None:
    """Asks until the answer is a success."""
    async with asyncio.timeout(START_SECONDS), httpx.AsyncClient() as client:
        while True:
            try:
                if (await client.get(url)).is_success:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.05)
