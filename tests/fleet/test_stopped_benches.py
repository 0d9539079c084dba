"""Measurements that start fleets, asked to stop while they run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import psutil
import pytest

from tests.benches import ROOT
from tests.fleet.running import eventually, is_running


@pytest.mark.fleet
@pytest.mark.timeout(300)
@pytest.mark.parametrize("package", ["start_bench", "kill_bench"])
def test_a_measurement_that_is_asked_to_stop_leaves_nothing_of_its_fleet(package: str) -> None:
    paths = os.pathsep.join([str(ROOT / "scripts"), str(ROOT)])
    bench = subprocess.Popen(
        [sys.executable, "-m", package],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": paths},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    started: dict[int, str] = {}

    def has_a_page() -> bool:
        for child in psutil.Process(bench.pid).children(recursive=True):
            try:
                started[child.pid] = " ".join(child.cmdline())
            except psutil.NoSuchProcess:
                continue
        return any("-m webui" in words for words in started.values())

    try:
        eventually(has_a_page, what="the fleet's last process is started")
        bench.send_signal(signal.SIGTERM)
        _, errors = bench.communicate(timeout=60)
    finally:
        bench.kill()
        bench.wait()
    assert bench.returncode == 128 + signal.SIGTERM, errors
    eventually(lambda: not any(map(is_running, started)), what=f"{started} are gone")
