"""The measurement of random kills: a short run of it, in which nothing may be lost."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
KILLS = 5


@pytest.mark.fleet
@pytest.mark.timeout(300)
def test_after_some_random_kills_all_is_back_and_every_request_has_ended_with_a_reason():
    done = subprocess.run(
        [
            *(sys.executable, "-m", "kill_bench", "--fleet", "small", "--seed", "1"),
            *("--kills", str(KILLS), "--interval", "1.5"),
        ],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "scripts"), str(ROOT)])},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = dict(
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in done.stdout.splitlines()
        if line.startswith("| ")
    )
    assert rows["processes killed"].startswith(f"{KILLS} (")
    assert int(rows["answered"]) > 0
    for promise in (
        "processes that did not come back",
        "orphans",
        "lost without a word",
        "answered with another text",
    ):
        assert rows[promise] == "0"
