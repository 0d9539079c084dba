"""Asks a worker of each engine the same, in turns, and prints a Markdown table of tokens/s."""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx
from PIL import Image

from controller.chassis.serve import listen
from engine_bench import cost
from engine_bench.checkpoint import make_checkpoint

ENGINES = ("sequential", "batched")
START_SECONDS = 180.0


class BenchError(Exception):
    """A worker did not do what it should."""


@asynccontextmanager
async def worker(folder: Path, engine: str, capacity: int) -> AsyncIterator[httpx.AsyncClient]:
    """A worker process on a free port, once it is ready."""
    with listen("127.0.0.1", 0) as sock:
        port = sock.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "worker", "--no-register", "--device", "cpu"),
        *("--model-path", str(folder), "--model-name", "bench", "--port", str(port)),
        *("--engine", engine, "--limit-model-concurrency", str(capacity)),
        stderr=asyncio.subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        async with httpx.AsyncClient(base_url=url, timeout=600, trust_env=False) as client:
            until = time.monotonic() + START_SECONDS
            while not await _is_ready(client):
                if process.returncode is not None or time.monotonic() > until:
                    raise BenchError(f"the {engine} worker did not become ready")
                await asyncio.sleep(0.2)
            yield client
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _is_ready(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/ready")).status_code == 200
    except httpx.TransportError:
        return False


def question(index: int) -> dict[str, object]:
    """The request of this number: a picture of its own, an answer of 16 to 64 tokens."""
    picture = io.BytesIO()
    pixels = random.Random(index).randbytes(3 * 160 * 120)
    Image.frombytes("RGB", (160, 120), pixels).save(picture, "PNG")
    url = "data:image/png;base64," + base64.b64encode(picture.getvalue()).decode()
    text = "What is in this picture? " * (1 + index % 4)
    content = [
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "text", "text": text},
    ]
    return {
        "model": "bench",
        "messages": [{"role": "user", "content": content}],
        "temperature": 0,
        "max_tokens": 16 + 16 * (index % 4),
    }


async def load(
    client: httpx.AsyncClient, questions: list[dict[str, object]], concurrency: int
) -> tuple[float, list[str]]:
    """Completion tokens a second of all clients together, and the answers."""
    waiting = iter(range(len(questions)))
    answers = [""] * len(questions)
    tokens = 0

    async def one_client() -> None:
        nonlocal tokens
        for index in waiting:
            reply = await client.post("/v1/chat/completions", json=questions[index])
            reply.raise_for_status()
            body = reply.json()
            tokens += body["usage"]["completion_tokens"]
            answers[index] = body["choices"][0]["message"]["content"]

    before = time.perf_counter()
    await asyncio.gather(*(one_client() for _ in range(concurrency)))
    return tokens / (time.perf_counter() - before), answers


async def measure(rounds: int, requests: int, concurrencies: list[int]) -> str:
    """The table."""
    questions = [question(index) for index in range(requests)]
    figures: dict[tuple[int, str], list[float]] = {}
    same = total = 0
    with tempfile.TemporaryDirectory(prefix="engine-bench-") as name:
        parameters = make_checkpoint(Path(name))
        async with AsyncExitStack() as stack:
            clients = {
                engine: await stack.enter_async_context(
                    worker(Path(name), engine, max(concurrencies))
                )
                for engine in ENGINES
            }
            for client in clients.values():
                await load(client, questions[:2], 1)  # warm
            for _ in range(rounds):
                for concurrency in concurrencies:
                    texts = {}
                    for engine, client in clients.items():
                        speed, texts[engine] = await load(client, questions, concurrency)
                        figures.setdefault((concurrency, engine), []).append(speed)
                    pairs = zip(*texts.values(), strict=True)
                    same += sum(ours == theirs for ours, theirs in pairs)
                    total += len(questions)
    about = (
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {os.cpu_count()} cores, load average "
        f"{os.getloadavg()[0]:.1f}, {parameters / 1e6:.0f} M parameters, {rounds} rounds of "
        f"{requests} image requests; median (lowest - highest) tokens/s; "
        f"{same} of {total} answers the same"
    )
    lines = [
        about,
        "",
        "| concurrent | " + " | ".join(ENGINES) + " | ratio of medians |",
        "|---" * (len(ENGINES) + 2) + "|",
    ]
    for concurrency in concurrencies:
        values = [figures[concurrency, engine] for engine in ENGINES]
        cells = [f"{statistics.median(v):.0f} ({min(v):.0f} - {max(v):.0f})" for v in values]
        ratio = statistics.median(values[1]) / statistics.median(values[0])
        lines.append(f"| {concurrency} | " + " | ".join(cells) + f" | {ratio:.2f} |")
    return "\n".join(lines)


def main() -> None:
    """Parses the command line, measures, prints."""
    parser = argparse.ArgumentParser(prog="bench_engine", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=32, help="image requests a round")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument(
        "--cost", action="store_true", help="what the engine adds to the model, in CPU time"
    )
    arguments = parser.parse_args()
    if arguments.cost:
        print(cost.measure(arguments.rounds))
        return
    print(asyncio.run(measure(arguments.rounds, arguments.requests, arguments.concurrency)))


if __name__ == "__main__":
    main()
