"""Runs a measurement of `scripts/` as its own process, as the script of its name does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run_bench(package: str, *arguments: str, timeout: float = 280, **environ: str) -> str:
    """What a short run prints; it has to end well.

    The limit, in seconds, is reached in failure alone: a busy machine keeps it.
    """
    paths = os.pathsep.join([str(ROOT / "scripts"), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-m", package, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": paths, **environ},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
