"""Runs the measurements and prints Markdown tables."""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from tests.ports import free_port
from tests.webui.servers import web_process
from webui_bench import load
from webui_bench.watching import watch

_RATE, _TOKENS = 30.0, 150
_FAST_RATE = 60.0


@contextmanager
def page(*, rate: float, tokens: int, hung: bool = False) -> Iterator[str]:
    """The page over pretended models, in processes of their own."""
    port = free_port()
    command = [sys.executable, "-m", "webui_bench.controller", "--port", str(port)]
    command += ["--rate", str(rate), "--tokens", str(tokens), *(["--hung"] if hung else [])]
    controller = subprocess.Popen(command)
    try:
        with web_process(f"http://127.0.0.1:{port}", "--log-level", "error") as (url, _):
            yield url
    finally:
        controller.terminate()
        controller.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--columns", type=int, nargs="*", default=[80, 160, 200])
    parser.add_argument("--seconds", type=float, default=24, help="of the answers in the browser")
    args = parser.parse_args()
    print(f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} CPUs, {platform.machine()}\n")
    print("| columns at once | slowdown of the median | of the slowest |\n| ---: | ---: | ---: |")
    ideal = (_TOKENS - 1) / _RATE
    with page(rate=_RATE, tokens=_TOKENS) as url:
        asyncio.run(load.ask_all(url, tabs=2))  # warm
        for columns in args.columns:
            seconds = asyncio.run(load.ask_all(url, tabs=columns // load.COLUMNS))
            slowest = max(seconds) / ideal
            print(f"| {columns} | {load.slowdown(seconds, ideal):.2f} | {slowest:.2f} |")
    print("\n| in a browser | " + " | ".join(("4 columns", "3 and a hung one")) + " |")
    print("| --- | ---: | ---: |")
    found = []
    for hung in (False, True):
        tokens = int(args.seconds * _FAST_RATE)
        with page(rate=_FAST_RATE, tokens=tokens, hung=hung) as url:
            found.append(watch(url, seconds=args.seconds, columns=3 if hung else 4))
    for name in found[0]:
        print(f"| {name} | " + " | ".join(f"{each[name]:.1f}" for each in found) + " |")


if __name__ == "__main__":
    main()
