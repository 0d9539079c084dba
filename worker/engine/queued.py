"""What engines have in common: a bounded line of requests, and one end for each. No torch.

The event loop's thread keeps the line; a thread of its own makes prompts and pixels, so that
neither the loop nor the model waits for them. What runs on the model's thread is the engine's own.
"""

from __future__ import annotations

import asyncio
import contextvars
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, Protocol, TypeVar

from controller.protocol.errors import (
    ConflictError,
    ContextLengthError,
    DeviceLostError,
    ParagoneError,
    QueueFullError,
)
from controller.protocol.fleet import ModelCard
from worker.engine.answer import Answer
from worker.engine.job import (
    Job,
    Prepared,
    PreparedT,
    Served,
    internal_error,
    shutting_down,
)
from worker.engine.protocol import (
    Accepted,
    CacheStats,
    EngineStats,
    Finished,
    GenerationEvent,
    GenerationRequest,
    PromptView,
)
from worker.engine.scheduler import Phase, Scheduler, Ticket
from worker.engine.timing import Timing

# The pace that is reported is taken over this many recent answers.
RECENT_ANSWERS = 16
# They share the preparing thread with requests, which are not to wait long for them.
MAX_PREVIEWS = 4

# Tokens before the first of a continued text that say whether it begins with a space: some, and
# the bytes of a character that they may begin within.
CONTEXT_TOKENS = 9

PreparedT_co = TypeVar("PreparedT_co", bound=Prepared, covariant=True)
T = TypeVar("T")


class ServedModel(Protocol[PreparedT_co]):
    """What every engine asks of its model, which may be several over one base."""

    @property
    def cards(self) -> tuple[ModelCard, ...]:
        """What it is, by each of its names."""
        ...

    def serving(self, model: str) -> Served:
        """One of them.

        Raises:
            ModelNotFoundError: there is none of that name, or not any more.
        """
        ...

    def prepare(self, request: GenerationRequest) -> PreparedT_co:
        """Prompt and pixels. Called on the preparing thread.

        Raises:
            BadRequestError: the messages cannot be put into this model's prompt.
        """
        ...

    def preview(self, request: GenerationRequest) -> PromptView:
        """What it would be asked. Called on the preparing thread.

        Raises:
            BadRequestError: as `prepare`, or the images cannot be shown.
        """
        ...

    def read_adapter(self, name: str, path: str) -> Callable[[], ModelCard]:
        """Reads an adapter, on the preparing thread; the call serves it, on the model's.

        Raises:
            UnsupportedError: it takes none.
            BadRequestError: it cannot be read, or does not fit.
        """
        ...

    def dismiss(self, name: str) -> Callable[[], None]:
        """Serves an adapter no longer; the call frees it, on the model's thread.

        Raises:
            ModelNotFoundError: there is no adapter of that name.
        """
        ...

    def device_memory_bytes(self) -> int | None:
        """What it holds of its device's memory; None where that is the process's own. Cheap."""
        ...


class QueuedEngine(ABC, Generic[PreparedT]):
    """An `Engine` without its model's thread.

    Args:
        model: what it runs.
        scheduler: who may wait, and who runs next.
        on_device_lost: called on the loop's thread when nothing can run any more.
        clock: monotonic seconds; called from several threads.
    """

    def __init__(
        self,
        model: ServedModel[PreparedT],
        scheduler: Scheduler,
        *,
        on_device_lost: Callable[[str], None],
        clock: Callable[[], float],
    ) -> None:
        self._served = model
        self._scheduler = scheduler
        self._on_device_lost = on_device_lost
        self._clock = clock
        self._jobs: dict[Ticket, Job[PreparedT]] = {}
        self._model_thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._preparing_thread = ThreadPoolExecutor(1, thread_name_prefix="prepare")
        self._closed = False
        self._arriving: set[str] = set()  # adapters that are being read
        # Dismissed adapters that are not free yet, by name; None while one is being freed.
        self._retiring: dict[str, Callable[[], None] | None] = {}
        self._retirements: set[asyncio.Task[None]] = set()
        self._previews = 0  # that are being made
        self._is_lost = False
        self._steps = 0  # written by the model's thread alone
        self._recent: deque[tuple[int, float]] = deque(maxlen=RECENT_ANSWERS)  # tokens, seconds

    @property
    def models(self) -> tuple[ModelCard, ...]:
        """What can be asked."""
        return self._served.cards

    def stats(self) -> EngineStats:
        """A snapshot; cheap."""
        return EngineStats(
            running=self._scheduler.running,
            waiting=self._scheduler.waiting,
            capacity=self._scheduler.capacity,
            decode_steps=self._steps,
            tokens_per_second=self._tokens_per_second(),
            device_memory_bytes=self._served.device_memory_bytes(),
            caches=self._caches(),
        )

    def check_room(self, answers: int = 1) -> None:
        """See `Engine.check_room`."""
        self._scheduler.check_room(answers)

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent]:
        """See `Engine.generate`."""
        if self._closed:
            raise shutting_down()
        served = self._served.serving(request.model)
        now = self._clock()
        ticket = self._scheduler.admit(now)
        arrived = now if request.arrived is None else request.arrived
        job: Job[PreparedT] = Job(request, served, ticket, Timing(arrived))
        self._jobs[ticket] = job
        try:
            prepared = await self._in_time(
                job,
                asyncio.get_running_loop().run_in_executor(
                    self._preparing_thread, job.context.run, self._prepare, job
                ),
            )
            if job.aborted.is_set():
                raise shutting_down()
            job.prepared = prepared
            self._scheduler.mark_ready(ticket, job.expected_tokens)
            self._start_waiting()
            yield Accepted(prepared.prompt_tokens, prepared.image_tokens)
            while True:
                event = await self._in_time(job, job.events.get())
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

    async def preview(self, request: GenerationRequest) -> PromptView:
        """See `Engine.preview`."""
        if self._closed:
            raise shutting_down()
        if self._previews >= MAX_PREVIEWS:
            raise QueueFullError(
                f"{self._previews} previews are being made; come back in a moment",
                retry_after_seconds=1,
            )
        self._previews += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._preparing_thread, contextvars.copy_context().run, self._preview, request
            )
        finally:
            self._previews -= 1

    async def load_adapter(self, name: str, path: str) -> ModelCard:
        """See `Engine.load_adapter`."""
        taken = {card.name for card in self.models} | self._retiring.keys() | self._arriving
        if name in taken:
            raise ConflictError(
                f"{name!r} is served here, is being loaded, or its last answers are still being "
                "made; choose another name, or unload it first",
                param="lora_name",
            )
        self._arriving.add(name)
        try:
            loop = asyncio.get_running_loop()
            put = await loop.run_in_executor(
                self._preparing_thread, self._served.read_adapter, name, path
            )
            return await self._on_model_thread(put)
        finally:
            self._arriving.remove(name)

    async def unload_adapter(self, name: str) -> None:
        """See `Engine.unload_adapter`."""
        self._retiring[name] = self._served.dismiss(name)
        await self._retire(name)

    async def _retire(self, name: str) -> None:
        """Frees a dismissed adapter once nothing uses it."""
        if any(job.request.model == name for job in self._jobs.values()):
            return  # the last of them comes here again
        free = self._retiring.get(name)
        if free is None:
            return  # answers that ended in the same step come here one after another
        self._retiring[name] = None
        try:
            await self._on_model_thread(free)
        finally:
            del self._retiring[name]

    def _on_model_thread(self, errand: Callable[[], T]) -> asyncio.Future[T]:
        """Runs something between answers, or between their steps."""
        return asyncio.get_running_loop().run_in_executor(self._model_thread, errand)

    def abort_all(self) -> None:
        """See `Engine.abort_all`."""
        for job in tuple(self._jobs.values()):
            job.aborted.set()
            if job.ticket.phase is Phase.WAITING:
                self._scheduler.end(job.ticket, self._clock())
                del self._jobs[job.ticket]
                job.events.put_nowait(shutting_down())

    async def aclose(self) -> None:
        """Aborts what is left, and returns when the threads have ended."""
        self._closed = True
        self.abort_all()
        await asyncio.to_thread(self._model_thread.shutdown)
        await asyncio.to_thread(self._preparing_thread.shutdown)

    @abstractmethod
    def _start(self, job: Job[PreparedT]) -> None:
        """Hands a job to the model's thread, which ends it with `_finish`. It never blocks."""

    def _finish(self, job: Job[PreparedT], outcome: Finished | ParagoneError) -> None:
        """The one end of a request that ran; on the loop's thread."""
        self._end(job)
        job.events.put_nowait(outcome)
        if isinstance(outcome, Finished):
            seconds = (outcome.metrics.generation_time_ms or 0.0) / 1000
            self._recent.append((max(0, job.timing.tokens - 1), seconds))
        elif isinstance(outcome, DeviceLostError) and not self._is_lost:
            self._is_lost = True
            self._on_device_lost(outcome.message)

    async def _in_time(self, job: Job[PreparedT], awaited: Awaitable[T]) -> T:
        """What is awaited, if it comes before the request's deadline.

        Raises:
            DeadlineError: it does not.
        """
        deadline = job.deadline
        if deadline is None:
            return await awaited
        try:
            async with asyncio.timeout(max(0.0, deadline - self._clock())):
                return await awaited
        except TimeoutError as exc:
            raise job.too_late() from exc

    def _answer(self, job: Job[PreparedT]) -> Answer:
        """The beginning of a job's answer."""
        prompt, request = job.prompt, job.request
        messages = request.messages
        # A text of one's own, or an answer of which the beginning was sent along.
        continues = request.prompt is not None or (messages and messages[-1].role == "assistant")
        return Answer(
            decode=job.served.decode,
            token_bytes=job.served.token_bytes,
            asked=request.sampling,
            end_token_ids=job.served.end_token_ids | prompt.stop_token_ids,
            end_strings=prompt.stop_strings,
            max_tokens=job.max_answer_tokens,
            context=prompt.input_ids[-CONTEXT_TOKENS:] if continues else (),
        )

    def _tokens_per_second(self) -> float | None:
        """The pace of recent answers, all streams together."""
        tokens = sum(count for count, _ in self._recent)
        seconds = sum(duration for _, duration in self._recent)
        return round(tokens / seconds, 2) if seconds > 0 else None

    def _caches(self) -> CacheStats | None:
        """What is kept between requests."""
        return None

    def _prepare(self, job: Job[PreparedT]) -> PreparedT:
        try:
            prepared = self._served.prepare(job.request)
        except ParagoneError:
            raise
        except Exception as exc:
            raise internal_error(exc, "preparing the prompt", job.request) from exc
        limit = job.served.context_length
        if prepared.prompt_tokens >= limit:
            images, fewer = "", ""
            if job.request.images:
                images = f", {prepared.image_tokens} of them for images,"
                fewer = " or send fewer images"
            asked = "conversation" if job.request.prompt is None else "prompt"
            raise ContextLengthError(
                f"The prompt has {prepared.prompt_tokens} tokens{images} and this model's context "
                f"holds {limit} with the answer; shorten the {asked}{fewer}",
                param="messages" if job.request.prompt is None else "prompt",
            )
        return prepared

    def _preview(self, request: GenerationRequest) -> PromptView:
        try:
            return self._served.preview(request)
        except ParagoneError:
            raise
        except Exception as exc:
            raise internal_error(exc, "making a preview", request) from exc

    def _start_waiting(self) -> None:
        while (ticket := self._scheduler.start_next(self._clock())) is not None:
            self._start(self._jobs[ticket])

    def _end(self, job: Job[PreparedT]) -> None:
        self._scheduler.end(job.ticket, self._clock())
        del self._jobs[job.ticket]
        if job.request.model in self._retiring:
            task = asyncio.get_running_loop().create_task(self._retire(job.request.model))
            self._retirements.add(task)
            task.add_done_callback(self._retirements.discard)
        self._start_waiting()
