"""Tiny checkpoints in the layouts of the original programs, and what those programs answered."""

from __future__ import annotations

from pathlib import Path

import pytest

ORACLE = Path(__file__).parent.parent / "data" / "oracle"


@pytest.fixture(scope="session")
def oracle() -> Path:
    """The folder with the tiny checkpoints, their images, and ``expected.json``."""
    return ORACLE
