"""The composition root: everything that a controller is made of is built and joined here."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI, Response
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.types import ASGIApp, Receive, Scope, Send

from controller.access import Access
from controller.chassis.auth import BearerCheck, read_keys
from controller.chassis.http import (
    RequestIdMiddleware,
    install_errors,
    install_health,
)
from controller.chassis.openapi import CHAT_COMPLETIONS, PREVIEW, Api
from controller.dispatch import POLICIES
from controller.external import ExternalServers
from controller.inflight import InFlight
from controller.metrics import Metrics
from controller.registry import Registry
from controller.relay import Relay
from controller.routes.fleet import fleet_router
from controller.routes.public import public_router
from controller.routes.relayed import RelayedRoute
from controller.settings import ControllerSettings
from controller.upstream import Upstream
from controller.vigil import CHECK_SECONDS, Vigil

_log = logging.getLogger(__name__)


class Controller:
    """The controller as an ASGI application, with the drain that precedes its shutdown."""

    def __init__(self, app: ASGIApp, in_flight: InFlight, *, grace_seconds: float) -> None:
        self._app = app
        self._in_flight = in_flight
        self._grace_seconds = grace_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one connection scope."""
        await self._app(scope, receive, send)

    async def drain(self) -> None:
        """Says so in ``/ready``, takes no new requests, and waits for those that are open."""
        await self._in_flight.drain(self._grace_seconds)


class _Front:
    """Sends the hot path straight to its route, and all else to the framework."""

    def __init__(self, hot: dict[str, ASGIApp], api: ASGIApp) -> None:
        self._hot = hot
        self._api = api

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._api
        if scope["type"] == "http" and scope["method"] == "POST":
            app = self._hot.get(scope["path"], app)
        await app(scope, receive, send)


def create_app(
    settings: ControllerSettings,
    *,
    clock: Callable[[], float] = time.monotonic,
    wall_clock: Callable[[], float] = time.time,
    rng: random.Random | None = None,
) -> Controller:
    """Builds a controller.

    Args:
        settings: what it was told.
        clock: monotonic seconds.
        wall_clock: Unix seconds.
        rng: where policies take chance from; None seeds one from the system.

    Raises:
        KeyFileError: the file of API keys cannot be used.
    """
    api_keys = fleet_token = None
    if settings.api_keys is not None:
        api_keys = BearerCheck(read_keys(settings.api_keys), what="An API key")
    if settings.fleet_token is not None:
        fleet_token = BearerCheck.of_token(
            settings.fleet_token.get_secret_value(), what="The fleet's token"
        )
    registry = Registry(clock=clock, wall_clock=wall_clock)
    in_flight = InFlight(clock=clock)
    metrics = Metrics(registry, in_flight, clock=clock)
    upstream = Upstream(connect_seconds=settings.connect_seconds)
    external = ExternalServers(registry, upstream, settings.external)
    vigil = Vigil(clock=clock)
    relay = Relay(
        registry,
        POLICIES[settings.dispatch_method],
        upstream,
        vigil,
        metrics,
        attempts=settings.relay_attempts,
        clock=clock,
        rng=rng or random.Random(),  # noqa: S311  # spreads load, guards nothing
    )

    def relayed(path: str) -> RelayedRoute:
        return RelayedRoute(
            path,
            relay,
            in_flight,
            metrics,
            max_body_bytes=settings.max_body_bytes,
            body_seconds=settings.body_seconds,
            clock=clock,
        )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with upstream, external:
            rounds = asyncio.create_task(_make_rounds(registry, vigil, metrics, clock))
            try:
                yield
            finally:
                rounds.cancel()

    api = Api("Paragone controller", lifespan)
    install_errors(api)
    install_health(api, not_ready_reason=lambda: _not_ready_reason(registry, in_flight))
    api.include_router(public_router(registry))
    api.include_router(
        fleet_router(
            registry,
            external,
            has_fleet_token=fleet_token is not None,
            trusts_network=settings.allow_anonymous_network_access,
        )
    )

    @api.get("/metrics", tags=["health"])
    async def show_metrics() -> Response:
        """Counters and gauges for Prometheus."""
        return Response(metrics.render(), media_type=CONTENT_TYPE_LATEST)

    paths = (CHAT_COMPLETIONS, PREVIEW)
    app: ASGIApp = _Front({path: relayed(path) for path in paths}, api)
    if api_keys is not None or fleet_token is not None:
        app = Access(app, api_keys=api_keys, fleet_token=fleet_token)
    return Controller(RequestIdMiddleware(app), in_flight, grace_seconds=settings.grace_seconds)


def _not_ready_reason(registry: Registry, in_flight: InFlight) -> str | None:
    if in_flight.is_draining:
        return "shutting down"
    return None if registry.has_live_worker() else "no worker is ready"


async def _make_rounds(
    registry: Registry, vigil: Vigil, metrics: Metrics, clock: Callable[[], float]
) -> None:
    """Forgets workers whose lease is over, ends waits for hung ones, measures this loop's lag."""
    while True:
        due = clock() + CHECK_SECONDS
        await asyncio.sleep(CHECK_SECONDS)
        metrics.loop_lag.observe(max(0.0, clock() - due))
        vigil.check()
        for record in registry.expire():
            _log.warning(
                "worker %s at %s is gone: no heartbeat for %.1f s",
                record.worker_id,
                record.address,
                record.lease.seconds,
            )
