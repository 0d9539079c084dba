"""Which worker a request goes to, and the wait until one has room."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from types import TracebackType

from controller.breaker import BreakerState
from controller.calls import RelayRequest, can_ask
from controller.dispatch import DispatchPolicy
from controller.lines import Lines, Place
from controller.metrics import Metrics
from controller.protocol.errors import ParagoneError, QueueTimeoutError, UnsupportedError
from controller.registry import Registry
from controller.reply import Reply
from controller.routing import RoutingHints
from controller.worker_record import Carrying, WorkerRecord


class NobodyLeftError(Exception):
    """All workers of the model were tried."""


class Visit(Carrying):
    """``with`` it: a request is with a worker, perhaps as its breaker's probe.

    When it leaves, the next one in line looks.

    Args:
        record: the worker.
        hints: of the request.
        lines: where others wait.
    """

    __slots__ = ("_lines", "_model", "_probe")

    def __init__(self, record: WorkerRecord, hints: RoutingHints, lines: Lines) -> None:
        super().__init__(record, hints.tokens)
        self._model = hints.model
        self._lines = lines
        self._probe: ExitStack | None = None

    def __enter__(self) -> None:
        breaker = self._record.breaker
        if breaker.state is BreakerState.HALF_OPEN:
            self._probe = ExitStack()
            self._probe.enter_context(breaker.probe())
        super().__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        super().__exit__(kind, exc, traceback)
        if self._probe is not None:
            self._probe.close()
        self._lines.note_departure(self._model)
        if not self._lines.are_empty:
            self._lines.wake(self._record.model_names)


class Choosing:
    """Chooses workers for requests.

    Args:
        registry: who lives.
        policy: who of those that have room is chosen.
        lines: where requests wait for room.
        metrics: what is counted.
        patience_seconds: how long a request may wait for room.
        clock: monotonic seconds.
        rng: the policies' chance.
    """

    def __init__(
        self,
        registry: Registry,
        policy: DispatchPolicy,
        lines: Lines,
        metrics: Metrics,
        *,
        patience_seconds: float,
        clock: Callable[[], float],
        rng: random.Random,
    ) -> None:
        self._registry = registry
        self._policy = policy
        self._lines = lines
        self._metrics = metrics
        self._patience_seconds = patience_seconds
        self._clock = clock
        self._rng = rng
        registry.on_news(lambda record: lines.wake(record.model_names))

    async def choose(
        self, request: RelayRequest, reply: Reply, tried: Sequence[WorkerRecord]
    ) -> WorkerRecord:
        """The worker to ask now; the caller goes on to `carrying` before anything else runs.

        A request that was with a worker before waits at the head of the line.

        Raises:
            NobodyLeftError: all were tried.
            NotFoundError, UnavailableError: there is nobody to ask.
            QueueFullError, QueueTimeoutError: nobody has room, and the line is full, or was too
                long.
        """
        model = request.hints.model
        if tried or not self._lines.waiting(model):
            record = self._pick(request, reply, tried)
            if record is not None:
                return record
        began = self._clock()
        with self._lines.join(model, ahead=bool(tried)) as place:
            try:
                while True:
                    place.may_look.clear()
                    if place.is_first:
                        record = self._pick(request, reply, tried)
                        if record is not None:
                            return record
                    await self._wait(place, reply, model, began)
            finally:
                self._metrics.of_model(model).queue.observe(self._clock() - began)

    def others(
        self, request: RelayRequest, reply: Reply, tried: Sequence[WorkerRecord]
    ) -> list[WorkerRecord]:
        """The workers that have not been tried yet."""
        try:
            rotation = self._registry.rotation(request.hints.model)
        except ParagoneError:  # all of them are gone by now
            return []
        return [r for r in rotation if r not in tried and can_ask(r, reply)]

    def carrying(self, record: WorkerRecord, hints: RoutingHints) -> Visit:
        """Counts a request as with a worker while the block runs, then lets the next one look."""
        return Visit(record, hints, self._lines)

    def _pick(
        self, request: RelayRequest, reply: Reply, tried: Sequence[WorkerRecord]
    ) -> WorkerRecord | None:
        """A worker that has room; None if nobody has."""
        if tried:
            candidates = self.others(request, reply, tried)
            if not candidates:
                raise NobodyLeftError
        else:
            rotation = self._registry.rotation(request.hints.model)
            candidates = [record for record in rotation if can_ask(record, reply)]
            if not candidates:
                raise UnsupportedError(
                    f"The model {request.hints.model!r} is served by an external server that does "
                    f"not speak this wire; ask for it at /v1/chat/completions",
                    param="model",
                )
        with_room = [record for record in candidates if record.has_room]
        if len(with_room) < 2:  # there is nothing to choose
            return with_room[0] if with_room else None
        return self._policy(with_room, request.hints, self._rng)

    async def _wait(self, place: Place, reply: Reply, model: str, began: float) -> None:
        """Until there may be room; meanwhile the client is told that somebody is there.

        Raises:
            QueueTimeoutError: it has waited its time.
        """
        left = self._patience_seconds - (self._clock() - began)
        if left <= 0:
            raise QueueTimeoutError(
                f"No worker of the model {model!r} had room for {self._patience_seconds:g} s; "
                f"retry later, or start another worker of it",
                param="model",
                retry_after_seconds=self._lines.retry_after_seconds(model),
            )
        try:
            async with asyncio.timeout(min(left, reply.keep_alive_seconds)):
                await place.may_look.wait()
        except TimeoutError:
            await reply.keep_alive()
