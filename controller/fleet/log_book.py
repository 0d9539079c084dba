"""The last lines of each process of a running fleet, and those who follow them."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterator

# Lines of a process that are kept, across its restarts.
_KEPT_LINES = 2000

# Lines that may wait for a reader who is slow; what comes beyond them is dropped and counted.
_BACKLOG = 1000


class Follower:
    """Lines that are still to come, for one reader."""

    def __init__(self, wanted: Callable[[str], bool]) -> None:
        self._wanted = wanted
        self._queue: asyncio.Queue[tuple[str, str]] = asyncio.Queue(_BACKLOG)
        self._dropped = 0

    def offer(self, name: str, line: str) -> None:
        """A line was written."""
        if not self._wanted(name):
            return
        try:
            self._queue.put_nowait((name, line))
        except asyncio.QueueFull:
            self._dropped += 1

    async def next(self) -> tuple[str, str]:
        """The next line, with the name of its process."""
        if self._dropped and self._queue.empty():
            dropped, self._dropped = self._dropped, 0
            return "", f"({dropped} lines were not read in time)"
        return await self._queue.get()


class LogBook:
    """What the processes of a fleet wrote, in memory and within a bound."""

    def __init__(self) -> None:
        self._lines: dict[str, deque[str]] = {}
        self._followers: set[Follower] = set()

    def add(self, name: str, line: str) -> None:
        """A process wrote a line, or the supervisor one about it."""
        self._lines.setdefault(name, deque(maxlen=_KEPT_LINES)).append(line)
        for follower in self._followers:
            follower.offer(name, line)

    def tail(self, name: str, count: int) -> list[str]:
        """The last lines of a process; all that are kept if there are fewer."""
        lines = list(self._lines.get(name, ()))
        return lines[max(0, len(lines) - count) :]

    @contextlib.contextmanager
    def following(self, wanted: Callable[[str], bool]) -> Iterator[Follower]:
        """Lines from now on, of the processes whose names are wanted."""
        follower = Follower(wanted)
        self._followers.add(follower)
        try:
            yield follower
        finally:
            self._followers.discard(follower)
