"""How evenly running streams go on while new image requests arrive."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from itertools import pairwise

from transformers import AutoTokenizer

from engine_bench.checkpoint import TOKENIZER
from engine_bench.questions import question
from engine_bench.servers import BenchError, Running
from engine_bench.throughput import spread

STREAMS, NEW = 4, 8
# Tokens of each stream before the new requests are sent.
SETTLED = 24
# More than fit into the time that the new requests take; the streams are hung up on after it.
LONG, SHORT = 1024, 16
LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass
class Pace:
    """Seconds between tokens of the running streams, of each round."""

    quiet: list[float] = field(default_factory=list)  # medians before the new requests
    medians: list[float] = field(default_factory=list)  # medians while they come in
    p99: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)  # p99 over the median, both while they do
    first_tokens: list[float] = field(default_factory=list)  # until all new ones have a token

    def table(self) -> list[str]:
        """Lines of Markdown: medians of the rounds (lowest - highest)."""
        rows = (
            ("between two tokens before, median, ms", [1e3 * s for s in self.quiet], ".1f"),
            ("while they arrive, median, ms", [1e3 * s for s in self.medians], ".1f"),
            ("while they arrive, p99, ms", [1e3 * s for s in self.p99], ".1f"),
            ("p99 over that median (aim: at most 3)", self.ratios, ".2f"),
            ("until each new one has its first token, s", self.first_tokens, ".2f"),
        )
        return [
            f"| {STREAMS} running streams, {NEW} new image requests at once | batched |",
            "| --- | --- |",
            *(f"| {what} | {spread(values, form)} |" for what, values, form in rows),
        ]


def letters() -> dict[str, object]:
    """Arguments of a request whose every token is one letter: its text counts its tokens."""
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    ids = tokenizer.convert_tokens_to_ids(list(LETTERS))
    return {"stream": True, "ignore_eos": True, "logit_bias": {str(id_): 100 for id_ in ids}}


async def measure_round(server: Running, pace: Pace, number: int) -> None:
    """One round; its pictures are its own.

    Raises:
        BenchError: the running streams ended, or stood still, before the new requests had begun.
    """
    arguments = letters()
    arrivals: list[list[float]] = [[] for _ in range(STREAMS)]
    settled = asyncio.Event()

    async def run(index: int) -> None:
        asked = question(f"running, round {number}", index, LONG) | arguments
        async for count in _tokens(server, asked):
            arrivals[index] += [time.perf_counter()] * count
            if all(len(times) >= SETTLED for times in arrivals):
                settled.set()

    async def begin(index: int) -> float:
        """When a new request's first token came."""
        asked = question(f"new, round {number}", index, SHORT) | arguments
        first = None
        async for _ in _tokens(server, asked):
            first = first or time.perf_counter()
        if first is None:
            raise BenchError("a request that arrived while streams ran got no token")
        return first

    running = [asyncio.create_task(run(index)) for index in range(STREAMS)]
    try:
        waiting = asyncio.create_task(settled.wait())
        await asyncio.wait([waiting, *running], return_when=asyncio.FIRST_COMPLETED)
        start = time.perf_counter()
        if not settled.is_set():
            waiting.cancel()
            await asyncio.gather(*running)
            raise BenchError("a stream ended before all of them ran")
        end = max(await asyncio.gather(*(begin(index) for index in range(NEW))))
        if any(task.done() for task in running):
            await asyncio.gather(*running)
            raise BenchError("a stream ended while new requests were still beginning")
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    # All of them run from the last one's first token on.
    begun = max(times[0] for times in arrivals)
    before = _gaps(arrivals, begun, start)
    during = _gaps(arrivals, start, end)
    median = statistics.median(during)
    p99 = statistics.quantiles(during, n=100, method="inclusive")[98]
    pace.quiet.append(statistics.median(before))
    pace.medians.append(median)
    pace.p99.append(p99)
    pace.ratios.append(p99 / median)
    pace.first_tokens.append(end - start)


def _gaps(arrivals: list[list[float]], start: float, end: float) -> list[float]:
    """Seconds between two tokens of a stream, where any of that time lies in these bounds."""
    found = [
        later - earlier
        for times in arrivals
        for earlier, later in pairwise(times)
        if later > start and earlier < end
    ]
    if len(found) < STREAMS:
        raise BenchError("the running streams stood still")
    return found


async def _tokens(server: Running, asked: dict[str, object]) -> AsyncIterator[int]:
    """The number of tokens of each event of a stream."""
    body = {**asked, "model": server.model}
    async with server.client.stream("POST", "/v1/chat/completions", json=body) as reply:
        if reply.status_code != 200:
            raise BenchError(f"{reply.status_code}: {(await reply.aread())[:500]!r}")
        async for line in reply.aiter_lines():
            if not line.startswith("data: ") or line == "data: [DONE]":
                continue
            event = json.loads(line.removeprefix("data: "))
            if "error" in event:
                raise BenchError(f"a stream failed: {event['error']}")
            for choice in event["choices"]:
                if text := choice["delta"].get("content"):
                    yield len(text)
