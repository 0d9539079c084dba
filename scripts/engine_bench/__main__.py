"""Asks servers the same over HTTP, in turns: tokens/s, and the pace of streams, as Markdown."""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import sys
import tempfile
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

from engine_bench import cost, pace, throughput
from engine_bench import mixed as mixed_adapters
from engine_bench.checkpoint import SIZES, make_checkpoint
from engine_bench.questions import LENGTHS, mixed
from engine_bench.servers import (
    ORACLE,
    OURS,
    BenchError,
    Running,
    ours,
    peer_if_any,
    running,
)

# Answers' lengths with the tiny checkpoint.
TINY_LENGTHS = (4, 6, 8, 10)


async def measure(arguments: argparse.Namespace) -> str:
    """Both tables, under a line that says what was measured on which machine."""
    lengths = arguments.lengths or (TINY_LENGTHS if arguments.size == "tiny" else LENGTHS)
    figures, paces = throughput.Figures(), pace.Pace()
    with tempfile.TemporaryDirectory(prefix="engine-bench-") as name:
        folder = Path(name)
        parameters = make_checkpoint(folder, SIZES[arguments.size])
        capacity = max(*arguments.concurrency, pace.STREAMS + pace.NEW)
        wanted = [ours(OURS, folder, capacity), ours(ORACLE, folder, capacity)]
        found, about_peer = await peer_if_any(arguments.peer_python, folder)
        wanted += found
        async with AsyncExitStack() as stack:
            servers: dict[str, Running] = {}
            for one in wanted:
                servers[one.name] = await stack.enter_async_context(running(one))
            for server in servers.values():
                await throughput.load(server, mixed("warm", 4, lengths), 2)
            for number in range(arguments.rounds):
                for concurrency in arguments.concurrency:
                    count = arguments.requests or max(4, 2 * concurrency)
                    asked = mixed(f"round {number}, {concurrency} at once", count, lengths)
                    order = turn(servers, number)
                    await throughput.measure_round(order, figures, asked, concurrency)
                await pace.measure_round(servers[OURS], paces, number)
    about = (
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {os.cpu_count()} cores, load "
        f"average {os.getloadavg()[0]:.1f}, Python {platform.python_version()}; a random LLaVA "
        f"of {parameters / 1e6:.1f} M parameters, float32; {about_peer}; {arguments.rounds} "
        f"rounds, a new picture for each request, answers of {', '.join(map(str, lengths))} "
        "tokens; median (lowest - highest); tokens/s, then quotients of the same round"
    )
    return "\n".join(
        (
            about,
            "",
            *figures.table(),
            "",
            *figures.plot(),
            "",
            *figures.agreement(),
            "",
            *paces.table(),
        )
    )


def turn(servers: dict[str, Running], number: int) -> dict[str, Running]:
    """The servers, beginning with another one each round."""
    names = list(servers)
    first = number % len(names)
    return {name: servers[name] for name in (*names[first:], *names[:first])}


def main() -> None:
    """Parses the command line, measures, prints."""
    parser = argparse.ArgumentParser(prog="bench_engine", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument(
        "--requests",
        type=int,
        help="image requests of a server in a round (default: twice the clients, at least 4)",
    )
    parser.add_argument("--lengths", type=int, nargs="+", help="of the answers in turns, tokens")
    parser.add_argument("--size", choices=sorted(SIZES), default="full", help="the checkpoint's")
    parser.add_argument(
        "--peer-python",
        default=sys.executable,
        help="interpreter of the environment whose `transformers serve` is measured (default: "
        "this one); where it cannot serve, the output says so and goes on without",
    )
    parser.add_argument(
        "--cost", action="store_true", help="what the engine adds to the model, in CPU time"
    )
    parser.add_argument(
        "--mixed", action="store_true", help="steps of rows with different LoRAs beside PEFT's"
    )
    arguments = parser.parse_args()
    try:
        if arguments.cost:
            print(cost.measure(arguments.rounds))
        elif arguments.mixed:
            print(mixed_adapters.measure(arguments.rounds, arguments.size))
        else:
            print(asyncio.run(measure(arguments)))
    except* BenchError as errors:
        sys.exit("\n".join(f"bench_engine: {error}" for error in _leaves(errors)))


def _leaves(group: BaseExceptionGroup[BenchError]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


if __name__ == "__main__":
    main()
