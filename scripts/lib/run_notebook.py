"""Runs a notebook's cells as Jupyter does, with a loop running, and keeps what they print.

    .venv/bin/python scripts/lib/run_notebook.py docs/tutorial.ipynb           writes the outputs
    .venv/bin/python scripts/lib/run_notebook.py --check docs/tutorial.ipynb   compares them

It knows printed text alone: a notebook that displays other things needs Jupyter itself.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import difflib
import io
import json
import sys
from pathlib import Path
from typing import Any


async def run(notebook: dict[str, Any]) -> list[str]:
    """What each code cell prints; whatever a cell raises is raised."""
    space: dict[str, Any] = {"__name__": "__main__"}
    printed = []
    for number, cell in enumerate(code_cells(notebook), start=1):
        out = io.StringIO()
        code = compile("".join(cell["source"]), f"<cell {number}>", "exec")
        with contextlib.redirect_stdout(out):
            exec(code, space)  # within the running loop, so that what cannot bear it shows
        printed.append(out.getvalue())
        await asyncio.sleep(0)
    return printed


def code_cells(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def kept(cell: dict[str, Any]) -> str:
    return "".join("".join(output["text"]) for output in cell["outputs"])


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("notebook", type=Path)
    parser.add_argument("--check", action="store_true", help="compare, and write nothing")
    arguments = parser.parse_args()
    notebook = json.loads(arguments.notebook.read_text(encoding="utf-8"))
    printed = asyncio.run(run(notebook))
    differs = False
    for number, (cell, text) in enumerate(zip(code_cells(notebook), printed, strict=True), 1):
        lines = text.splitlines(keepends=True)
        if arguments.check:
            before = kept(cell).splitlines(keepends=True)
            diff = list(difflib.unified_diff(before, lines, f"cell {number}, kept", "now"))
            differs = differs or bool(diff)
            sys.stdout.writelines(diff)
        cell["execution_count"] = number
        stream = {"name": "stdout", "output_type": "stream", "text": lines}
        cell["outputs"] = [stream] if lines else []
    if not arguments.check:
        text = json.dumps(notebook, indent=1, ensure_ascii=False)
        arguments.notebook.write_text(text + "\n", encoding="utf-8")
    return int(differs)


if __name__ == "__main__":
    sys.exit(main())
