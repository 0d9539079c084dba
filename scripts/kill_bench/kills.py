"""The kills, who came back when, and what became of the requests meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass

import httpx

from kill_bench.fleet import CONTROLLER, Fleet
from kill_bench.load import End, Load, Request, ask

BACK_SECONDS = 300.0  # for the last ones to come back
WATCH_SECONDS = 0.2  # between looks at the processes, each of which costs some ms


@dataclass(frozen=True, slots=True)
class Kill:
    """A process that was killed; times are of the monotonic clock."""

    name: str
    at: float
    back_at: float | None  # when its successor served; None if that was killed before it did


@dataclass(frozen=True, slots=True)
class Findings:
    """What a run has shown."""

    kills: list[Kill]
    requests: list[Request]
    lost: list[Request]
    wrong: list[Request]  # whole answers that are none of those before the first kill
    not_back: list[str]
    orphans: list[str]
    seconds: float

    @property
    def is_well(self) -> bool:
        """Whether every promise was kept."""
        return not (self.lost or self.wrong or self.not_back or self.orphans)


async def kill_at_random(fleet: Fleet, *, kills: int, seed: int, interval: float) -> Findings:
    """Kills processes under load, then waits for all to come back.

    Args:
        fleet: is whole.
        kills: how many.
        seed: of who is killed, and when.
        interval: seconds between two kills, on average.
    """
    async with httpx.AsyncClient(trust_env=False, timeout=5) as client:
        right = await _right_answers(fleet)
        load, stop = Load(fleet.url, fleet.models), asyncio.Event()
        started = time.monotonic()
        asking = asyncio.create_task(load.run(stop))
        try:
            done = await _kill(fleet, client, random.Random(seed), kills, interval)
            not_back = await _until_whole(fleet, client)
            await asyncio.sleep(interval)  # and everybody is served again
        finally:
            stop.set()
            await asking
        orphans = fleet.orphans()
        after = await _right_answers(fleet)
    requests = load.ended
    return Findings(
        kills=done,
        requests=requests,
        lost=[each for each in requests if _is_lost(each, done)],
        wrong=[
            each
            for each in (*requests, *after.values())
            if each.end is End.ANSWERED and each.what != right[each.model, each.streams].what
        ],
        not_back=not_back,
        orphans=orphans,
        seconds=time.monotonic() - started,
    )


async def _right_answers(fleet: Fleet) -> dict[tuple[str, bool], Request]:
    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
        return {
            (model, stream): await ask(client, fleet.url, model, stream=stream)
            for model in fleet.models
            for stream in (True, False)
        }


async def _kill(
    fleet: Fleet, client: httpx.AsyncClient, chance: random.Random, kills: int, interval: float
) -> list[Kill]:
    """Whoever runs may be next, ready or not; each has a watch for its successor."""
    watches: list[asyncio.Task[Kill]] = []
    killed_again: dict[str, asyncio.Event] = {}
    for _ in range(kills):
        await asyncio.sleep(chance.uniform(0, 2 * interval))
        while not (pids := await asyncio.to_thread(fleet.pids)):  # noqa: ASYNC110  # other processes
            await asyncio.sleep(WATCH_SECONDS)
        name = chance.choice(sorted(pids))
        if name in killed_again:
            killed_again[name].set()
        with contextlib.suppress(ProcessLookupError):
            os.kill(pids[name], signal.SIGKILL)
        killed_again[name] = asyncio.Event()
        watch = _watch(fleet, client, name, pids[name], killed_again[name])
        watches.append(asyncio.create_task(watch))
    return list(await asyncio.gather(*watches))


async def _watch(
    fleet: Fleet, client: httpx.AsyncClient, name: str, pid: int, killed_again: asyncio.Event
) -> Kill:
    at = time.monotonic()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(BACK_SECONDS):
            while not killed_again.is_set():
                successor = (await asyncio.to_thread(fleet.pids)).get(name, pid)
                if successor != pid and await fleet.is_ready(client, name):
                    return Kill(name, at, time.monotonic())
                await asyncio.sleep(WATCH_SECONDS)
    return Kill(name, at, None)


async def _until_whole(fleet: Fleet, client: httpx.AsyncClient) -> list[str]:
    """Who is not back in time."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(BACK_SECONDS):
            while not await fleet.is_whole(client):  # noqa: ASYNC110  # other processes
                await asyncio.sleep(WATCH_SECONDS)
            return []
    running = fleet.pids()
    return [
        name
        for name in fleet.names
        if name not in running or not await fleet.is_ready(client, name)
    ] or ["the list of models"]


def _is_lost(request: Request, kills: Sequence[Kill]) -> bool:
    """A connection may only end without a word where the controller was killed meanwhile."""
    if request.end is not End.CUT:
        return request.end is End.LOST
    away = [(kill.at, kill.back_at) for kill in kills if kill.name == CONTROLLER]
    return not any(
        at <= request.ended and (back_at is None or request.started <= back_at)
        for at, back_at in away
    )
