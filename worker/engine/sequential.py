"""One request after another, on one thread that owns the model. The oracle and the fallback.

The event loop's thread keeps the queue; the model's thread runs one answer at a time and hands
each token's text back. A third thread makes prompts and pixels, so that neither waits for them.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Generator, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from controller.protocol.chat import FinishReason, PromptTokensDetails, Usage
from controller.protocol.errors import (
    ContextLengthError,
    DeviceLostError,
    DrainingError,
    InternalError,
    ParagoneError,
)
from controller.protocol.fleet import ModelCard
from worker.engine.answer import Answer
from worker.engine.protocol import (
    Accepted,
    EngineStats,
    Finished,
    GenerationEvent,
    GenerationRequest,
    SamplingParams,
    TextDelta,
)
from worker.engine.scheduler import Phase, Scheduler, Ticket
from worker.engine.timing import Timing

_log = logging.getLogger(__name__)

# The pace that is reported is taken over this many recent answers.
RECENT_ANSWERS = 16


class Prepared(Protocol):
    """A prompt that is ready for the model."""

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt, those that stand for images included."""
        ...

    @property
    def image_tokens(self) -> int:
        """Tokens that stand for images."""
        ...


PreparedT = TypeVar("PreparedT", bound=Prepared)


class SequentialModel(Protocol[PreparedT]):
    """A model that this engine can run; see `worker.engine.transformers_model`."""

    @property
    def card(self) -> ModelCard:
        """What it is."""
        ...

    @property
    def context_length(self) -> int:
        """Tokens that prompt and answer may have together."""
        ...

    @property
    def end_token_ids(self) -> Set[int]:
        """Tokens that end an answer."""
        ...

    def prepare(self, request: GenerationRequest) -> PreparedT:
        """Prompt and pixels. Called on the preparing thread.

        Raises:
            BadRequestError: the messages cannot be put into this model's prompt.
        """
        ...

    def decode(self, token_ids: Sequence[int]) -> str:
        """Ids to text, special tokens left out. Called on the model's thread."""
        ...

    def device_memory_bytes(self) -> int | None:
        """What it holds of its device's memory; None where that is the process's own. Cheap."""
        ...

    def tokens(self, prepared: PreparedT, sampling: SamplingParams) -> Generator[int]:
        """Token after token, without an end of its own; closing it frees its memory.

        Called on the model's thread. Each step happens when its token is asked for.

        Raises:
            OutOfMemoryError: this answer does not fit; others may.
            DeviceLostError: nothing can run on this device any more.
        """
        ...


@dataclass(slots=True, eq=False)
class _Job(Generic[PreparedT]):
    """An accepted request. ``aborted`` is read by the model's thread before each step."""

    request: GenerationRequest
    ticket: Ticket
    timing: Timing
    # The request's own, so that its id is on the log lines of the other threads too.
    context: contextvars.Context = field(default_factory=contextvars.copy_context)
    events: asyncio.Queue[GenerationEvent | ParagoneError] = field(default_factory=asyncio.Queue)
    aborted: threading.Event = field(default_factory=threading.Event)
    prepared: PreparedT | None = None


class SequentialEngine(Generic[PreparedT]):
    """An `Engine` that runs one request at a time.

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
        self._model = model
        self._scheduler = Scheduler(capacity=1, max_waiting=max_waiting)
        self._on_device_lost = on_device_lost
        self._clock = clock
        self._jobs: dict[Ticket, _Job[PreparedT]] = {}
        self._model_thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._preparing_thread = ThreadPoolExecutor(1, thread_name_prefix="prepare")
        self._closed = False
        self._steps = 0  # written by the model's thread alone
        self._recent: deque[tuple[int, float]] = deque(maxlen=RECENT_ANSWERS)  # tokens, seconds

    @property
    def models(self) -> tuple[ModelCard, ...]:
        """The one model."""
        return (self._model.card,)

    def stats(self) -> EngineStats:
        """A snapshot; cheap."""
        tokens = sum(count for count, _ in self._recent)
        seconds = sum(duration for _, duration in self._recent)
        return EngineStats(
            running=self._scheduler.running,
            waiting=self._scheduler.waiting,
            capacity=self._scheduler.capacity,
            decode_steps=self._steps,
            tokens_per_second=round(tokens / seconds, 2) if seconds > 0 else None,
            device_memory_bytes=self._model.device_memory_bytes(),
        )

    def check_room(self) -> None:
        """Raises QueueFullError if a request would not be accepted now."""
        self._scheduler.check_room()

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent]:
        """See `Engine.generate`."""
        if self._closed:
            raise _shutting_down()
        now = self._clock()
        ticket = self._scheduler.admit(now)
        arrived = now if request.arrived is None else request.arrived
        job: _Job[PreparedT] = _Job(request, ticket, Timing(arrived))
        self._jobs[ticket] = job
        try:
            prepared = await asyncio.get_running_loop().run_in_executor(
                self._preparing_thread, job.context.run, self._prepare, job
            )
            if job.aborted.is_set():
                raise _shutting_down()
            job.prepared = prepared
            self._scheduler.mark_ready(ticket)
            self._start_next()
            yield Accepted(prepared.prompt_tokens, prepared.image_tokens)
            while True:
                event = await job.events.get()
                if isinstance(event, ParagoneError):
                    raise event
                yield event
                if isinstance(event, Finished):
                    return
        finally:
            # Whoever runs gives its place up when the model's thread has let go of it.
            job.aborted.set()
            if ticket.phase in {Phase.PREPARING, Phase.WAITING}:
                self._end(job)

    def abort_all(self) -> None:
        """See `Engine.abort_all`."""
        for job in tuple(self._jobs.values()):
            job.aborted.set()
            if job.ticket.phase is Phase.WAITING:
                self._scheduler.end(job.ticket, self._clock())
                del self._jobs[job.ticket]
                job.events.put_nowait(_shutting_down())

    async def aclose(self) -> None:
        """Aborts what is left, and returns when the threads have ended."""
        self._closed = True
        self.abort_all()
        await asyncio.to_thread(self._model_thread.shutdown)
        await asyncio.to_thread(self._preparing_thread.shutdown)

    def _prepare(self, job: _Job[PreparedT]) -> PreparedT:
        try:
            prepared = self._model.prepare(job.request)
        except ParagoneError:
            raise
        except Exception as exc:
            raise _internal_error(exc, "preparing the prompt", job.request) from exc
        limit = self._model.context_length
        if prepared.prompt_tokens >= limit:
            images = f", {prepared.image_tokens} of them for images," if job.request.images else ""
            raise ContextLengthError(
                f"The prompt has {prepared.prompt_tokens} tokens{images} and this model's context "
                f"holds {limit} with the answer; shorten the conversation or send fewer images",
                param="messages",
            )
        return prepared

    def _start_next(self) -> None:
        ticket = self._scheduler.start_next(self._clock())
        if ticket is None:
            return
        job = self._jobs[ticket]
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._model_thread, job.context.run, self._run, job, loop)
        future.add_done_callback(lambda done: self._after_run(job, done))

    def _after_run(self, job: _Job[PreparedT], done: asyncio.Future[Finished]) -> None:
        """The one end of a request that ran."""
        self._end(job)
        try:
            finished = done.result()
        except ParagoneError as exc:
            job.events.put_nowait(exc)
            if isinstance(exc, DeviceLostError):
                self._on_device_lost(exc.message)
            return
        seconds = (finished.metrics.generation_time_ms or 0.0) / 1000
        self._recent.append((max(0, job.timing.tokens - 1), seconds))
        job.events.put_nowait(finished)

    def _end(self, job: _Job[PreparedT]) -> None:
        self._scheduler.end(job.ticket, self._clock())
        del self._jobs[job.ticket]
        self._start_next()

    def _run(self, job: _Job[PreparedT], loop: asyncio.AbstractEventLoop) -> Finished:
        """On the model's thread: a whole answer. Fails with nothing but a ParagoneError."""
        try:
            return self._answer(job, loop)
        except ParagoneError:
            raise
        except Exception as exc:
            raise _internal_error(exc, "generating", job.request) from exc

    def _answer(self, job: _Job[PreparedT], loop: asyncio.AbstractEventLoop) -> Finished:
        """The only place where the model is used."""
        timing, prepared = job.timing, job.prepared
        if prepared is None:
            raise RuntimeError("a request runs only when it is prepared")
        timing.started = self._clock()
        sampling = job.request.sampling
        room = self._model.context_length - prepared.prompt_tokens
        answer = Answer(
            decode=self._model.decode,
            end_token_ids=self._model.end_token_ids,
            stop=sampling.stop,
            max_tokens=room if sampling.max_tokens is None else min(room, sampling.max_tokens),
        )
        reason = FinishReason.ABORT
        with closing(self._model.tokens(prepared, sampling)) as tokens:
            while not job.aborted.is_set():
                token_id = next(tokens, None)
                if token_id is None:
                    raise RuntimeError("the model stopped making tokens")
                timing.mark_token(self._clock())
                if timing.tokens > 1:
                    self._steps += 1
                text = answer.push(token_id)
                if text:
                    loop.call_soon_threadsafe(job.events.put_nowait, TextDelta(text))
                if answer.finish_reason is not None:
                    reason = answer.finish_reason
                    break
        usage = Usage(
            prompt_tokens=prepared.prompt_tokens,
            completion_tokens=answer.token_count,
            total_tokens=prepared.prompt_tokens + answer.token_count,
            prompt_tokens_details=PromptTokensDetails(image_tokens=prepared.image_tokens),
        )
        return Finished(reason, usage, timing.metrics(self._clock()))


def _shutting_down() -> DrainingError:
    return DrainingError(
        "This worker is shutting down and had not begun this request; send it again",
        retry_after_seconds=1,
    )


def _internal_error(exc: Exception, doing: str, request: GenerationRequest) -> InternalError:
    _log.error("%s failed while %s for %s", request.model, doing, request.request_id, exc_info=exc)
    return InternalError(
        f"{type(exc).__name__} while {doing}; the worker's log has the cause under request id "
        f"{request.request_id}"
    )
