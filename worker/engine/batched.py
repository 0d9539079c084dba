"""Many requests at once: rows join and leave between the decode steps of one batch. No torch."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from queue import SimpleQueue
from typing import Any, Generic

from worker.engine.batch import Batch, BatchModel, Delivery, RowT
from worker.engine.job import Job, PreparedT
from worker.engine.protocol import CacheStats, TextDelta
from worker.engine.queued import QueuedEngine, T
from worker.engine.scheduler import Scheduler

# After this long without a request, memory that waits for the next one is given back. Others keep
# whole models for that long; taking it anew costs a twelfth of the speed of 16 answers at once.
REST_SECONDS = 300.0


class BatchedEngine(QueuedEngine[PreparedT], Generic[PreparedT, RowT]):
    """An `Engine` that decodes up to ``capacity`` answers together.

    The model's thread steps the batch for as long as it has rows, and takes new ones in between.
    What a step brought goes to the loop in one call.

    Args:
        model: what it runs.
        capacity: answers that may be made at once.
        max_waiting: requests that may wait besides.
        kv_tokens: what the model's cache may hold; see `Scheduler`.
        on_device_lost: called on the loop's thread when nothing can run any more.
        clock: monotonic seconds; called from several threads.
    """

    def __init__(
        self,
        model: BatchModel[PreparedT, RowT],
        *,
        capacity: int,
        max_waiting: int,
        kv_tokens: int | None = None,
        on_device_lost: Callable[[str], None] = lambda _reason: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        scheduler = Scheduler(capacity=capacity, max_waiting=max_waiting, kv_tokens=kv_tokens)
        super().__init__(model, scheduler, on_device_lost=on_device_lost, clock=clock)
        self._batched = model
        self._batch = Batch(model, begin=self._answer, clock=clock)  # the model's thread's
        self._inbox: SimpleQueue[Job[PreparedT]] = SimpleQueue()
        self._errands: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._is_stepping = False  # the loop's thread's, as is what follows
        self._has_worked = False  # since it last rested
        self._resting: asyncio.TimerHandle | None = None

    def _start(self, job: Job[PreparedT]) -> None:
        self._has_worked = True
        self._inbox.put(job)
        if not self._is_stepping:
            self._wake()

    def _on_model_thread(self, errand: Callable[[], T]) -> asyncio.Future[T]:
        # Between two steps: the thread itself may be busy for as long as there are answers.
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()

        def run() -> None:
            try:
                result = errand()
            except Exception as exc:  # noqa: BLE001 - it is raised again, where it is awaited
                loop.call_soon_threadsafe(_settle, done, None, exc)
            else:
                loop.call_soon_threadsafe(_settle, done, result, None)

        self._errands.put(run)
        if not self._is_stepping:
            self._wake()
        return done

    def _wake(self) -> None:
        self._is_stepping = True
        self._stay_awake()
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._model_thread, self._work, loop)
        future.add_done_callback(self._pause)

    def _pause(self, done: asyncio.Future[None]) -> None:
        """The batch was empty; but a job may have come in since it was looked at."""
        done.result()
        self._is_stepping = False
        if not (self._inbox.empty() and self._errands.empty()):
            self._wake()
        elif self._has_worked and not self._closed:
            loop = asyncio.get_running_loop()
            self._resting = loop.call_later(REST_SECONDS, self._rest)

    def _rest(self) -> None:
        self._has_worked = False
        self._on_model_thread(self._batched.rest)

    def _stay_awake(self) -> None:
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None

    async def aclose(self) -> None:
        """See `QueuedEngine.aclose`."""
        self._stay_awake()
        await super().aclose()

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        """On the model's thread: steps until no row is left."""
        while True:
            while not self._errands.empty():
                self._errands.get_nowait()()
            while not self._inbox.empty():
                self._batch.join(self._inbox.get_nowait())
            if not self._batch:
                return
            deliveries = self._batch.step()
            self._steps = self._batch.decode_steps
            if deliveries:
                loop.call_soon_threadsafe(self._deliver, deliveries)

    def _tokens_per_second(self) -> float | None:
        return self._batch.tokens_per_second

    def _caches(self) -> CacheStats | None:
        return replace(self._batched.cache_stats(), preemptions=self._batch.preemptions)

    def _deliver(self, deliveries: Sequence[Delivery[PreparedT]]) -> None:
        for job, event in ((each.job, each.event) for each in deliveries):
            if isinstance(event, TextDelta):
                job.events.put_nowait(event)
            else:
                self._finish(job, event)


def _settle(done: asyncio.Future[Any], result: object, error: Exception | None) -> None:
    """Tells what came of an errand, unless nobody waits for it any more."""
    if done.done():
        return
    if error is not None:
        done.set_exception(error)
    else:
        done.set_result(result)
