"""A controller on a real port, and workers without a model that it talks to."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import openai
import pytest
from starlette.types import ASGIApp

from controller.app import Controller, create_app
from controller.chassis.serve import Server, listen
from controller.protocol import sse
from controller.protocol.fleet import WorkerLoad, WorkerState
from controller.registry import Registry
from controller.settings import ControllerSettings
from controller.tracing import Tracing
from tests.controller.mock_worker import MockWorker, Script


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    # The loop that the process itself runs on.
    return "asyncio", {"use_uvloop": True}


@dataclass
class Fleet:
    """A running controller and the means to talk to it."""

    url: str
    app: Controller
    client: httpx.AsyncClient
    stack: AsyncExitStack

    @property
    def registry(self) -> Registry:
        return self.app.registry

    async def worker(
        self,
        worker_id: str = "mock-1",
        *,
        script: Script | None = None,
        models: Sequence[str] = ("demo",),
        state: WorkerState = WorkerState.READY,
        load: WorkerLoad | None = None,
        port: int = 0,
    ) -> MockWorker:
        """Starts a mock worker and registers it."""
        mock = MockWorker(worker_id=worker_id, script=script or Script(), port=port)
        await self.stack.enter_async_context(mock)
        await self.register(mock, models=models, state=state, load=load)
        return mock

    async def register(self, mock: MockWorker, **said: Any) -> None:
        message = mock.registration(**said)
        reply = await self.client.post("/fleet/register", json=message.model_dump(mode="json"))
        assert reply.status_code == 200, reply.text

    async def heartbeat(self, mock: MockWorker, **said: Any) -> httpx.Response:
        message = mock.registration(**said)
        return await self.client.post("/fleet/heartbeat", json=message.model_dump(mode="json"))

    async def models(self) -> list[str]:
        reply = await self.client.get("/v1/models")
        assert reply.status_code == 200
        return [entry["id"] for entry in reply.json()["data"]]

    async def ask(self, model: str = "demo", **more: Any) -> httpx.Response:
        return await self.client.post("/v1/chat/completions", json=question(model, **more))

    async def post(self, body: bytes | AsyncIterator[bytes]) -> httpx.Response:
        """Asks with a body of any bytes."""
        headers = {"content-type": "application/json"}
        return await self.client.post("/v1/chat/completions", content=body, headers=headers)

    async def stream(
        self, model: str = "demo", **more: Any
    ) -> tuple[httpx.Response, list[sse.Event]]:
        """A whole streamed answer, decoded."""
        reply = await self.ask(model, stream=True, **more)
        return reply, list(sse.Decoder().feed(reply.content))

    def openai(self) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=f"{self.url}/v1", api_key="unused", max_retries=0)


def question(model: str = "demo", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "What is here?"}], **more}


@asynccontextmanager
async def running_controller(
    *,
    tracing: Tracing | None = None,
    clock: Callable[[], float] = time.monotonic,
    **settings: Any,
) -> AsyncIterator[Fleet]:
    """A controller on a free port, served as its process serves it; a wrong name is one at once."""
    app = create_app(
        ControllerSettings(port=0, **{"settling_seconds": 0, **settings}),
        tracing=tracing,
        clock=clock,
    )
    async with (
        served(app, before_shutdown=app.drain) as url,
        # Workers go first, so that nothing is left to drain.
        httpx.AsyncClient(base_url=url, timeout=60, verify=False) as client,
        AsyncExitStack() as stack,
    ):
        yield Fleet(url, app, client, stack)


@asynccontextmanager
async def served(app: ASGIApp, **options: Any) -> AsyncIterator[str]:
    """An application on a free port; its URL."""
    sock = listen("127.0.0.1", 0)
    server = Server(app, grace_seconds=1, **options)
    # `serve` without its loop, which looks for signals ten times a second and costs each test that.
    server.config.load()
    server.lifespan = server.config.lifespan_class(server.config)
    await server.startup(sockets=[sock])
    try:
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    finally:
        await server.shutdown(sockets=[sock])


@pytest.fixture
async def fleet() -> AsyncIterator[Fleet]:
    async with running_controller() as running:
        yield running
