"""What a changed fleet file did to a running fleet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Changes:
    """The names of the processes, by what was done to them."""

    started: Sequence[str] = ()
    restarted: Sequence[str] = ()
    stopped: Sequence[str] = ()
    untouched: Sequence[str] = ()

    def __str__(self) -> str:
        """One line for people."""
        parts = [
            f"{what}: {', '.join(names)}"
            for what, names in (
                ("started", self.started),
                ("restarted", self.restarted),
                ("stopped", self.stopped),
            )
            if names
        ]
        kept = f"left alone: {', '.join(self.untouched)}" if self.untouched else ""
        return "; ".join([*(parts or ["nothing changed"]), *([kept] if kept else [])])
