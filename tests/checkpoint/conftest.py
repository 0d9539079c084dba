"""Tiny checkpoints in the layouts of the original programs, and what those programs answered."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ORACLE = Path(__file__).parent.parent / "data" / "oracle"

Copy = Callable[..., Path]
Edit = Callable[..., None]


@pytest.fixture(scope="session")
def oracle() -> Path:
    """The folder with the tiny checkpoints, their images, and ``expected.json``."""
    return ORACLE


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    """Copies a tiny checkpoint to where a test may change it."""

    def copy_one(name: str, to: str | None = None) -> Path:
        return Path(shutil.copytree(ORACLE / name, tmp_path / (to or name)))

    return copy_one


@pytest.fixture
def edit() -> Edit:
    """Changes keys of a JSON file; a value of None takes the key away."""

    def edit_one(file: Path, **changes: Any) -> None:
        content = json.loads(file.read_text())
        content.update(changes)
        file.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))

    return edit_one
