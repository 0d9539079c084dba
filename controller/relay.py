"""Takes a request to a worker and its answer back: choose, open, forward bytes.

Streams are forwarded event by event as the bytes that came. Another worker is tried only while
the client has seen nothing of an answer; after that a lost worker is an error event, with the text
so far intact and no ``[DONE]``. Which worker is chosen is `dispatch`'s business, who lives is
`registry`'s, when waiting makes no sense is `vigil`'s.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pydantic import ValidationError

from controller.dispatch import DispatchPolicy
from controller.framing import EventFramer, EventTooLongError, are_comments
from controller.metrics import Metrics
from controller.protocol import sse
from controller.protocol.errors import ErrorBody, InternalError, ParagoneError, WorkerLostError
from controller.registry import Registry, WorkerRecord
from controller.reply import Reply
from controller.routing import RoutingHints
from controller.upstream import Answer, Headers, LostError, UnreachableError, Upstream
from controller.vigil import HungError, Vigil

_log = logging.getLogger(__name__)

MAX_WHOLE_ANSWER_BYTES = 32 * 1024 * 1024  # of an answer that is not streamed
TRY_ANOTHER = frozenset({429, 503})  # this worker cannot take it now; another one may

# What concerns one connection or its framing ends here; the rest of a worker's headers passes.
_NOT_FORWARDED = frozenset(
    {
        b"connection",
        b"content-length",
        b"date",
        b"keep-alive",
        b"proxy-authenticate",
        b"server",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"x-request-id",
        b"x-worker-id",
    }
)


@dataclass(frozen=True, slots=True)
class RelayRequest:
    """A request as it goes to a worker; ``arrival`` on the monotonic clock."""

    path: str
    body: bytes
    headers: Mapping[str, str]
    hints: RoutingHints
    arrival: float


class _RefusedError(Exception):
    """A worker's answer that it cannot take the request now."""

    def __init__(self, status: int, headers: Headers, body: bytes) -> None:
        super().__init__(status)
        self.status = status
        self.headers = headers
        self.body = body

    def error_body(self) -> ErrorBody:
        """The error in OpenAI's shape, in which most workers answer."""
        try:
            return ErrorBody.model_validate_json(self.body)
        except ValidationError:
            return InternalError(f"The worker answered with status {self.status}").body()


@dataclass(slots=True)
class _Exchange:
    """One request, its reply, and what became of it so far."""

    request: RelayRequest
    reply: Reply
    tried: list[WorkerRecord] = field(default_factory=list)
    refusal: _RefusedError | None = None  # the last one
    lost: WorkerLostError | None = None  # likewise


class Relay:
    """Relays requests to the workers of a registry.

    Args:
        registry: who lives.
        policy: who of them is chosen.
        upstream: how they are reached.
        vigil: tells when one hangs.
        metrics: what is counted.
        attempts: the most workers tried for one request.
        clock: monotonic seconds.
        rng: the policies' chance.
    """

    def __init__(
        self,
        registry: Registry,
        policy: DispatchPolicy,
        upstream: Upstream,
        vigil: Vigil,
        metrics: Metrics,
        *,
        attempts: int,
        clock: Callable[[], float],
        rng: random.Random,
    ) -> None:
        self._registry = registry
        self._policy = policy
        self._upstream = upstream
        self._vigil = vigil
        self._metrics = metrics
        self._attempts = attempts
        self._clock = clock
        self._rng = rng

    async def answer(self, request: RelayRequest, reply: Reply) -> None:
        """Has one worker answer, or another, or ends the reply with the error that explains most.

        Raises:
            NotFoundError, UnavailableError: there is nobody to ask; nothing was sent.
        """
        exchange = _Exchange(request, reply)
        candidates = self._registry.rotation(request.hints.model)
        while candidates and len(exchange.tried) < self._attempts:
            record = self._policy(candidates, request.hints, self._rng)
            exchange.tried.append(record)
            if await self._ask(record, exchange):
                return
            candidates = self._others(exchange)
        await self._give_up(exchange)

    def _others(self, exchange: _Exchange) -> list[WorkerRecord]:
        """The workers that have not been tried yet."""
        try:
            rotation = self._registry.rotation(exchange.request.hints.model)
        except ParagoneError:  # all of them are gone by now
            return []
        return [record for record in rotation if record not in exchange.tried]

    def _may_move(self, exchange: _Exchange) -> bool:
        """Whether another worker could take over from the one that is being waited for."""
        if exchange.reply.has_content or len(exchange.tried) >= self._attempts:
            return False
        now = self._clock()
        return any(record.is_punctual(now) for record in self._others(exchange))

    async def _ask(self, record: WorkerRecord, exchange: _Exchange) -> bool:
        """Asks one worker; whether the reply has ended, well or badly."""
        request, reply = exchange.request, exchange.reply
        try:
            with record.carrying(request.hints.tokens):
                async with self._vigil.watch(
                    record, may_move=lambda: self._may_move(exchange)
                ) as progress:
                    await self._exchange(record, exchange, progress)
        except _RefusedError as exc:
            exchange.refusal = exc
            self._metrics.failed_attempts.labels(f"status_{exc.status}").inc()
            if exc.status == 503:  # it is leaving, or not ready after all
                self._suspect(record, "it answered 503")
            return False
        except UnreachableError as exc:
            self._metrics.failed_attempts.labels("unreachable").inc()
            self._suspect(record, str(exc))
            return False
        except (LostError, HungError) as exc:
            self._metrics.failed_attempts.labels(type(exc).__name__).inc()
            self._suspect(record, str(exc))
            exchange.lost = WorkerLostError(
                f"The worker {record.worker_id} went away before its answer was complete: {exc}; "
                f"what has arrived is valid, ask again for a whole answer"
            )
            if not reply.has_content:
                return False
            self._metrics.aborted.labels(request.hints.model, "worker_lost").inc()
            await reply.fail(exchange.lost)
            return True
        if reply.status == 200:
            served = self._metrics.of_model(request.hints.model)
            served.successes.inc()
            served.latency.observe(self._clock() - request.arrival)
        return True

    def _suspect(self, record: WorkerRecord, reason: str) -> None:
        _log.warning("worker %s at %s: %s", record.worker_id, record.address, reason)
        self._registry.suspect(record, reason)

    async def _exchange(
        self, record: WorkerRecord, exchange: _Exchange, progress: Callable[[], None]
    ) -> None:
        """One worker's answer, from end to end.

        Raises:
            UnreachableError, LostError: the worker failed; `Reply.has_content` says how late.
            _RefusedError: it cannot take the request now.
        """
        request, reply = exchange.request, exchange.reply
        sent = request.headers
        if record.authorization is not None:
            sent = {**sent, "authorization": record.authorization}
        async with self._upstream.request(
            "POST", record.address + request.path, headers=sent, body=request.body
        ) as answer:
            progress()
            headers = _forwarded(answer, record)
            if answer.status == 200 and answer.media_type == sse.MEDIA_TYPE:
                await self._forward_events(answer, headers, exchange, progress)
                return
            body = await answer.read_all(MAX_WHOLE_ANSWER_BYTES)
            if answer.status in TRY_ANOTHER or reply.status is not None:
                raise _RefusedError(answer.status, headers, body)
            self._observe_first_token(request)
            reply.has_content = True
            await reply.send_whole(answer.status, headers, body)

    async def _forward_events(
        self, answer: Answer, headers: Headers, exchange: _Exchange, progress: Callable[[], None]
    ) -> None:
        """Forwards whole events until the last."""
        reply = exchange.reply
        framer = EventFramer()
        try:
            while piece := await answer.read():
                progress()
                events = framer.feed(piece)
                if not events:
                    continue
                if reply.status is None:
                    await reply.start(answer.status, headers)
                if not reply.has_content and not are_comments(events):
                    reply.has_content = True
                    self._observe_first_token(exchange.request)
                await reply.write(events)
        except EventTooLongError as exc:
            raise LostError("it sent an event without an end") from exc
        except LostError:
            # A worker that goes away right after its last event has still said everything.
            if not framer.is_complete:
                raise
        if not framer.is_complete:
            raise LostError("it closed its answer before the end")
        await reply.end()

    def _observe_first_token(self, request: RelayRequest) -> None:
        elapsed = self._clock() - request.arrival
        self._metrics.of_model(request.hints.model).first_token.observe(elapsed)

    async def _give_up(self, exchange: _Exchange) -> None:
        """Ends a reply after all attempts failed, with what explains most."""
        model, reply = exchange.request.hints.model, exchange.reply
        self._metrics.aborted.labels(model, "no_worker").inc()
        refusal = exchange.refusal
        if refusal is None:
            await reply.fail(exchange.lost or self._registry.absence(model))
        elif reply.status is None:
            await reply.send_whole(refusal.status, refusal.headers, refusal.body)
        else:
            await reply.fail_stream(refusal.error_body())


def _forwarded(answer: Answer, record: WorkerRecord) -> Headers:
    """A worker's headers for the client, with its name."""
    headers = [(name, value) for name, value in answer.headers if name not in _NOT_FORWARDED]
    headers.append((b"x-worker-id", record.worker_id.encode()))
    return headers
