"""Takes a request to a worker and its answer back: choose, open, forward bytes.

Streams are forwarded event by event as the bytes that came. Another worker is tried only while
the client has seen nothing of an answer; after that a lost worker is an error event, with the text
so far intact and no ``[DONE]``. Which worker is chosen is `dispatch`'s business, who lives is
`registry`'s.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pydantic import ValidationError
from starlette.types import Send

from controller.dispatch import DispatchPolicy
from controller.metrics import Metrics
from controller.protocol import sse
from controller.protocol.errors import ErrorBody, InternalError, ParagoneError, WorkerLostError
from controller.registry import Registry, WorkerRecord
from controller.routing import RoutingHints
from controller.upstream import Answer, Headers, LostError, UnreachableError, Upstream

_log = logging.getLogger(__name__)

MAX_WHOLE_ANSWER_BYTES = 32 * 1024 * 1024  # of an answer that is not streamed
MAX_EVENT_BYTES = 1024 * 1024  # of one event of a stream
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
    """A request as it goes to a worker."""

    path: str
    body: bytes
    headers: Mapping[str, str]
    hints: RoutingHints


class Reply:
    """The client's side of an answer, and how far it has come."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status: int | None = None  # None until the head was sent
        self.has_content = False  # more than comments was sent: there is no way back

    async def start(self, status: int, headers: Headers) -> None:
        """Sends the head."""
        self.status = status
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def write(self, piece: bytes) -> None:
        """Sends a piece of the body; returns once the client's connection has room for more."""
        await self._send({"type": "http.response.body", "body": piece, "more_body": True})

    async def end(self, piece: bytes = b"") -> None:
        """Sends the last piece of the body."""
        await self._send({"type": "http.response.body", "body": piece})

    async def fail(self, error: ParagoneError) -> None:
        """Ends with an error: the whole response, or the last event of a stream."""
        if self.status is None:
            body = error.body().model_dump_json().encode()
            headers = [(name.encode(), value.encode()) for name, value in error.headers().items()]
            await self.start(error.status, [*headers, *_whole(body, b"application/json")])
            await self.end(body)
        else:
            await self.end(sse.encode_error(error.body()))


@dataclass(frozen=True, slots=True)
class Refusal:
    """A worker's answer that it cannot take the request now."""

    status: int
    headers: Headers
    body: bytes

    def error_body(self) -> ErrorBody | None:
        """The error, if it is one in OpenAI's shape."""
        try:
            return ErrorBody.model_validate_json(self.body)
        except ValidationError:
            return None


class _RefusedError(Exception):
    """Carries a refusal out of an attempt."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.status)
        self.refusal = refusal


class Relay:
    """Relays requests to the workers of a registry.

    Args:
        registry: who lives.
        policy: who of them is chosen.
        upstream: how they are reached.
        attempts: the most workers tried for one request.
        clock: monotonic seconds.
        rng: the policies' chance.
    """

    def __init__(
        self,
        registry: Registry,
        policy: DispatchPolicy,
        upstream: Upstream,
        metrics: Metrics,
        *,
        attempts: int,
        clock: Callable[[], float],
        rng: random.Random,
    ) -> None:
        self._registry = registry
        self._policy = policy
        self._upstream = upstream
        self._metrics = metrics
        self._attempts = attempts
        self._clock = clock
        self._rng = rng

    async def answer(self, request: RelayRequest, reply: Reply, *, arrival: float) -> None:
        """Has one worker answer, or another, or ends the reply with the error that explains most.

        Args:
            request: what to ask.
            reply: where the answer goes.
            arrival: when the request came, on the monotonic clock.

        Raises:
            NotFoundError, UnavailableError: there is nobody to ask; nothing was sent.
        """
        model = request.hints.model
        tried: list[WorkerRecord] = []
        refusal: Refusal | None = None
        lost: WorkerLostError | None = None
        while len(tried) < self._attempts:
            record = self._choose(request.hints, tried, may_be_none=bool(tried))
            if record is None:
                break
            tried.append(record)
            try:
                with record.carrying(request.hints.tokens):
                    await self._attempt(record, request, reply, arrival)
            except _RefusedError as exc:
                refusal = exc.refusal
                self._metrics.failed_attempts.labels(f"status_{refusal.status}").inc()
                if refusal.status == 503:
                    self._suspect(record, "it answered 503", model)
            except UnreachableError as exc:
                self._metrics.failed_attempts.labels("unreachable").inc()
                self._suspect(record, str(exc), model)
            except LostError as exc:
                self._metrics.failed_attempts.labels("lost").inc()
                self._suspect(record, str(exc), model)
                lost = _worker_lost(record, exc)
                if reply.has_content:
                    self._metrics.aborted.labels(model, "worker_lost").inc()
                    await reply.fail(lost)
                    return
            else:
                if reply.status == 200:
                    self._metrics.successes.labels(model).inc()
                    self._metrics.latency.labels(model).observe(self._clock() - arrival)
                return
        await self._give_up(request, reply, refusal, lost)

    def _choose(
        self, hints: RoutingHints, tried: list[WorkerRecord], *, may_be_none: bool
    ) -> WorkerRecord | None:
        """The policy's choice among those not tried yet."""
        try:
            rotation = self._registry.rotation(hints.model)
        except ParagoneError:
            if may_be_none:
                return None
            raise
        candidates = [record for record in rotation if record not in tried]
        return self._policy(candidates, hints, self._rng) if candidates else None

    def _suspect(self, record: WorkerRecord, reason: str, model: str) -> None:
        _log.warning("worker %s at %s: %s (%s)", record.worker_id, record.address, reason, model)
        self._registry.suspect(record, reason)

    async def _attempt(
        self, record: WorkerRecord, request: RelayRequest, reply: Reply, arrival: float
    ) -> None:
        """One worker's answer, from end to end.

        Raises:
            UnreachableError, LostError: the worker failed; `Reply.has_content` says how late.
            _RefusedError: it cannot take the request now.
        """
        async with self._upstream.post(
            record.address, request.path, request.body, request.headers
        ) as answer:
            if answer.status == 200 and answer.media_type == sse.MEDIA_TYPE:
                await self._forward_events(answer, record, request, reply, arrival)
                return
            body = await answer.read_all(MAX_WHOLE_ANSWER_BYTES)
            headers = _forwarded(answer, record)
            if answer.status in TRY_ANOTHER or reply.status is not None:
                raise _RefusedError(Refusal(answer.status, headers, body))
            self._metrics.first_token.labels(request.hints.model).observe(self._clock() - arrival)
            await reply.start(answer.status, [*headers, _length(body)])
            await reply.end(body)

    async def _forward_events(
        self,
        answer: Answer,
        record: WorkerRecord,
        request: RelayRequest,
        reply: Reply,
        arrival: float,
    ) -> None:
        """Forwards whole events, so that a worker lost inside one leaves nothing half-said."""
        held = b""  # the beginning of an event that has not arrived whole
        last = b""  # the whole events forwarded last
        try:
            while piece := await answer.read():
                if held:
                    piece = held + piece
                end = _end_of_last_event(piece)
                held = piece[end:]
                if len(held) > MAX_EVENT_BYTES:
                    raise LostError(f"it sent an event longer than {MAX_EVENT_BYTES} bytes")
                if not end:
                    continue
                last = piece[:end] if held else piece
                if reply.status is None:
                    await reply.start(200, _forwarded(answer, record))
                if not reply.has_content and not _is_comments(last):
                    reply.has_content = True
                    self._metrics.first_token.labels(request.hints.model).observe(
                        self._clock() - arrival
                    )
                await reply.write(last)
            if held or not _is_last_event(last):
                raise LostError("it closed its answer before the end")
        except LostError:
            # A worker that goes away right after its last event has still said everything.
            if held or not _is_last_event(last):
                raise
        await reply.end()

    async def _give_up(
        self,
        request: RelayRequest,
        reply: Reply,
        refusal: Refusal | None,
        lost: WorkerLostError | None,
    ) -> None:
        """Ends a reply after all attempts failed, with what explains most."""
        model = request.hints.model
        self._metrics.aborted.labels(model, "no_worker").inc()
        if refusal is not None and reply.status is None:
            await reply.start(refusal.status, [*refusal.headers, _length(refusal.body)])
            await reply.end(refusal.body)
        elif refusal is not None:
            body = refusal.error_body()
            if body is None:
                body = InternalError(f"The worker answered {refusal.status}").body()
            await reply.end(sse.encode_error(body))
        else:
            await reply.fail(lost or self._registry.absence(model))


def _worker_lost(record: WorkerRecord, exc: LostError) -> WorkerLostError:
    return WorkerLostError(
        f"The worker {record.worker_id} went away before its answer was complete ({exc}); "
        f"what has arrived is valid; ask again for a whole answer"
    )


def _forwarded(answer: Answer, record: WorkerRecord) -> Headers:
    """A worker's headers for the client, with its name."""
    headers = [(name, value) for name, value in answer.headers if name not in _NOT_FORWARDED]
    headers.append((b"x-worker-id", record.worker_id.encode()))
    return headers


def _length(body: bytes) -> tuple[bytes, bytes]:
    return b"content-length", str(len(body)).encode()


def _whole(body: bytes, media_type: bytes) -> Headers:
    return [(b"content-type", media_type), _length(body)]


def _end_of_last_event(piece: bytes) -> int:
    """Where the last whole event ends; 0 if none does. Events end in an empty line."""
    if piece.endswith(b"\n\n"):  # a worker writes whole events, so this is nearly always so
        return len(piece)
    unix, dos = piece.rfind(b"\n\n"), piece.rfind(b"\r\n\r\n")
    return max(unix + 2 if unix >= 0 else 0, dos + 4 if dos >= 0 else 0)


def _is_comments(events: bytes) -> bool:
    """Whether there is nothing but comments, such as ``: ping``."""
    return events.startswith(b":") and all(
        not line or line.startswith(b":") for line in events.splitlines()
    )


def _is_last_event(events: bytes) -> bool:
    """Whether a stream may end here: with ``[DONE]``, or with an error in its place."""
    last = events.rstrip().replace(b"\r\n", b"\n").rpartition(b"\n\n")[2]
    return last in (b"data: [DONE]", b"data:[DONE]") or last.startswith(
        (b"event: error", b"event:error")
    )
