"""Makes each fault happen to each relay, in turns, and prints a Markdown table."""

from __future__ import annotations

import argparse
import logging
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import uvloop
from relay_bench.relays import OURS

from fault_bench.faults import FAULTS, Result, Sizes
from fault_bench.scene import CLIENT_SECONDS, Subject

Figures = dict[tuple[str, str, str], list[Result]]  # by fault, what was looked at, and relay


async def measure(
    subjects: Sequence[Subject], faults: Sequence[str], sizes: Sizes
) -> tuple[Figures, list[str]]:
    """All figures, one for each round, and what could not be measured and why."""
    figures: Figures = {}
    failures = []
    for _ in range(sizes.rounds):
        for title in faults:
            for subject in subjects:
                try:
                    found = await FAULTS[title](subject, sizes)
                except Exception as exc:  # a peer's failure is a finding
                    if subject.name == OURS:
                        raise
                    failures.append(f"{subject.name}, {title}: {type(exc).__name__} {exc}")
                    continue
                for what, result in found.items():
                    figures.setdefault((title, what, subject.name), []).append(result)
    return figures, failures


def table(figures: Mapping[tuple[str, str, str], list[Result]], sizes: Sizes) -> str:
    """The figures as Markdown."""
    names = list(dict.fromkeys(name for _, _, name in figures))
    rows = list(dict.fromkeys((title, what) for title, what, _ in figures))
    load = os.getloadavg()[0]
    about = (
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {os.cpu_count()} cores (load "
        f"{load:.1f}), Python {platform.python_version()}, rounds: {sizes.rounds}; a client's "
        f"patience is {CLIENT_SECONDS:g} s; a stopped worker was watched for "
        f"{sizes.standing_seconds:g} s, one that came back for {sizes.patience_seconds:g} s; "
        f"median (lowest - highest)"
    )
    lines = [about, "", "| fault | what | " + " | ".join(names) + " |"]
    lines.append("|---" * (len(names) + 2) + "|")
    previous = None
    for title, what in rows:
        cells = [_cell(figures.get((title, what, name))) for name in names]
        lines.append(f"| {'' if title == previous else title} | {what} | {' | '.join(cells)} |")
        previous = title
    return "\n".join(lines)


def _cell(results: Sequence[Result] | None) -> str:
    if results is None:
        return "-"
    words = dict.fromkeys(each for each in results if isinstance(each, str))
    if words:
        return "; ".join(words)
    numbers = [each for each in results if isinstance(each, float)]
    if len(numbers) < len(results):
        return "not meanwhile" if not numbers else "not each time"
    low, high = _short(min(numbers)), _short(max(numbers))
    middle = _short(statistics.median(numbers))
    return middle if low == high else f"{middle} ({low} - {high})"


def _short(number: float) -> str:
    return f"{number:.0f}" if number == int(number) or number >= 100 else f"{number:.2g}"


def main() -> None:
    """Parses the command line, measures, prints."""
    parser = argparse.ArgumentParser(prog="bench_faults", description=__doc__)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument(
        "--fault", action="append", choices=list(FAULTS), help="only this one; may be repeated"
    )
    parser.add_argument("--standing-seconds", type=float, default=40.0)
    parser.add_argument("--patience-seconds", type=float, default=90.0)
    parser.add_argument("--hang-ups", type=int, default=20)
    parser.add_argument(
        "--peer",
        action="append",
        default=[],
        metavar="NAME=COMMAND",
        help="another relay; {port} and {worker}, the workers' addresses, in its command are "
        "filled in",
    )
    parser.add_argument("--say-why", action="store_true", help="log each failure's cause")
    arguments = vars(parser.parse_args())
    logging.basicConfig(level="WARNING", format="%(asctime)s %(message)s")
    if arguments.pop("say_why"):
        logging.getLogger("fault_bench").setLevel("INFO")
    subjects = [Subject(OURS, None)]
    subjects += [Subject(*peer.split("=", 1)) for peer in arguments.pop("peer")]
    faults = arguments.pop("fault") or list(FAULTS)
    sizes = Sizes(**arguments)
    figures, failures = uvloop.run(measure(subjects, faults, sizes))
    print("\n".join([table(figures, sizes), *failures]))


if __name__ == "__main__":
    main()
