"""The faults: each is made to happen once, and what became of the requests is told."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import httpx
from relay_bench.load import connect, hang_up_seconds

from fault_bench.scene import CLIENT_SECONDS, Scene, Subject, asks_well, question, scene

SLOW_SECONDS = 1.0  # an answer takes 0.1 s; one that takes so long has waited for somebody
STANDING_INTERVAL = 0.5  # between requests while a worker stands still
RETURN_INTERVAL = 0.05  # and while one comes back
OUTAGE_SECONDS = 5.0  # a killed worker is away for; long enough for any relay to notice
LISTEN_SECONDS = 60.0
KILL_AT_LINE = 41  # of a stream: some twenty words in

# A figure, or what happened in words; None where it did not happen in time.
Result = float | str | None


@dataclass(frozen=True, slots=True)
class Sizes:
    """How long is looked."""

    rounds: int
    standing_seconds: float  # a worker stands still
    patience_seconds: float  # for one that came back to be asked again
    hang_ups: int


@dataclass(frozen=True, slots=True)
class _Asked:
    """One request: when it was sent, seconds after the fault, and how it went."""

    sent: float
    took: float
    is_well: bool


async def _ask(client: httpx.AsyncClient, url: str, since: float) -> _Asked:
    sent = time.monotonic()
    is_well = await asks_well(client, url)
    return _Asked(sent - since, time.monotonic() - sent, is_well)


async def standing_worker(subject: Subject, sizes: Sizes) -> Mapping[str, Result]:
    """SIGSTOP to one of two workers: who still gets an answer, and when all do again."""
    async with scene(subject, workers=2) as (made, client):
        start = time.monotonic()
        made.stop_worker(0)
        asking = []
        while time.monotonic() - start < sizes.standing_seconds:
            asking.append(asyncio.create_task(_ask(client, made.url, start)))
            await asyncio.sleep(STANDING_INTERVAL)
        asked = await asyncio.gather(*asking)
    hit = [each for each in asked if not each.is_well or each.took > SLOW_SECONDS]
    served = [each.took for each in asked if each.is_well]
    around: float | None = 0.0
    if hit:
        around = min((each.sent for each in asked if each.sent > hit[-1].sent), default=None)
    return {
        f"fail, of {len(asked)}": float(sum(not each.is_well for each in asked)),
        "s until all are answered at once": around,
        "s for the slowest answer": max(served, default=None),
    }


async def returning_worker(subject: Subject, sizes: Sizes) -> Mapping[str, Result]:
    """One of two workers is killed (-9), and started again 5 s later."""
    async with scene(subject, workers=2) as (made, client):
        made.kill_worker(0)
        is_over = asyncio.Event()
        load = asyncio.create_task(_failures_until(is_over, made, client))
        try:
            await asyncio.sleep(OUTAGE_SECONDS)
            await made.start_worker(0)
            took = await _seconds_until_asked(made, 0, sizes.patience_seconds)
        finally:
            is_over.set()
            failures = await load
    return {"requests that fail meanwhile": failures, "s until it is asked again": took}


async def _failures_until(over: asyncio.Event, made: Scene, client: httpx.AsyncClient) -> float:
    """Asks and asks; how many got no answer."""
    asking = []
    while not over.is_set():
        asking.append(asyncio.create_task(asks_well(client, made.url)))
        await asyncio.sleep(RETURN_INTERVAL)
    return float((await asyncio.gather(*asking)).count(False))


async def _seconds_until_asked(made: Scene, position: int, patience: float) -> float | None:
    start = time.monotonic()
    while not await made.requests_at(position):
        if time.monotonic() - start > patience:
            return None
        await asyncio.sleep(0.01)
    return time.monotonic() - start


async def kill_in_a_stream(subject: Subject, _sizes: Sizes) -> Mapping[str, Result]:
    """The worker whose stream is being read is killed (-9)."""
    async with scene(subject, workers=2) as (made, client):
        before = [await made.requests_at(position) for position in range(2)]
        lines: list[str] = []
        asked = client.stream("POST", f"{made.url}/v1/chat/completions", json=question(1000))
        async with asked as reply:
            try:
                async for line in reply.aiter_lines():
                    lines.append(line)
                    if len(lines) == KILL_AT_LINE:
                        after = [await made.requests_at(position) for position in range(2)]
                        made.kill_worker(0 if after[0] > before[0] else 1)
                end = _end_of(lines)
            except httpx.ReadTimeout:
                end = f"nothing for {CLIENT_SECONDS:g} s"
            except httpx.TransportError:
                end = "connection cut, no error"
        is_next_served = await asks_well(client, made.url)
    return {
        "the stream ends with": end,
        "events broken by it": float(_broken(lines)),
        "next request is served": "yes" if is_next_served else "no",
    }


def _end_of(lines: Sequence[str]) -> str:
    text = "\n".join(lines)
    error = "an error event" if '"error"' in text else "no error"
    return f"{error}, {'then' if '[DONE]' in text else 'no'} [DONE]"


def _broken(lines: Sequence[str]) -> int:
    """How many data lines are no JSON."""
    broken = 0
    for line in lines:
        if line.startswith("data:") and "[DONE]" not in line:
            try:
                json.loads(line.removeprefix("data:"))
            except ValueError:
                broken += 1
    return broken


async def hang_up(subject: Subject, sizes: Sizes) -> Mapping[str, Result]:
    """A client closes its connection within a stream."""
    async with scene(subject, workers=1) as (made, _client):
        times = [
            await hang_up_seconds(made.port, made.worker_ports[0]) for _ in range(sizes.hang_ups)
        ]
    return {"ms until the worker sees it": statistics.median(times) * 1e3}


async def killed_relay(subject: Subject, _sizes: Sizes) -> Mapping[str, Result]:
    """The relay itself is killed (-9), and started again at once."""
    async with scene(subject, workers=2) as (made, client):
        made.kill_relay()
        await made.start_relay()
        async with asyncio.timeout(LISTEN_SECONDS):
            while not await _listens(made.port):  # noqa: ASYNC110  # another process's port
                await asyncio.sleep(0.005)
            start = time.monotonic()
            while not await asks_well(client, made.url):  # noqa: ASYNC110  # likewise
                await asyncio.sleep(0.02)
    return {"s from listening to an answer": time.monotonic() - start}


async def _listens(port: int) -> bool:
    try:
        (await connect(port)).close()
    except ConnectionRefusedError:
        return False
    return True


Fault = Callable[[Subject, Sizes], Awaitable[Mapping[str, Result]]]

FAULTS: Mapping[str, Fault] = {
    "SIGSTOP of one of two workers": standing_worker,
    "killed worker, started again": returning_worker,
    "kill -9 within a stream": kill_in_a_stream,
    "client hangs up": hang_up,
    "relay killed, started again": killed_relay,
}
