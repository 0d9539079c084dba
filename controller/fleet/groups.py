"""The process groups of a running fleet, announced to the guard that outlives the supervisor."""

from __future__ import annotations

import subprocess
import sys
from types import TracebackType
from typing import Self


class ProcessGroups:
    """Keeps the guard's list of process groups up to date. A context manager.

    Leaving it ends the guard, which then kills whatever was not removed.
    """

    def __init__(self) -> None:
        self._live: set[int] = set()
        self._guard = _start_guard()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._guard.communicate()

    def add(self, group: int) -> None:
        """A process group has started."""
        self._live.add(group)
        self._tell(f"+{group}\n")

    def remove(self, group: int) -> None:
        """A process group is gone."""
        self._live.discard(group)
        self._tell(f"-{group}\n")

    def _tell(self, line: str) -> None:
        try:
            self._write(line)
        except BrokenPipeError:  # somebody killed the guard; the next one is told everything
            self._guard.wait()
            self._guard = _start_guard()
            for group in self._live:
                self._write(f"+{group}\n")

    def _write(self, line: str) -> None:
        assert self._guard.stdin is not None  # noqa: S101 - it was asked for; narrows the type
        self._guard.stdin.write(line.encode())  # shorter than PIPE_BUF: written whole


def _start_guard() -> subprocess.Popen[bytes]:
    # In a session of its own, so that no signal meant for the fleet's terminal reaches it.
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "controller.fleet.guard"],
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
