"""The faults' measurements measure: a short run over real processes prints what came of each."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
FAULTS = ["--fault", "kill -9 within a stream", "--fault", "client hangs up", "--hang-ups", "1"]


def test_a_short_run_tells_how_a_stream_ends_whose_worker_is_killed() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fault_bench", *FAULTS],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "scripts"), str(ROOT)])},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = {
        cells[1]: cells[2]
        for line in done.stdout.splitlines()
        if len(cells := [cell.strip() for cell in line.strip("|").split("|")]) == 3
    }
    assert rows["what"] == "paragone"
    assert rows["the stream ends with"] == "an error event, no [DONE]"
    assert rows["events broken by it"] == "0"
    assert rows["next request is served"] == "yes"
    assert 0 < float(rows["ms until the worker sees it"]) < 1000
