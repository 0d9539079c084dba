"""Kills, waits, and prints a Markdown table; exits with 1 where anything was lost."""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import signal
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from kill_bench.fleet import CONTROLLER, FLEETS, WEB, running_fleet
from kill_bench.kills import Findings, Kill, kill_at_random
from kill_bench.load import End


async def measure(kind: str, *, kills: int, seed: int, interval: float) -> Findings:
    """A fleet from its start to its stop; a SIGTERM stops it before that."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    with tempfile.TemporaryDirectory() as folder:
        async with running_fleet(kind, Path(folder)) as fleet:
            found = await kill_at_random(fleet, kills=kills, seed=seed, interval=interval)
            if not found.is_well:
                sys.stderr.write(fleet.last_lines() + "\n")
            return found


def report(found: Findings, about: str) -> str:
    """The figures as Markdown, and below them what went wrong."""
    ends = Counter(each.end for each in found.requests)
    codes = Counter(each.what for each in found.requests if each.end is End.TYPED)
    typed = ", ".join(f"{code} {count}" for code, count in codes.most_common())
    kinds = {
        "controller": [kill for kill in found.kills if kill.name == CONTROLLER],
        "page": [kill for kill in found.kills if kill.name == WEB],
        "workers": [kill for kill in found.kills if kill.name not in {CONTROLLER, WEB}],
    }
    killed = ", ".join(f"{kind} {len(kills)}" for kind, kills in kinds.items())
    slowest = max((each.ended - each.started for each in found.requests), default=0.0)
    lost_ends = sum(each.end is End.CUT for each in found.lost)
    rows = [
        ("processes killed", f"{len(found.kills)} ({killed})"),
        *((f"s until it serves again: {kind}", _back(kills)) for kind, kills in kinds.items()),
        ("processes that did not come back", str(len(found.not_back))),
        ("orphans", str(len(found.orphans))),
        ("requests", str(len(found.requests))),
        ("answered", str(ends[End.ANSWERED])),
        ("ended with a typed error", f"{ends[End.TYPED]} ({typed})" if typed else "0"),
        ("cut while the controller was killed", str(ends[End.CUT] - lost_ends)),
        ("lost without a word", str(len(found.lost))),
        ("answered with another text", str(len(found.wrong))),
        ("s for the slowest end", f"{slowest:.1f}"),
    ]
    lines = [about, "", "| what | figure |", "|---|---|"]
    lines += [f"| {what} | {figure} |" for what, figure in rows]
    for each in (*found.lost[:10], *found.wrong[:10]):
        lines.append(f"{each.model}, {'stream' if each.streams else 'short'}: {each.what}")
    return "\n".join([*lines, *found.not_back, *found.orphans])


def _back(kills: Sequence[Kill]) -> str:
    times = [kill.back_at - kill.at for kill in kills if kill.back_at is not None]
    if not times:
        return "-"
    again = len(kills) - len(times)
    text = f"{statistics.median(times):.1f} ({min(times):.1f} - {max(times):.1f})"
    return f"{text}; {again} were killed again before" if again else text


def main() -> int:
    """Parses the command line, measures, prints."""
    parser = argparse.ArgumentParser(prog="bench_kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0, help="of who is killed, and when")
    parser.add_argument(
        "--interval", type=float, default=4.0, help="seconds between two kills, on average"
    )
    parser.add_argument(
        "--fleet",
        choices=FLEETS,
        default="whole",
        help="small: controller, page and a worker; whole: two replicas, and a base with two "
        "adapters beside them",
    )
    chosen = parser.parse_args()
    before = os.getloadavg()[0]
    try:
        found = asyncio.run(
            measure(chosen.fleet, kills=chosen.kills, seed=chosen.seed, interval=chosen.interval)
        )
    except asyncio.CancelledError:
        return 128 + signal.SIGTERM
    about = (
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {os.cpu_count()} cores (load before "
        f"{before:.1f}), Python {platform.python_version()}, fleet {chosen.fleet}, seed "
        f"{chosen.seed}, {chosen.interval:g} s between kills on average, {found.seconds:.0f} s; "
        f"median (lowest - highest)"
    )
    print(report(found, about))
    return 0 if found.is_well else 1


if __name__ == "__main__":
    sys.exit(main())
