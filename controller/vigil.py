"""Watches the workers that open requests wait for, and ends the wait when one is hung.

A hung worker accepts connections and answers nothing, so no error tells of it. The signs are two,
and only both together count: its heartbeats are missing, and its answer makes no progress. A slow
worker still beats, and is never cut short.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from controller.worker_record import WorkerRecord

CHECK_SECONDS = 0.25
# Where nobody else could answer, or part of an answer was sent, waiting is all that can help.
GIVE_UP_BEATS = 10


class HungError(Exception):
    """The worker stopped answering."""


@dataclass(slots=True, eq=False)
class Watch:
    """One request's wait for a worker."""

    record: WorkerRecord
    may_move: Callable[[], bool]  # whether another worker could take the request over now
    progress_at: float  # when the last byte came, on the monotonic clock
    patience: asyncio.Timeout

    def is_hung(self, now: float) -> bool:
        """Whether waiting on makes no sense."""
        silence = now - self.progress_at
        if self.record.is_punctual(now) or silence < self.record.late_after_seconds:
            return False
        limit = GIVE_UP_BEATS * self.record.heartbeat_seconds
        if silence >= limit and now - self.record.lease.renewed_at >= limit:
            return True
        return self.may_move()


class Vigil:
    """The watches of all open requests.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, *, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._watches: set[Watch] = set()

    @asynccontextmanager
    async def watch(
        self, record: WorkerRecord, *, may_move: Callable[[], bool]
    ) -> AsyncIterator[Callable[[], None]]:
        """Yields a function to call at each sign of progress.

        Raises:
            HungError: the worker hangs; the block was cancelled.
        """
        try:
            async with asyncio.timeout(None) as patience:
                watch = Watch(record, may_move, self._clock(), patience)
                self._watches.add(watch)

                def progress() -> None:
                    watch.progress_at = self._clock()

                try:
                    yield progress
                finally:
                    self._watches.discard(watch)
        except TimeoutError as exc:
            raise HungError("it stopped answering and missed its heartbeats") from exc

    def check(self) -> None:
        """Ends the waits for hung workers. To be called every `CHECK_SECONDS`."""
        now = self._clock()
        due = asyncio.get_running_loop().time()
        for watch in tuple(self._watches):
            if watch.is_hung(now):
                self._watches.discard(watch)  # once is enough
                watch.patience.reschedule(due)
