"""Watches the workers that open requests wait for, and ends the wait when one is hung.

A hung worker accepts connections and answers nothing, so no error tells of it. The signs are two,
and only both together count: its heartbeats are missing, and its answer makes no progress. A slow
worker still beats, and is never cut short.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType

from controller.worker_record import WorkerRecord

CHECK_SECONDS = 0.25
# Where nobody else could answer, or part of an answer was sent, waiting is all that can help.
GIVE_UP_BEATS = 10


class HungError(Exception):
    """The worker stopped answering."""


class Watch:
    """``with`` it, inside a task: one request's wait for a worker, cancelled if the worker hangs.

    Not an `asyncio.timeout`, which would be most of what a short request's wait costs.

    Args:
        watches: where it is entered while the block runs.
        record: the worker.
        may_move: whether another worker could take the request over now.
        clock: monotonic seconds.
    """

    __slots__ = (
        "_cancellations_before",
        "_clock",
        "_hangs",
        "_may_move",
        "_progress_at",
        "_record",
        "_task",
        "_watches",
    )

    def __init__(
        self,
        watches: set[Watch],
        record: WorkerRecord,
        may_move: Callable[[], bool],
        clock: Callable[[], float],
    ) -> None:
        self._watches = watches
        self._record = record
        self._may_move = may_move
        self._clock = clock
        self._progress_at = clock()  # when the last byte came
        self._hangs = False

    def __enter__(self) -> Callable[[], None]:
        """Begins the watch; the function is to be called at each sign of progress."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a Watch works inside a task")
        self._task = task
        self._cancellations_before = task.cancelling()
        self._watches.add(self)
        return self._note_progress

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._watches.discard(self)
        if not self._hangs:
            return
        others = self._task.uncancel() > self._cancellations_before
        if kind is asyncio.CancelledError and not others:
            raise HungError("it stopped answering and missed its heartbeats") from exc

    def _note_progress(self) -> None:
        self._progress_at = self._clock()

    def is_hung(self, now: float) -> bool:
        """Whether waiting on makes no sense."""
        silence = now - self._progress_at
        if self._record.is_punctual(now) or silence < self._record.late_after_seconds:
            return False
        limit = GIVE_UP_BEATS * self._record.heartbeat_seconds
        if silence >= limit and now - self._record.lease.renewed_at >= limit:
            return True
        return self._may_move()

    def give_up(self) -> None:
        """Ends the wait."""
        self._watches.discard(self)  # once is enough
        self._hangs = True
        self._task.cancel()


class Vigil:
    """The watches of all open requests.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, *, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._watches: set[Watch] = set()

    def watch(self, record: WorkerRecord, *, may_move: Callable[[], bool]) -> Watch:
        """Watches a wait for a worker; its block raises HungError if the worker hangs."""
        return Watch(self._watches, record, may_move, self._clock)

    def check(self) -> None:
        """Ends the waits for hung workers. To be called every `CHECK_SECONDS`."""
        now = self._clock()
        for watch in tuple(self._watches):
            if watch.is_hung(now):
                watch.give_up()
