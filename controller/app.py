"""The composition root: everything that a controller is made of is built and joined here."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI, Response
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from controller.access import Access
from controller.chassis.auth import ApiKey, BearerCheck, read_keys
from controller.chassis.http import (
    RequestIdMiddleware,
    install_errors,
    install_health,
)
from controller.chassis.openapi import CHAT_COMPLETIONS, COMPLETIONS, PREVIEW, Api
from controller.chassis.tls import client_context
from controller.choosing import Choosing
from controller.dispatch import POLICIES
from controller.external import ExternalServers
from controller.inflight import InFlight
from controller.joining import JoinRules
from controller.legacy.reply import LegacyReply
from controller.legacy.workers import LegacyWorkers
from controller.lines import Lines
from controller.metrics import Metrics
from controller.protocol.legacy import GENERATE_STREAM
from controller.quota import Quotas
from controller.registry import Registry
from controller.relay import Relay
from controller.reply import Reply
from controller.retry_budget import RetryBudget
from controller.routes.body import BoundedBodies
from controller.routes.fleet import fleet_router
from controller.routes.legacy import legacy_router
from controller.routes.public import public_router
from controller.routes.relayed import RelayedRoute, RequestLimits
from controller.settings import ControllerSettings
from controller.tracing import Tracing, otlp_tracing
from controller.upstream import Upstream
from controller.via import own_name
from controller.vigil import CHECK_SECONDS, Vigil

_log = logging.getLogger(__name__)

# A loop that is this late was stopped, or its machine slept: heartbeats came and were not read.
STANDSTILL_SECONDS = 1.0


# Of what workers and operators say; one of a thousand adapters says a tenth of it.
MAX_FLEET_BODY_BYTES = 8 * 1024 * 1024


class Controller:
    """The controller as an ASGI application, with the drain that precedes its shutdown."""

    def __init__(
        self, app: ASGIApp, registry: Registry, in_flight: InFlight, *, grace_seconds: float
    ) -> None:
        self.registry = registry
        self._app = app
        self._in_flight = in_flight
        self._grace_seconds = grace_seconds

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serves one connection scope."""
        return self._app(scope, receive, send)

    async def drain(self) -> None:
        """Says so in ``/ready``, takes no new requests, and waits for those that are open."""
        await self._in_flight.drain(self._grace_seconds)


class _Front:
    """Sends the hot path straight to its route, and all else to the framework."""

    def __init__(self, hot: dict[str, ASGIApp], api: ASGIApp) -> None:
        self._hot = hot
        self._api = api

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        app = self._api
        if scope["type"] == "http" and scope["method"] == "POST":
            app = self._hot.get(scope["path"], app)
        return app(scope, receive, send)


def create_app(
    settings: ControllerSettings,
    *,
    clock: Callable[[], float] = time.monotonic,
    wall_clock: Callable[[], float] = time.time,
    rng: random.Random | None = None,
    tracing: Tracing | None = None,
) -> Controller:
    """Builds a controller.

    Args:
        settings: what it was told.
        clock: monotonic seconds.
        wall_clock: Unix seconds.
        rng: where policies take chance from; None seeds one from the system.
        tracing: where spans go; None makes it of the settings.

    Raises:
        KeyFileError: the file of API keys cannot be used.
        TracingError: spans cannot be sent.
    """
    if tracing is None and settings.otlp_endpoint is not None:
        tracing = otlp_tracing(settings.otlp_endpoint)
    api_keys = fleet_token = None
    keys: tuple[ApiKey, ...] = ()
    if settings.api_keys is not None:
        keys = read_keys(settings.api_keys)
        api_keys = BearerCheck(keys, what="An API key")
    if settings.fleet_token is not None:
        fleet_token = BearerCheck.of_token(
            settings.fleet_token.get_secret_value(), what="The fleet's token"
        )
    name = own_name()
    registry = Registry(
        clock=clock,
        wall_clock=wall_clock,
        name=name,
        settling_seconds=settings.settling_seconds,
    )
    in_flight = InFlight()
    lines = Lines(max_waiting=settings.max_queue, clock=clock)
    metrics = Metrics(registry, in_flight, lines, clock=clock)
    upstream = Upstream(
        connect_seconds=settings.connect_seconds, tls=client_context(settings.tls_ca)
    )
    external = ExternalServers(registry, upstream, settings.external)
    legacy = LegacyWorkers(registry, upstream)
    vigil = Vigil(clock=clock)
    policy = POLICIES[settings.dispatch_method]
    rng = rng or random.Random()  # noqa: S311  # spreads load, guards nothing
    choosing = Choosing(
        registry,
        policy,
        lines,
        metrics,
        patience_seconds=settings.queue_seconds,
        clock=clock,
        rng=rng,
    )
    relay = Relay(
        registry,
        choosing,
        upstream,
        vigil,
        metrics,
        budget=RetryBudget(clock=clock),
        attempts=settings.relay_attempts,
        clock=clock,
    )

    def relayed(path: str, reply: type[Reply] = Reply) -> RelayedRoute:
        return RelayedRoute(
            path,
            relay,
            in_flight,
            metrics,
            limits=RequestLimits(
                settings.max_body_bytes, settings.body_seconds, settings.request_seconds
            ),
            clock=clock,
            name=name,
            reply=reply,
            tracing=tracing,
        )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with upstream, external, legacy:
            rounds = asyncio.create_task(_make_rounds(registry, vigil, lines, metrics, clock))
            try:
                yield
            finally:
                rounds.cancel()
                if tracing is not None:
                    await asyncio.to_thread(tracing.close)

    api = Api("Paragone controller", lifespan)
    install_errors(api)
    install_health(api, not_ready_reason=lambda: _not_ready_reason(registry, in_flight))
    api.include_router(public_router(registry))
    joining = JoinRules(
        fleet_token=fleet_token,
        trusts_network=settings.allow_anonymous_network_access,
        legacy_workers=settings.legacy_workers,
    )
    api.include_router(fleet_router(registry, external, joining))
    api.include_router(
        legacy_router(registry, legacy, policy, rng, check_address=joining.check_legacy)
    )

    @api.get("/metrics", tags=["health"])
    async def show_metrics() -> Response:
        """Counters and gauges for Prometheus."""
        return Response(metrics.render(), media_type=CONTENT_TYPE_LATEST)

    hot: dict[str, ASGIApp] = {
        **{path: relayed(path) for path in (CHAT_COMPLETIONS, COMPLETIONS, PREVIEW)},
        GENERATE_STREAM: relayed(GENERATE_STREAM, LegacyReply),
    }
    # So that other methods are told which one these take.
    api.router.routes.extend(
        Route(path, route, methods=["POST"], include_in_schema=False) for path, route in hot.items()
    )
    app: ASGIApp = _Front(
        hot,
        BoundedBodies(
            api,
            max_bytes=min(MAX_FLEET_BODY_BYTES, settings.max_body_bytes),
            seconds=settings.body_seconds,
        ),
    )
    if api_keys is not None or fleet_token is not None:
        app = Access(app, api_keys=api_keys, fleet_token=fleet_token, quotas=Quotas(keys))
    if settings.cors_origins:  # outside of the rest: a browser's first question carries no key
        app = CORSMiddleware(
            app,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["authorization", "content-type", "x-request-id", "x-request-timeout"],
            expose_headers=["retry-after", "x-error-code", "x-request-id", "x-worker-id"],
        )
    return Controller(
        RequestIdMiddleware(app), registry, in_flight, grace_seconds=settings.grace_seconds
    )


def _not_ready_reason(registry: Registry, in_flight: InFlight) -> str | None:
    if in_flight.is_draining:
        return "shutting down"
    return None if registry.has_live_worker() else "no worker is ready"


async def _make_rounds(
    registry: Registry,
    vigil: Vigil,
    lines: Lines,
    metrics: Metrics,
    clock: Callable[[], float],
) -> None:
    """Forgets workers whose lease is over, ends waits for hung ones, measures this loop's lag."""
    while True:
        due = clock() + CHECK_SECONDS
        await asyncio.sleep(CHECK_SECONDS)
        lag = max(0.0, clock() - due)
        metrics.loop_lag.observe(lag)
        if lag > STANDSTILL_SECONDS:
            _log.warning("this process stood still for %.1f s", lag)
            registry.forgive(lag)
        vigil.check()
        lines.wake_all()  # leases end without news
        for record in registry.expire():
            _log.warning(
                "worker %s at %s is gone: no heartbeat for %.1f s",
                record.worker_id,
                record.address,
                record.lease.seconds,
            )
