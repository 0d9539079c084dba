"""Takes a request to a worker and its answer back: choose, open, forward bytes.

Streams are forwarded event by event as the bytes that came. Another worker is tried only while
the client has seen nothing of an answer, and only within the retry budget; after that a lost worker
is an error event, with the text so far intact and no ``[DONE]``. Which worker is chosen is
`choosing`'s business, when waiting makes no sense is `vigil`'s.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from controller.calls import Call, RelayRequest, call_for
from controller.choosing import Choosing, NobodyLeftError
from controller.foreign_errors import in_openais_shape
from controller.framing import EventTooLongError
from controller.metrics import Metrics
from controller.protocol.error_bodies import error_of_body
from controller.protocol.errors import (
    ErrorBody,
    InternalError,
    LegacyWorkerError,
    RequestLoopError,
    WorkerLostError,
)
from controller.protocol.sampling import TIMEOUT_HEADER
from controller.registry import Registry
from controller.reply import Reply
from controller.retry_budget import RetryBudget
from controller.upstream import Answer, Headers, LostError, UnreachableError, Upstream
from controller.vigil import HungError, Vigil
from controller.worker_record import Wire, WorkerRecord

_log = logging.getLogger(__name__)

MAX_WHOLE_ANSWER_BYTES = 32 * 1024 * 1024  # of an answer that is not streamed
WORKER_LEAD_SECONDS = 0.5
# This worker cannot take it now, has nobody behind it who can, or would have this controller take
# it again; another one may.
TRY_ANOTHER = frozenset({429, 502, 503, RequestLoopError.status})
# It took it and failed. Another one is not tried: the request may be what made it fail.
FAILED = 500
_CAME_ROUND = (b"x-error-code", RequestLoopError.code.encode())

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


class _RefusedError(Exception):
    """A worker's answer that it cannot take the request now."""

    def __init__(self, status: int, headers: Headers, body: bytes) -> None:
        super().__init__(status)
        self.status = status
        self.headers = headers
        self.body = body

    def error_body(self) -> ErrorBody:
        """The error in OpenAI's shape."""
        detail = error_of_body(self.body, self.status)
        if detail is None:
            return InternalError(f"The worker answered with status {self.status}").body()
        return ErrorBody(error=detail)


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
        choosing: who of them is asked, and when.
        upstream: how they are reached.
        vigil: tells when one hangs.
        metrics: what is counted.
        budget: how many requests may be tried again.
        attempts: the most workers tried for one request.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        registry: Registry,
        choosing: Choosing,
        upstream: Upstream,
        vigil: Vigil,
        metrics: Metrics,
        *,
        budget: RetryBudget,
        attempts: int,
        clock: Callable[[], float],
    ) -> None:
        self._registry = registry
        self._choosing = choosing
        self._upstream = upstream
        self._vigil = vigil
        self._metrics = metrics
        self._budget = budget
        self._attempts = attempts
        self._clock = clock

    async def answer(self, request: RelayRequest, reply: Reply) -> None:
        """Has one worker answer, or another, or ends the reply with the error that explains most.

        Raises:
            ParagoneError: there is nobody to ask, or no room in the line of those who wait; or the
                worker's own error, where it is not passed on as it came.
        """
        exchange = _Exchange(request, reply)
        self._budget.earn()
        while not exchange.tried or self._may_try_again(exchange):
            try:
                record = await self._choosing.choose(request, reply, exchange.tried)
            except NobodyLeftError:
                break
            exchange.tried.append(record)
            reply.worker_id = record.worker_id
            if await self._ask(record, exchange):
                return
        await self._give_up(exchange)

    def _may_try_again(self, exchange: _Exchange) -> bool:
        if len(exchange.tried) >= self._attempts:
            return False
        if not self._choosing.others(exchange.request, exchange.reply, exchange.tried):
            return False
        if self._budget.spend():
            return True
        self._metrics.failed_attempts.labels("retry_budget").inc()
        return False

    def _may_move(self, exchange: _Exchange) -> bool:
        """Whether another worker could take over from the one that is being waited for."""
        if exchange.reply.has_content or len(exchange.tried) >= self._attempts:
            return False
        now = self._clock()
        others = self._choosing.others(exchange.request, exchange.reply, exchange.tried)
        return any(record.is_punctual(now) for record in others)

    async def _ask(self, record: WorkerRecord, exchange: _Exchange) -> bool:
        """Asks one worker; whether the reply has ended, well or badly."""
        request, reply = exchange.request, exchange.reply
        model = request.hints.model
        try:
            with (
                self._choosing.carrying(record, request.hints),
                self._vigil.watch(record, may_move=lambda: self._may_move(exchange)) as progress,
            ):
                await self._exchange(record, exchange, progress)
        except _RefusedError as exc:
            exchange.refusal = exc
            self._metrics.failed_attempts.labels(f"status_{exc.status}").inc()
            if exc.status == 503:  # it is leaving, or not ready after all
                self._suspect(record, "it answered 503")
            elif exc.status == 502:  # one of the workers behind it was lost, perhaps not all
                self._doubt(record, "it answered 502")
            return False
        except LegacyWorkerError as exc:
            self._doubt(record, exc.message)
            raise
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
            self._metrics.aborted.labels(model, "worker_lost").inc()
            await reply.fail(exchange.lost)
            return True
        if reply.status == 200:
            self._metrics.of_model(model).latency.observe(self._clock() - request.arrival)
        return True

    def _suspect(self, record: WorkerRecord, reason: str) -> None:
        _log.warning("worker %s at %s: %s", record.worker_id, record.address, reason)
        self._registry.suspect(record, reason)

    def _doubt(self, record: WorkerRecord, reason: str) -> None:
        if self._registry.doubt(record, reason):
            _log.warning("worker %s at %s: %s", record.worker_id, record.address, reason)

    async def _exchange(
        self, record: WorkerRecord, exchange: _Exchange, progress: Callable[[], None]
    ) -> None:
        """One worker's answer, from end to end.

        Raises:
            UnreachableError, LostError: the worker failed; `Reply.has_content` says how late.
            _RefusedError: it cannot take the request now.
            ParagoneError: its answer says that it failed, in words that had to be translated.
        """
        request, reply = exchange.request, exchange.reply
        call = call_for(request, reply, record)
        sent = request.headers
        if request.deadline is not None:
            left = request.deadline - self._clock()
            sent = {**sent, TIMEOUT_HEADER: f"{_worker_seconds(left):.3f}"}
        if record.reach.authorization is not None:
            sent = {**sent, "authorization": record.reach.authorization}
        async with self._upstream.request(
            "POST", record.address + call.path, headers=sent, body=call.body
        ) as answer:
            progress()
            headers = _forwarded(answer, record)
            if call.is_translated:
                headers = headers[-1:]  # its name; the rest describes what it said, not this
            if record.reach.wire is Wire.LEGACY and _CAME_ROUND in answer.headers:
                raise _came_round(headers)
            if call.is_stream(answer):
                await self._forward_events(answer, headers, call, exchange, progress)
                return
            body = await answer.read_all(MAX_WHOLE_ANSWER_BYTES)
            if answer.status >= 400 and not record.reach.speaks_legacy_too:
                headers, body = in_openais_shape(answer.status, headers, body)
            if answer.status in TRY_ANOTHER or reply.status is not None or call.is_translated:
                raise _RefusedError(answer.status, headers, body)
            if answer.status < FAILED:
                self._begin_content(record, exchange, is_answer=answer.status == 200)
            elif answer.status == FAILED:
                self._doubt(record, f"it answered {FAILED}, and not for the first time")
            reply.has_content = True
            await reply.send_whole(answer.status, headers, body)

    async def _forward_events(
        self,
        answer: Answer,
        headers: Headers,
        call: Call,
        exchange: _Exchange,
        progress: Callable[[], None],
    ) -> None:
        """Forwards whole events until the last."""
        reply, framer = exchange.reply, call.framer
        try:
            while not framer.has_enough and (piece := await answer.read()):
                progress()
                events = framer.feed(piece)
                if not events:
                    continue
                if reply.status is None:
                    await reply.start_stream(headers)
                if not reply.has_content and not framer.are_comments(events):
                    self._begin_content(call.record, exchange)
                await reply.write(events)
        except EventTooLongError as exc:
            raise LostError("it sent an event without an end") from exc
        except LostError:
            # A worker that goes away right after its last event has still said everything.
            if not framer.is_complete:
                raise
        if not framer.is_complete and not framer.has_enough:
            raise LostError("it closed its answer before the end")
        rest = framer.rest()
        if call.is_whole:
            self._begin_content(call.record, exchange)
            json_headers = [*headers, (b"content-type", b"application/json")]
            await reply.send_whole(200, json_headers, rest)
            return
        if rest:
            await reply.write(rest)
        await reply.end()

    def _begin_content(
        self, record: WorkerRecord, exchange: _Exchange, *, is_answer: bool = True
    ) -> None:
        """The client is about to see something of the answer, or of a refusal: the worker works."""
        exchange.reply.has_content = True
        record.breaker.succeed()
        if not is_answer:
            return
        request = exchange.request
        elapsed = self._clock() - request.arrival
        self._metrics.of_model(request.hints.model).first_token.observe(elapsed)

    async def _give_up(self, exchange: _Exchange) -> None:
        """Ends a reply after all attempts failed, with what explains most."""
        model, reply = exchange.request.hints.model, exchange.reply
        self._metrics.aborted.labels(model, "no_worker").inc()
        refusal = exchange.refusal
        if refusal is None:
            await reply.fail(exchange.lost or self._registry.absence(model))
        elif reply.status is None and reply.passes_refusals:
            await reply.send_whole(refusal.status, refusal.headers, refusal.body)
        else:
            body = refusal.error_body()
            headers = {"x-error-code": body.error.code} if body.error.code else {}
            await reply.fail_with(refusal.status, headers, body)


def _worker_seconds(left: float) -> float:
    """How much of the time that is left a worker gets.

    A little less than all: its own error, which has the text so far, is to arrive before ours.
    """
    return max(0.001, left - min(WORKER_LEAD_SECONDS, left / 10))


def _came_round(headers: Headers) -> _RefusedError:
    """What a controller of the legacy wire says in a frame, with status 200."""
    error = RequestLoopError(RequestLoopError.explanation)
    body = error.body().model_dump_json().encode()
    kept = [header for header in headers if header != _CAME_ROUND]
    return _RefusedError(
        error.status, [*kept, _CAME_ROUND, (b"content-type", b"application/json")], body
    )


def _forwarded(answer: Answer, record: WorkerRecord) -> Headers:
    """A worker's headers for the client, with its name."""
    headers = [(name, value) for name, value in answer.headers if name not in _NOT_FORWARDED]
    headers.append((b"x-worker-id", record.worker_id.encode()))
    return headers
