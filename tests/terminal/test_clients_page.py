"""The commands of docs/clients.md, run against the demo fleet; and what is kept of the others."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "clients.md").read_text(encoding="utf-8")
TRIED = (ROOT / "docs" / "clients-tried.txt").read_text(encoding="utf-8")
ENTRIES = ROOT / "scripts" / "clients" / "entries"
_BLOCK = re.compile(
    r"(?P<marked><!-- not run in the tests: [^\n]+ -->\n)?"
    r"```(?P<language>bash|python)\n(?P<code>.*?)```",
    re.DOTALL,
)
BLOCKS = [(m["language"], m["code"]) for m in _BLOCK.finditer(PAGE) if m["marked"] is None]


@pytest.mark.fleet
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("language", "code"), BLOCKS, ids=[code[:40] for _, code in BLOCKS])
def test_a_command_of_the_page_answers(demo_fleet, language, code):
    code = code.replace("http://127.0.0.1:21001", demo_fleet.controller_url)
    interpreter = {"bash": ["bash", "-euo", "pipefail"], "python": [sys.executable]}[language]
    result = subprocess.run(
        [*interpreter, "-c", code],
        cwd=ROOT,
        env={
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PARAGONE_CONTROLLER_URL": demo_fleet.controller_url,
            "HF_HUB_OFFLINE": "1",
            "NO_PROXY": "*",
        },
        stdin=subprocess.DEVNULL,  # an interactive chat ends at once
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    if "escribe the image" in code:
        assert "circle" in result.stdout


def test_every_client_that_was_tried_has_its_output_kept():
    assert set(re.findall(r"^== (.+) ==$", TRIED, re.MULTILINE)) == {
        folder.name for folder in ENTRIES.iterdir()
    }
