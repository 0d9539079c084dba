"""Runs the measurements, interleaved over the relays, and prints a Markdown table."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime

import uvloop

from relay_bench import fleet, load
from relay_bench.relays import OURS, Relay, bench_worker, relay

DIRECT = "direct"
SLOW_READER_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of each is done in a round."""

    rounds: int
    requests: int
    streams: int
    chunks: int
    first_tokens: int
    rate: float  # chunks a second of one stream, as the worker sends them


Measurement = Callable[[Relay, int, Sizes], Awaitable[float]]


async def cpu_per_request(target: Relay, _worker: int, sizes: Sizes) -> float:
    """Microseconds of the relay's CPU for a short request."""
    before = target.cpu_seconds()
    await load.short_requests(target.port, count=sizes.requests, connections=8)
    return (target.cpu_seconds() - before) / sizes.requests * 1e6


async def cpu_per_chunk(target: Relay, _worker: int, sizes: Sizes) -> float:
    """Microseconds of the relay's CPU for a chunk, its share of the request included."""
    before = target.cpu_seconds()
    done = await load.streams(target.port, count=sizes.streams // 4, chunks=sizes.chunks)
    return (target.cpu_seconds() - before) / done.chunks * 1e6


async def chunks_per_second(target: Relay, _worker: int, sizes: Sizes) -> float:
    """Chunks a second through all streams at once."""
    done = await load.streams(target.port, count=sizes.streams, chunks=sizes.chunks)
    return done.chunks / done.seconds


async def first_token_ms(target: Relay, _worker: int, sizes: Sizes) -> float:
    """Median milliseconds to the first chunk, one connection, one request at a time."""
    times = await load.first_token_seconds(target.port, count=sizes.first_tokens)
    return statistics.median(times) * 1e3


async def hang_up_ms(target: Relay, worker: int, _sizes: Sizes) -> float:
    """Milliseconds from a client's hang-up until the worker sees it."""
    return await load.hang_up_seconds(target.port, worker) * 1e3


async def slow_reader_mib(target: Relay, _worker: int, _sizes: Sizes) -> float:
    """MiB that the relay grows by while two clients never read an endless stream."""
    before = target.resident_bytes()
    readers = [load.silent_reader(target.port) for _ in range(2)]
    try:
        await asyncio.sleep(SLOW_READER_SECONDS)
        return (target.resident_bytes() - before) / 2**20
    finally:
        for reader in readers:
            reader.close()


# What is measured, its unit, and whether it says something of the worker asked directly.
MEASUREMENTS: dict[str, tuple[Measurement, str, bool]] = {
    "CPU per short request": (cpu_per_request, "us", False),
    "CPU per stream chunk": (cpu_per_chunk, "us", False),
    "chunks through all streams": (chunks_per_second, "/s", True),
    "time to first chunk": (first_token_ms, "ms", True),
    "hang-up until the worker sees it": (hang_up_ms, "ms", True),
    "memory for two clients that never read": (slow_reader_mib, "MiB", False),
}


async def measure(sizes: Sizes, peers: Sequence[str]) -> dict[tuple[str, str], list[float]]:
    """All figures: by measurement and relay, one for each round."""
    cores = sorted(os.sched_getaffinity(0))
    others = set(cores[1:]) or set(cores)
    os.sched_setaffinity(0, others)
    figures: dict[tuple[str, str], list[float]] = {}
    async with AsyncExitStack() as stack:
        worker = await stack.enter_async_context(bench_worker(others, sizes.rate))
        targets = [Relay(DIRECT, worker, None)]
        commands: dict[str, str | None] = {OURS: None}
        commands |= dict(peer.split("=", 1) for peer in peers)
        for name, command in commands.items():
            started = relay(name, command, worker, cores[0])
            targets.append(await stack.enter_async_context(started))
        for target in targets:
            await load.short_requests(target.port, count=200, connections=8)  # warm
        seen: dict[str, int] = {}
        for _ in range(sizes.rounds):
            for title, (measurement, _unit, is_for_direct) in MEASUREMENTS.items():
                for target in targets:
                    if target.name == DIRECT and not is_for_direct:
                        continue
                    before = await requests_at(worker)
                    try:
                        figure = await measurement(target, worker, sizes)
                    except load.LoadError as exc:
                        if target.name == OURS:
                            raise
                        print(f"{target.name}, {title}: {exc}")
                        continue
                    figures.setdefault((title, target.name), []).append(figure)
                    came = await requests_at(worker) - before
                    seen[target.name] = seen.get(target.name, 0) + came
    expected = requests_sent(sizes)
    for name in (target.name for target in targets if target.name != DIRECT):
        if seen.get(name) == expected:
            continue
        told = f"the worker saw {seen.get(name)} requests through {name}, not {expected}"
        if name == OURS:
            raise load.LoadError(told)
        print(told)  # what a peer loses is a finding, not an end of the comparison
    return figures


async def requests_at(worker: int) -> int:
    """How many the worker has seen until now."""
    return int(json.loads(await load.get(worker, "/count"))["requests"])


def requests_sent(sizes: Sizes) -> int:
    """How many requests must have come through a relay, so that none was lost or sent twice."""
    short = sizes.requests // 8 * 8
    a_round = short + sizes.streams // 4 + sizes.streams + sizes.first_tokens
    return sizes.rounds * (a_round + 1 + 2)  # that hangs up, and that never read


def table(figures: dict[tuple[str, str], list[float]], sizes: Sizes) -> str:
    """The figures as Markdown: medians, with the spread over the rounds."""
    names = list(dict.fromkeys(name for _, name in figures))
    about = (
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, Python {platform.python_version()}, "
        f"{sizes.rounds} rounds; {sizes.streams} streams x {sizes.rate:g} chunks/s "
        f"offered; median (lowest - highest)"
    )
    lines = [
        about,
        "",
        "| measure | " + " | ".join(names) + " |",
        "|---" * (len(names) + 1) + "|",
    ]
    for title, (_, unit, _) in MEASUREMENTS.items():
        cells = []
        for name in names:
            values = figures.get((title, name))
            cells.append("-" if values is None else _cell(values))
        lines.append(f"| {title}, {unit} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(values: list[float]) -> str:
    digits = 0 if max(values) >= 100 else 2
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f} - {high:.{digits}f})"


def main() -> None:
    """Parses the command line, measures, prints."""
    parser = argparse.ArgumentParser(prog="bench_relay", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=4000, help="short requests a round")
    parser.add_argument("--streams", type=int, default=128, help="simultaneous streams")
    parser.add_argument("--chunks", type=int, default=1000, help="chunks of a stream")
    parser.add_argument("--rate", type=float, default=250.0, help="chunks a second of a stream")
    parser.add_argument("--first-tokens", type=int, default=300, help="first chunks a round")
    parser.add_argument(
        "--peer",
        action="append",
        default=[],
        metavar="NAME=COMMAND",
        help="another relay; {port} and {worker} in its command are filled in",
    )
    parser.add_argument(
        "--fleet",
        type=int,
        metavar="WORKERS",
        help="measures instead what so many workers' heartbeats cost our controller",
    )
    parser.add_argument("--beat-seconds", type=float, default=5.0, help="between two of a worker")
    parser.add_argument("--fleet-seconds", type=float, default=30.0, help="for how long")
    arguments = vars(parser.parse_args())
    fleet_arguments = [arguments.pop(n) for n in ("fleet", "beat_seconds", "fleet_seconds")]
    if fleet_arguments[0] is not None:
        print(uvloop.run(fleet.measure(*fleet_arguments)).report())
        return
    peers = arguments.pop("peer")
    sizes = Sizes(**arguments)
    print(table(uvloop.run(measure(sizes, peers)), sizes))


if __name__ == "__main__":
    main()
