"""Loads a random checkpoint in every way in turns, and prints a Markdown table."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from load_bench.checkpoint import SHAPES, make_checkpoints

FULL = ("paragone", "from_pretrained")
LOADERS = (*FULL, "paragone 8-bit", "paragone 4-bit")
MOST_PEAK, MOST_TIME = 1.15, 1.3  # of the weights, and of from_pretrained's time
MIB = 2**20


class BenchError(Exception):
    """The loads cannot be compared."""


def load(loader: str, folder: Path) -> dict[str, float]:
    """What one load took, in a fresh process."""
    done = subprocess.run(
        [sys.executable, "-m", "load_bench.child", loader, str(folder)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def measure(folder: Path, size: str, rounds: int) -> str:
    """The table. Makes the checkpoint where the folder does not have it yet."""
    noted = folder / "bytes.json"
    if not noted.exists():
        noted.write_text(json.dumps(make_checkpoints(folder, SHAPES[size])))
    weights = int(json.loads(noted.read_text()))
    for file in folder.rglob("*"):  # so that the first loader does not pay for the disk
        if file.is_file():
            with file.open("rb") as stream:
                while stream.read(1 << 24):
                    pass
    runs: dict[str, list[dict[str, float]]] = {loader: [] for loader in LOADERS}
    for number in range(rounds):
        # Quantised ones are measured for their memory, which is the same each time.
        for loader in LOADERS if number == 0 else FULL:
            runs[loader].append(load(loader, folder))

    answers = {run["answer"] for loader in FULL for run in runs[loader]}
    if len(answers) != 1:
        raise BenchError(f"the loaders do not load the same model: {answers}")

    def median(loader: str, key: str) -> float:
        return statistics.median(run[key] for run in runs[loader])

    def ratio(key: str) -> float:
        return median("paragone", key) / median("from_pretrained", key)

    about = (
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {os.cpu_count()} cores, load average "
        f"{os.getloadavg()[0]:.1f}, {weights / 2e6:.0f} M parameters in bfloat16 "
        f"({weights / MIB:.0f} MiB), files cached, {rounds} rounds (quantised: one); medians "
        "(lowest - highest)"
    )
    head = (
        "| loader | load, s | of CPU, s | and first forward, s | peak over before, MiB "
        "| of the weights | whole process, MiB |"
    )
    lines = [about, "", head, "|---" * 7 + "|"]

    for loader in LOADERS:
        times = [
            f"{median(loader, key):.2f} ({min(r[key] for r in runs[loader]):.2f} - "
            f"{max(r[key] for r in runs[loader]):.2f})"
            for key in ("load_seconds", "cpu_seconds", "ready_seconds")
        ]
        over = median(loader, "peak_ready") - median(loader, "before")
        lines.append(
            f"| {loader} | {' | '.join(times)} | {over / MIB:.0f} | {over / weights:.2f} "
            f"| {median(loader, 'peak_ready') / MIB:.0f} |"
        )
    peak = (median("paragone", "peak_ready") - median("paragone", "before")) / weights
    for name, value, most in (
        ("peak of the weights", peak, MOST_PEAK),
        ("load time of from_pretrained's", ratio("load_seconds"), MOST_TIME),
        ("its time on the CPU", ratio("cpu_seconds"), MOST_TIME),
        ("load time with the first forward", ratio("ready_seconds"), MOST_TIME),
    ):
        verdict = "met" if value <= most else "MISSED"
        lines += ["", f"{name}: {value:.2f}, at most {most}: {verdict}"]
    return "\n".join(lines)


def main() -> None:
    """Parses the command line, measures, prints."""
    parser = argparse.ArgumentParser(prog="bench_load", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", choices=list(SHAPES), default="1b")
    parser.add_argument("--folder", type=Path, help="where the checkpoint is kept for the next run")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        folder = arguments.folder
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="load-bench-")))
        print(measure(folder, arguments.size, arguments.rounds))


if __name__ == "__main__":
    main()
