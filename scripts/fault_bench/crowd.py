"""Many workers that beat, and the model list meanwhile; of our controller alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from relay_bench.load import Client, connect

from controller.protocol.fleet import (
    ModelCard,
    RegisterRequest,
    WorkerLoad,
    WorkerState,
    WorkerStatus,
)
from fault_bench.scene import Scene, Subject, scene

WORKERS = 1000
MODELS = 100  # each served by as many of them
HEARTBEAT_SECONDS = 5.0
WATCHED_SECONDS = 20.0
LOOK_SECONDS = 0.05
LOOK = b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n"


def _beat(number: int) -> bytes:
    status = WorkerStatus(
        state=WorkerState.READY,
        models=[ModelCard(name=f"model-{number % MODELS}", size_bytes=7_000_000_000)],
        load=WorkerLoad(running=number % 7, capacity=8, tokens_per_second=100.0 + number % 13),
    )
    message = RegisterRequest(
        worker_id=f"worker-{number:032x}",
        address=f"http://127.0.0.1:{10_000 + number}",
        heartbeat_seconds=HEARTBEAT_SECONDS,
        version="0",
        status=status,
    )
    body = message.model_dump_json(exclude_none=True).encode()
    head = (
        "POST /fleet/heartbeat HTTP/1.1\r\nhost: localhost\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def _keep(client: Client, message: bytes) -> None:
    while True:
        await client.ask(message)
        await asyncio.sleep(HEARTBEAT_SECONDS)


async def crowd(subject: Subject) -> Mapping[str, float | str | None]:
    """A thousand workers, each on a connection of its own, spread evenly over their interval."""
    if subject.command is not None:
        return {}
    async with scene(subject, workers=0) as (made, _client), asyncio.TaskGroup() as tasks:
        beating = []
        for number in range(WORKERS):
            client = await connect(made.port)
            beating.append(tasks.create_task(_keep(client, _beat(number))))
            await asyncio.sleep(HEARTBEAT_SECONDS / WORKERS)
        times, busy = await _watch(made)
        for each in beating:
            each.cancel()
    times.sort()
    return {
        "ms for the model list, 99th percentile": times[int(len(times) * 0.99)] * 1e3,
        "of one core, %": busy * 100,
    }


async def _watch(made: Scene) -> tuple[list[float], float]:
    """Seconds for each model list, and the share of a core that the controller took."""
    client = await connect(made.port)
    times = []
    cpu, start = made.relay_cpu_seconds(), time.monotonic()
    while time.monotonic() - start < WATCHED_SECONDS:
        asked = time.monotonic()
        answer = await client.ask(LOOK)
        times.append(time.monotonic() - asked)
        if answer.count(b'"object":"model"') != MODELS:
            raise RuntimeError("the model list is not whole")
        await asyncio.sleep(LOOK_SECONDS)
    client.close()
    return times, (made.relay_cpu_seconds() - cpu) / (time.monotonic() - start)
