"""The hot route: a request body in, a worker's answer out, on raw ASGI.

It does not go through the web framework, whose per-request work would double the cost of a relayed
request, and it watches the client itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from starlette.types import Receive, Scope, Send

from controller.calls import RelayRequest
from controller.chassis.hangup import HangUp
from controller.inflight import InFlight
from controller.metrics import Metrics
from controller.protocol.errors import (
    BadRequestError,
    DeadlineError,
    DrainingError,
    InternalError,
    ParagoneError,
)
from controller.protocol.sampling import TIMEOUT_HEADER, seconds_of
from controller.relay import Relay
from controller.reply import Reply
from controller.routes.body import ClientGoneError, read_json_body
from controller.routing import RoutingHints, routing_hints
from controller.tracing import Tracing
from controller.via import passed_on

_log = logging.getLogger(__name__)

# Of the client's headers a worker needs these; its credentials are for the controller alone.
_FORWARDED = frozenset({b"accept", b"baggage", b"traceparent", b"tracestate"})
_TIMEOUT_HEADER = TIMEOUT_HEADER.encode()


_UNTRACED: AbstractContextManager[Mapping[str, str]] = nullcontext({})


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """How large and how slow requests may be, and how long their answers may take."""

    body_bytes: int
    body_seconds: float
    answer_seconds: float | None = None  # None: as long as they take

    def answer_seconds_of(
        self, headers: Mapping[bytes, bytes], hints: RoutingHints
    ) -> float | None:
        """The time that one request has from its arrival: the least of what is said.

        Raises:
            BadRequestError: the header is no number of seconds.
        """
        said = headers.get(_TIMEOUT_HEADER)
        seconds = None if said is None else _seconds(said)
        for other in (self.answer_seconds, hints.timeout_seconds):
            if other is not None and (seconds is None or other < seconds):
                seconds = other
        return seconds


def _seconds(said: bytes) -> float:
    text = said.decode("latin-1")
    try:
        return seconds_of(text)
    except ValueError as exc:
        raise BadRequestError(
            f"{TIMEOUT_HEADER} must be a number of seconds above 0, not {text!r}"
        ) from exc


class RelayedRoute:
    """An ASGI application that answers one POST path from the workers.

    Args:
        path: the path, here and at the worker.
        relay: who answers.
        in_flight: where the request is counted.
        metrics: what is counted.
        limits: of bodies and answers.
        clock: monotonic seconds.
        name: this controller's, in the header ``Via``.
        reply: an answer in this route's wire.
        tracing: where spans go; None passes trace context on as it came.
    """

    def __init__(
        self,
        path: str,
        relay: Relay,
        in_flight: InFlight,
        metrics: Metrics,
        *,
        limits: RequestLimits,
        clock: Callable[[], float],
        name: str,
        reply: Callable[[Send], Reply] = Reply,
        tracing: Tracing | None = None,
    ) -> None:
        self._tracing = tracing
        self._path = path
        self._relay = relay
        self._in_flight = in_flight
        self._metrics = metrics
        self._limits = limits
        self._clock = clock
        self._name = name
        self._new_reply = reply

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers; every request that was read whole gets exactly one end."""
        arrival = self._clock()
        reply = self._new_reply(send)
        model = ""  # unknown, or not to be believed: names in metrics are those of live models
        try:
            limits = self._limits
            given = dict(scope["headers"])
            body = await read_json_body(
                scope, given, receive, max_bytes=limits.body_bytes, seconds=limits.body_seconds
            )
            hints = routing_hints(body)
            reply.expect(stream=hints.stream, beginning=hints.beginning)
            with (
                self._in_flight.track(hints.model, arrival),
                self._traced(scope, hints, reply) as context,
            ):
                seconds = limits.answer_seconds_of(given, hints)
                deadline = None if seconds is None else arrival + seconds
                headers = _forwarded(scope, given, context, self._name)
                request = RelayRequest(self._path, body, headers, hints, arrival, deadline)
                async with HangUp(receive, scope) as hang_up:
                    if seconds is None:
                        await self._relay.answer(request, reply)
                    else:
                        left = max(0.0, seconds - (self._clock() - arrival))
                        await self._answer_within(left, seconds, request, reply)
                model = hints.model
                if hang_up.happened:
                    self._metrics.aborted.labels(model, "client_gone").inc()
                    return
        except ClientGoneError:
            return
        except ParagoneError as exc:
            await reply.fail(exc)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not self._in_flight.is_cut_off or task is None:
                raise
            task.uncancel()  # the drain asked for this; the client is still owed an end
            await reply.fail(
                DrainingError(
                    "The controller shut down before the answer was complete; ask again",
                    retry_after_seconds=1.0,
                )
            )
        except Exception as exc:  # noqa: BLE001  # the edge of the route: it is logged here
            _log.exception("relaying %s failed", self._path)
            await reply.fail(
                InternalError(
                    f"{type(exc).__name__} in the controller while relaying; its log has the "
                    f"cause under this request's x-request-id"
                )
            )
        self._metrics.count_request(model, reply.status)

    def _traced(
        self, scope: Scope, hints: RoutingHints, reply: Reply
    ) -> AbstractContextManager[Mapping[str, str]]:
        """A span around the answer; yields the trace context that goes to the worker."""
        if self._tracing is None:
            return _UNTRACED
        return self._tracing.span(scope["headers"], self._path, hints.model, reply)

    async def _answer_within(
        self, left: float, seconds: float, request: RelayRequest, reply: Reply
    ) -> None:
        """Has the request answered within the ``left`` of its ``seconds``.

        Raises:
            DeadlineError: it took longer; the worker has been told to stop.
        """
        try:
            async with asyncio.timeout(left) as deadline:
                await self._relay.answer(request, reply)
        except TimeoutError as exc:
            if not deadline.expired():
                raise
            self._metrics.aborted.labels(request.hints.model, "deadline").inc()
            raise DeadlineError(
                f"The answer was not complete within the {seconds:g} s that it had; what has "
                f"arrived is valid"
            ) from exc


def _forwarded(
    scope: Scope, given: Mapping[bytes, bytes], context: Mapping[str, str], name: str
) -> dict[str, str]:
    """The headers for the worker; ``context`` is the trace's, where there are spans of ours.

    Raises:
        RequestLoopError: the request has been passed on under this ``name`` before.
    """
    headers = {"content-type": "application/json", "x-request-id": scope["state"]["request_id"]}
    for key in _FORWARDED & given.keys():
        headers[key.decode("latin-1")] = given[key].decode("latin-1")
    headers.update(context)
    headers["via"] = passed_on(name, scope["headers"])
    return headers
