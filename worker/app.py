"""The worker's composition root: an application out of its parts."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
from fastapi import FastAPI

from controller.chassis.http import (
    RequestIdMiddleware,
    install_errors,
    install_health,
    package_version,
)
from controller.chassis.openapi import Api
from controller.protocol.fleet import ModelCard
from worker.checkpoint.errors import CheckpointError
from worker.lifecycle import Lifecycle
from worker.loading import EngineBuilder, load_engine
from worker.registration import Membership, Registration
from worker.routes.adapters import adapter_routes
from worker.routes.answering import Answering
from worker.routes.body import DEFAULT_BODY_LIMITS, BodyLimits
from worker.routes.chat import chat_routes
from worker.routes.completions import completion_routes
from worker.routes.images import ImageReader
from worker.routes.legacy import legacy_routes
from worker.routes.legacy_facts import legacy_fact_routes
from worker.routes.metrics import metrics_routes
from worker.routes.models import model_routes
from worker.routes.preview import preview_routes
from worker.telemetry import Telemetry
from worker.vision.policy import DEFAULT_IMAGE_POLICY, ImagePolicy

_log = logging.getLogger(__name__)

# How long a worker that failed, or leaves, waits for its controllers to hear of it.
LAST_WORDS_SECONDS = 2.0


class Worker:
    """A worker in one process: its application, and what happens around requests.

    Args:
        card: what is known of the model before it is loaded; its name at least.
        build_engine: makes the engine, on the loading thread.
        memberships: the controllers to register with; none is a worker on its own.
        worker_id: of this process.
        heartbeat_seconds: how often controllers hear from it.
        body_limits: what a request's body may be.
        image_policy: what images it may have.
        fleet_token: what controllers ask workers for, where they do.
        adapter_root: the folder that adapters may come from while running; None: they may not.
        grace_seconds: how long answers may go on after a stop was asked for.
        tls: whose certificates controllers may show; None is the system's choice.
        on_failure: called once nothing can be served any more and controllers know it.
    """

    def __init__(
        self,
        card: ModelCard,
        build_engine: EngineBuilder,
        *,
        memberships: Sequence[Membership],
        worker_id: str,
        heartbeat_seconds: float = 1.0,
        fleet_token: str | None = None,
        body_limits: BodyLimits = DEFAULT_BODY_LIMITS,
        image_policy: ImagePolicy = DEFAULT_IMAGE_POLICY,
        adapter_root: Path | None = None,
        grace_seconds: float = 30,
        tls: ssl.SSLContext | None = None,
        on_failure: Callable[[], None],
    ) -> None:
        self.lifecycle = Lifecycle(card)
        self._build_engine = build_engine
        self._grace_seconds = grace_seconds
        self._on_failure = on_failure
        self._adapter_root = adapter_root
        self._http = httpx.AsyncClient(trust_env=False, verify=tls or True)
        self._registration = Registration(
            memberships,
            worker_id=worker_id,
            version=package_version(),
            heartbeat_seconds=heartbeat_seconds,
            status=self.lifecycle.status,
            http=self._http,
            token=fleet_token,
        )
        self.lifecycle.on_change(self._registration.announce)
        self._tasks: set[asyncio.Task[None]] = set()
        self.app = self._create_app(worker_id, body_limits, ImageReader(image_policy))

    async def leave(self) -> None:
        """Before the listener closes: not ready any more, and no controller routes here.

        Answers that run may go on; after ``grace_seconds`` they are cut off.
        """
        self.lifecycle.begin_drain()
        self._spawn(self._abort_after_grace())
        await self._registration.drain()

    def _create_app(
        self, worker_id: str, body_limits: BodyLimits, image_reader: ImageReader
    ) -> FastAPI:
        app = Api("Paragone worker", self._lifespan)
        app.add_middleware(RequestIdMiddleware)
        install_errors(app)
        install_health(
            app,
            not_ready_reason=self.lifecycle.not_ready_reason,
            progress=lambda: self.lifecycle.progress,
        )
        telemetry = Telemetry(self.lifecycle)
        answering = Answering(telemetry, worker_id=worker_id)
        app.include_router(
            chat_routes(self.lifecycle, answering, image_reader, body_limits=body_limits)
        )
        app.include_router(completion_routes(self.lifecycle, answering, body_limits=body_limits))
        app.include_router(
            preview_routes(
                self.lifecycle, image_reader, worker_id=worker_id, body_limits=body_limits
            )
        )
        app.include_router(
            legacy_routes(
                self.lifecycle,
                telemetry,
                image_reader,
                worker_id=worker_id,
                body_limits=body_limits,
            )
        )
        app.include_router(legacy_fact_routes(self.lifecycle, body_limits=body_limits))
        app.include_router(model_routes(self.lifecycle))
        app.include_router(adapter_routes(self.lifecycle, self._adapter_root))
        app.include_router(metrics_routes(telemetry.registry))
        return app

    @asynccontextmanager
    async def _lifespan(self, _app: FastAPI) -> AsyncGenerator[None]:
        self._spawn(self._registration.run())
        self._spawn(self._load())
        try:
            yield
        finally:
            tasks = tuple(self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if self.lifecycle.engine is not None:
                await self.lifecycle.engine.aclose()
            await self._http.aclose()

    async def _load(self) -> None:
        name = self.lifecycle.status().models[0].name
        try:
            engine = await load_engine(
                self._build_engine,
                on_progress=self.lifecycle.report_progress,
                on_device_lost=self._device_lost,
            )
        except CheckpointError as exc:
            _log.error("%s cannot be loaded: %s", name, exc)
            await self._fail(str(exc))
        except Exception as exc:  # noqa: BLE001 - whatever it was, the fleet has to know
            _log.exception("%s cannot be loaded", name)
            await self._fail(f"{type(exc).__name__}: {exc}")
        else:
            self.lifecycle.become_ready(engine)
            _log.info("%s is ready", name)

    def _device_lost(self, reason: str) -> None:
        _log.error("the device is lost, this worker ends: %s", reason)
        self._spawn(self._fail(reason))

    async def _fail(self, detail: str) -> None:
        self.lifecycle.fail(detail)
        await self._registration.wait_until_told(LAST_WORDS_SECONDS)
        self._on_failure()

    async def _abort_after_grace(self) -> None:
        await asyncio.sleep(self._grace_seconds)
        if self.lifecycle.engine is not None:
            stats = self.lifecycle.engine.stats()
            _log.warning(
                "the grace period is over: cutting off %d answer(s)", stats.running + stats.waiting
            )
            self.lifecycle.engine.abort_all()

    def _spawn(self, coroutine: Coroutine[None, None, None]) -> None:
        """Runs beside the requests; the loop itself would only hold a weak reference."""
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
