"""The hot route: a request body in, a worker's answer out, on raw ASGI.

It does not go through the web framework, whose per-request work would double the cost of a relayed
request, and it watches the client itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from starlette.types import Receive, Scope, Send

from controller.chassis.hangup import HangUp
from controller.inflight import InFlight
from controller.metrics import Metrics
from controller.protocol.errors import DrainingError, InternalError, ParagoneError
from controller.relay import Relay, RelayRequest
from controller.reply import Reply
from controller.routes.body import ClientGoneError, read_json_body
from controller.routing import RoutingHints, routing_hints

_log = logging.getLogger(__name__)

# Of the client's headers a worker needs these; its credentials are for the controller alone.
_FORWARDED = frozenset({b"accept", b"traceparent", b"tracestate"})


class RelayedRoute:
    """An ASGI application that answers one POST path from the workers.

    Args:
        path: the path, here and at the worker.
        relay: who answers.
        in_flight: where the request is counted.
        metrics: what is counted.
        max_body_bytes: the largest body taken.
        body_seconds: how long a body may take to arrive.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        path: str,
        relay: Relay,
        in_flight: InFlight,
        metrics: Metrics,
        *,
        max_body_bytes: int,
        body_seconds: float,
        clock: Callable[[], float],
    ) -> None:
        self._path = path
        self._relay = relay
        self._in_flight = in_flight
        self._metrics = metrics
        self._max_body_bytes = max_body_bytes
        self._body_seconds = body_seconds
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers; every request that was read whole gets exactly one end."""
        arrival = self._clock()
        reply = Reply(send)
        model = ""  # unknown, or not to be believed: names in metrics are those of live models
        try:
            body = await read_json_body(
                scope, receive, max_bytes=self._max_body_bytes, seconds=self._body_seconds
            )
            hints = routing_hints(body)
            with self._in_flight.track(hints.model):
                request = self._request(scope, body, hints, arrival)
                async with HangUp(receive) as hang_up:
                    await self._relay.answer(request, reply)
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
        self._metrics.requests.labels(model, str(reply.status)).inc()

    def _request(
        self, scope: Scope, body: bytes, hints: RoutingHints, arrival: float
    ) -> RelayRequest:
        headers = {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in scope["headers"]
            if name in _FORWARDED
        }
        headers["content-type"] = "application/json"
        headers["x-request-id"] = scope["state"]["request_id"]
        return RelayRequest(self._path, body, headers, hints, arrival)
