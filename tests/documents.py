"""The fenced blocks of the documents, and how a test runs one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]

# One that cannot be run here says so in the line above it, with the reason.
_BLOCK = re.compile(
    r"(?:<!-- not run in the tests: (?P<why>[^\n]+) -->\n)?"
    r"^```(?P<language>\w*)\n(?P<code>.*?)^```",
    re.DOTALL | re.MULTILINE,
)
_INTERPRETERS = {"bash": ["bash", "-euo", "pipefail"], "python": [sys.executable, "-u"]}


@dataclass(frozen=True)
class Block:
    """A fenced block."""

    language: str
    code: str
    why_not: str | None = None

    @property
    def is_command(self) -> bool:
        """Whether it is for a reader to run."""
        return self.language in _INTERPRETERS


def blocks_in(path: str) -> list[Block]:
    """The blocks of a document, by its path in the repository."""
    text = (ROOT / path).read_text(encoding="utf-8")
    return [Block(m["language"], m["code"], m["why"]) for m in _BLOCK.finditer(text)]


def environment(more: Mapping[str, str]) -> dict[str, str]:
    """Ours, with our programs before others, without a hub or a proxy."""
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HF_HUB_OFFLINE": "1",
        "NO_PROXY": "*",
        **more,
    }


def run(
    block: Block, environ: Mapping[str, str] | None = None, *, timeout: float = 200
) -> subprocess.CompletedProcess[str]:
    """What came of a block, run in the repository's folder."""
    return subprocess.run(
        [*_INTERPRETERS[block.language], "-c", block.code],
        cwd=ROOT,
        env=environment(environ or {}),
        stdin=subprocess.DEVNULL,  # an interactive chat ends at once
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
