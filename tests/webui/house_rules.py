"""An operator's own say on questions, for `--moderate`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


async def no_unicorns(text: str, images: Sequence[Path]) -> str | None:
    """Refuses questions about unicorns."""
    return "No unicorns in this house." if "unicorn" in text.lower() else None
