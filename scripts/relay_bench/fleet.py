"""What a large fleet costs our controller: heartbeats, and the list of models meanwhile."""

from __future__ import annotations

import asyncio
import math
import os
import platform
import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime

from controller.protocol.fleet import (
    LoadProgress,
    ModelCard,
    ModelFacts,
    RegisterRequest,
    WorkerLoad,
    WorkerState,
    WorkerStatus,
)
from relay_bench import load
from relay_bench.relays import Relay, free_port, pinned, relay_arguments, until_ok

LIST_EVERY_SECONDS = 0.05  # as twenty pages and clients that ask once a second


@dataclass(frozen=True, slots=True)
class FleetFigures:
    """What was measured; ``list_seconds`` are the times of each list of models, sorted."""

    num_workers: int
    beat_seconds: float
    seconds: float
    cpu_seconds: float
    beats: int
    list_seconds: Sequence[float]

    def report(self) -> str:
        """As Markdown."""
        p99 = self.list_seconds[math.ceil(len(self.list_seconds) * 0.99) - 1]
        rows = {
            "heartbeats that came, /s": self.beats / self.seconds,
            "of a core, %": self.cpu_seconds / self.seconds * 100,
            "list of models, median, ms": statistics.median(self.list_seconds) * 1e3,
            "list of models, p99, ms": p99 * 1e3,
            "list of models, slowest, ms": self.list_seconds[-1] * 1e3,
        }
        about = (
            f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, Python "
            f"{platform.python_version()}, {self.seconds:.0f} s; {self.num_workers} workers with a "
            f"model each, a heartbeat every {self.beat_seconds:g} s"
        )
        table = [f"| {title} | {figure:.1f} |" for title, figure in rows.items()]
        return "\n".join([about, "", "| measure | paragone |", "|---|---|", *table])


async def measure(num_workers: int, beat_seconds: float, seconds: float) -> FleetFigures:
    """Measures our controller, pinned to a core, for so many seconds."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, set(cores[1:]) or set(cores))
    port = free_port()
    arguments = relay_arguments(None, port, [])
    async with pinned(arguments, {cores[0]}) as process:
        await until_ok(f"http://127.0.0.1:{port}/health")
        target = Relay("paragone", port, process)
        with ExitStack() as connections:
            workers = []
            for number in range(num_workers):
                client = connections.enter_context(closing(await load.connect(port)))
                await client.ask(_post("/fleet/register", _said_by(number, beat_seconds)))
                workers.append(client)
            beats = [0] * num_workers
            beating = [
                asyncio.create_task(_beat(number, client, beat_seconds, beats))
                for number, client in enumerate(workers)
            ]
            try:
                await asyncio.sleep(beat_seconds)  # until all have begun
                before, began, came = target.cpu_seconds(), time.monotonic(), sum(beats)
                lists = await _list_models(port, seconds)
                passed = time.monotonic() - began
                used, came = target.cpu_seconds() - before, sum(beats) - came
            finally:
                for task in beating:
                    task.cancel()
                ended = await asyncio.gather(*beating, return_exceptions=True)
        for outcome in ended:  # a worker that was refused would make it look cheap
            if isinstance(outcome, load.LoadError):
                raise outcome
    return FleetFigures(num_workers, beat_seconds, passed, used, came, lists)


async def _beat(number: int, client: load.Client, beat_seconds: float, beats: list[int]) -> None:
    loop = asyncio.get_running_loop()
    message = _post("/fleet/heartbeat", _said_by(number, beat_seconds))
    due = loop.time() + beat_seconds * (number * 0.618 % 1)  # spread, as real ones are
    while True:
        await asyncio.sleep(due - loop.time())
        await client.ask(message)
        beats[number] += 1
        due += beat_seconds


async def _list_models(port: int, seconds: float) -> list[float]:
    """How long each list took, sorted."""
    times = []
    end = time.monotonic() + seconds
    with closing(await load.connect(port)) as client:
        while (start := time.monotonic()) < end:
            await client.ask(b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n")
            times.append(time.monotonic() - start)
            await asyncio.sleep(LIST_EVERY_SECONDS)
    return sorted(times)


def _said_by(number: int, beat_seconds: float) -> RegisterRequest:
    """As much as a worker of ours says with each beat."""
    card = ModelCard(
        name=f"lab/model-{number}",
        dtype="bfloat16",
        architecture="LlavaForConditionalGeneration",
        format="llava",
        context_length=4096,
        image_tokens=576,
        parameters=7_062_902_784,
        weight_bytes=14_125_805_568,
        facts=ModelFacts(
            language_model="llama",
            vision_tower="clip_vision_model",
            projector="mlp2x_gelu",
            template="vicuna_v1",
            sample_prompt="A chat between a curious user and an assistant. USER: <image>",
            parameters_by_part={"language model": 6_738_415_616, "vision tower": 303_507_456},
            image_tokens={"336x336": 576},
            weight_bytes={"bfloat16": 14_125_805_568, "8bit": 7_500_000_000},
            devices=["cuda:0"],
        ),
        engine="batched",
    )
    work = WorkerLoad(
        running=number % 7,
        capacity=16,
        tokens_per_second=640.0,
        memory_bytes=3 * 2**30,
        device_memory_bytes=20 * 2**30,
        kv_use=0.25,
        cache_hit_rate=0.5,
        uptime_seconds=3600.0,
    )
    progress = LoadProgress(phase="ready", fraction=1.0)
    return RegisterRequest(
        worker_id=f"bench-{number}",
        address=f"http://127.0.0.1:{20_000 + number}",
        heartbeat_seconds=beat_seconds,
        version="0.1.0",
        status=WorkerStatus(state=WorkerState.READY, models=[card], load=work, progress=progress),
    )


def _post(path: str, message: RegisterRequest) -> bytes:
    body = message.model_dump_json().encode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
