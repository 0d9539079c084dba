"""One request after another, on one thread that owns the model. The oracle and the fallback."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Generator
from contextlib import closing
from typing import Protocol

from controller.protocol.errors import ParagoneError
from worker.engine.job import Job, PreparedT, internal_error
from worker.engine.protocol import Finished, SamplingParams
from worker.engine.queued import QueuedEngine, ServedModel
from worker.engine.scheduler import Scheduler


class SequentialModel(ServedModel[PreparedT], Protocol[PreparedT]):
    """A model that this engine can run; see `worker.engine.transformers_model`."""

    def tokens(self, prepared: PreparedT, sampling: SamplingParams) -> Generator[int]:
        """Token after token, without an end of its own; closing it frees its memory.

        Called on the model's thread. Each step happens when its token is asked for.

        Raises:
            OutOfMemoryError: this answer does not fit; others may.
            DeviceLostError: nothing can run on this device any more.
        """
        ...


class SequentialEngine(QueuedEngine[PreparedT]):
    """An `Engine` that runs one request at a time, a whole answer on the model's thread.

    Args:
        model: what it runs.
        max_waiting: requests that may wait while one runs.
        on_device_lost: called on the loop's thread when nothing can run any more.
        clock: monotonic seconds; called from several threads.
    """

    def __init__(
        self,
        model: SequentialModel[PreparedT],
        *,
        max_waiting: int,
        on_device_lost: Callable[[str], None] = lambda _reason: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        scheduler = Scheduler(capacity=1, max_waiting=max_waiting)
        super().__init__(model, scheduler, on_device_lost=on_device_lost, clock=clock)
        self._model = model

    def _start(self, job: Job[PreparedT]) -> None:
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._model_thread, job.context.run, self._run, job, loop)
        future.add_done_callback(lambda done: self._finish(job, done.result()))

    def _run(
        self, job: Job[PreparedT], loop: asyncio.AbstractEventLoop
    ) -> Finished | ParagoneError:
        """On the model's thread: a whole answer, or why there is none."""
        try:
            return self._generate(job, loop)
        except ParagoneError as exc:
            return exc
        except Exception as exc:  # noqa: BLE001 - the edge of the thread; it is logged
            return internal_error(exc, "generating", job.request)

    def _generate(self, job: Job[PreparedT], loop: asyncio.AbstractEventLoop) -> Finished:
        """The only place where the model is used."""
        timing = job.timing
        timing.started = self._clock()
        answer = self._answer(job)
        with closing(self._model.tokens(job.prompt, job.request.sampling)) as tokens:
            while answer.finish_reason is None and not job.aborted.is_set():
                token_id = next(tokens, None)
                if token_id is None:
                    raise RuntimeError("the model stopped making tokens")
                timing.mark_token(self._clock())
                if timing.tokens > 1:
                    self._steps += 1
                delta = answer.push(token_id)
                if delta is not None:
                    loop.call_soon_threadsafe(job.events.put_nowait, delta)
        return job.finished(answer, self._clock())
