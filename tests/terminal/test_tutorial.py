"""docs/tutorial.ipynb says what it said when it was written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(600)]


def test_the_tutorial_runs_and_prints_what_it_shows(demo_fleet):
    runner = ROOT / "scripts" / "lib" / "run_notebook.py"
    environ = {
        "PARAGONE_CONTROLLER_URL": demo_fleet.controller_url,
        "GRADIO_ANALYTICS_ENABLED": "False",
        "HF_HUB_OFFLINE": "1",
        "NO_PROXY": "*",
    }
    result = subprocess.run(
        [sys.executable, runner, "--check", ROOT / "docs" / "tutorial.ipynb"],
        cwd=ROOT / "docs",
        env=os.environ | environ,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
