"""Starts the fleet and each of its workers alone, in turns, and prints a Markdown table."""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
import yaml
from relay_bench.relays import free_port

from controller.fleet.commands import ProcessKind, ProcessPlan, plan_fleet
from controller.fleet.cores import usable_cores
from controller.fleet.fleet_file import load_fleet_file

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "configs" / "demo.yaml"
PATIENCE_SECONDS = 300.0
WHOLE = "the whole fleet"
TARGET = 1.3


@dataclass(frozen=True, slots=True)
class Start:
    """A start until everything was ready.

    Args:
        seconds: of the clock.
        cpu_seconds: user and system, of all its processes, their end included.
    """

    seconds: float
    cpu_seconds: float


def measured(start: Callable[[], float]) -> Start:
    """What a start took; ``start`` returns once its processes have ended again."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = start()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Start(seconds, cpu)


def start_fleet(path: Path) -> float:
    """Seconds until `paragone up` says that all is ready."""
    command = [sys.executable, "-m", "controller.cli", "up", str(path), "--output", "json"]
    with running(command, os.environ, stdout=subprocess.PIPE) as process:
        started = time.monotonic()
        assert process.stdout is not None
        for line in process.stdout:
            if json.loads(line).get("event") == "summary":
                seconds = time.monotonic() - started
                break
        else:
            raise RuntimeError("the fleet did not start; look at `paragone up` itself")
        process.send_signal(signal.SIGTERM)
        process.stdout.read()
    return seconds


def start_alone(plan: ProcessPlan) -> float:
    """Seconds until a worker's own port says that it is ready."""
    environ = {**plan.environ(os.environ), "PARAGONE_WORKER_NO_REGISTER": "true"}
    with running(plan.argv(), environ, stdout=subprocess.DEVNULL) as process:
        started = time.monotonic()
        while not _is_ready(plan.url):
            if process.poll() is not None or time.monotonic() - started > PATIENCE_SECONDS:
                raise RuntimeError(f"{plan.name} did not start: {plan.shell_command()}")
            time.sleep(0.02)
        return time.monotonic() - started


@contextmanager
def running(
    command: Sequence[str], environ: Mapping[str, str], *, stdout: int
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is asked to stop at the end, and waited for."""
    with subprocess.Popen(
        command, env=dict(environ), stdin=subprocess.DEVNULL, stdout=stdout, stderr=stdout
    ) as process:
        try:
            yield process
        finally:
            process.terminate()


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/ready", trust_env=False, timeout=5).is_success
    except httpx.HTTPError:
        return False


def with_free_ports(source: Path, folder: Path) -> Path:
    """The same fleet file on ports that nobody has."""
    content = yaml.safe_load(source.read_text(encoding="utf-8"))
    for worker in content["workers"]:
        for key in ("model_path", "model_base"):
            if worker.get(key, "").startswith("."):
                worker[key] = str((source.parent / worker[key]).resolve())
    processes = [content.setdefault("controller", {}), *content["workers"]]
    processes += [content["web"]] if "web" in content else []
    for process in processes:
        process["port"] = free_port()
    path = folder / source.name
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def report(starts: Mapping[str, Sequence[Start]], about: str) -> str:
    """The figures as Markdown; the ratio is that of medians."""
    lines = [about, "", "| started | ready after, s | CPU, s |", "|---|---|---|"]
    for name, figures in starts.items():
        seconds, cpu = [f.seconds for f in figures], [f.cpu_seconds for f in figures]
        lines.append(f"| {name} | {_cell(seconds)} | {_cell(cpu)} |")
    medians = {n: statistics.median(f.seconds for f in figures) for n, figures in starts.items()}
    whole = medians.pop(WHOLE)
    slowest = max(medians, key=medians.__getitem__)
    ratio = whole / medians[slowest]
    lines.append(f"\n{WHOLE} / {slowest} alone: {ratio:.2f} (aim: at most {TARGET})")
    return "\n".join(lines)


def _cell(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.1f} ({min(values):.1f} - {max(values):.1f})"


def main() -> int:
    """Parses the command line, measures, prints."""
    parser = argparse.ArgumentParser(prog="bench_start", description=__doc__)
    parser.add_argument("file", type=Path, nargs="?", default=DEMO, help="a fleet file")
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    # Left to its default, it would end this process alone, and what that has started would run on.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    about = (
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {os.cpu_count()} cores (load before "
        f"{os.getloadavg()[0]:.1f}), Python {platform.python_version()}, rounds: {chosen.rounds}; "
        f"median (lowest - highest)"
    )
    starts: dict[str, list[Start]] = {}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PARAGONE_STATE_DIR"] = folder + "/state"
        path = with_free_ports(chosen.file, Path(folder))
        plans = plan_fleet(load_fleet_file(path), cores=usable_cores())
        alone = [plan for plan in plans if plan.kind is ProcessKind.WORKER]
        for _ in range(chosen.rounds):
            whole = measured(lambda: start_fleet(path))
            starts.setdefault(WHOLE, []).append(whole)
            for plan in alone:
                start = measured(lambda plan=plan: start_alone(plan))  # type: ignore[misc]  # a default
                starts.setdefault(plan.name, []).append(start)
    print(report(starts, about))
    return 0


if __name__ == "__main__":
    sys.exit(main())
