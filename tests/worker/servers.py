"""A worker on a real port with a fake model behind it, and a controller that only listens."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import openai
from fastapi import FastAPI, Request, Response

from controller.chassis.serve import Server, listen
from controller.protocol.fleet import DrainRequest, LeaseReply, ModelCard, RegisterRequest
from tests.engine.fake_model import FakeModel
from tests.waiting import until
from worker.app import Worker
from worker.engine.protocol import Engine
from worker.engine.sequential import SequentialEngine
from worker.registration import Membership


@asynccontextmanager
async def serving(
    app: Any, sock: socket.socket | None = None, **options: Any
) -> AsyncIterator[str]:
    """An application on a real port; its address."""
    sock = sock or listen("127.0.0.1", 0)
    server = Server(app, grace_seconds=1, **options)
    task = asyncio.create_task(server.serve(sockets=[sock]))
    await until(lambda: server.started)
    try:
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


@dataclass
class FakeController:
    """Takes what workers say of themselves; ``status`` is what it answers."""

    status: int = 200
    known: bool = True
    token: str | None = None
    body: str | None = None  # instead of a lease
    calls: list[tuple[str, RegisterRequest]] = field(default_factory=list)
    drained: list[str] = field(default_factory=list)

    @property
    def app(self) -> FastAPI:
        app = FastAPI()

        @app.post("/fleet/{call}")
        async def fleet(call: str, request: Request) -> Response:
            body = await request.body()
            if self.token and request.headers.get("authorization") != f"Bearer {self.token}":
                return Response(status_code=401)
            if call == "drain":
                self.drained.append(DrainRequest.model_validate_json(body).worker_id)
            else:
                self.calls.append((call, RegisterRequest.model_validate_json(body)))
            reply = LeaseReply(known=self.known, lease_seconds=3).model_dump_json()
            return Response(self.body or reply, status_code=self.status)

        return app

    def states(self) -> list[str]:
        return [message.status.state.value for _, message in self.calls]


@dataclass
class RunningWorker:
    """A worker under test."""

    url: str
    worker: Worker
    model: FakeModel
    client: httpx.AsyncClient
    failed: asyncio.Event

    @property
    def engine(self) -> Engine:
        engine = self.worker.lifecycle.engine
        assert engine is not None
        return engine

    def openai(self) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=f"{self.url}/v1", api_key="unused", max_retries=0)

    async def ask(self, **more: Any) -> httpx.Response:
        return await self.client.post("/v1/chat/completions", json=question(**more))


def question(content: Any = "hello", **more: Any) -> dict[str, Any]:
    return {"model": "fake", "messages": [{"role": "user", "content": content}], **more}


@asynccontextmanager
async def running_worker(
    model: FakeModel | None = None,
    *,
    controllers: tuple[str, ...] = (),
    max_waiting: int = 4,
    before_load: Callable[[Callable[..., None]], None] = lambda on_progress: None,
    wait_until_ready: bool = True,
    **options: Any,
) -> AsyncIterator[RunningWorker]:
    """A worker whose checkpoint is a fake. ``before_load`` runs on the loading thread."""
    model = model or FakeModel()
    failed = asyncio.Event()

    def build(*, on_progress: Any, on_device_lost: Any) -> Engine:
        before_load(on_progress)
        return SequentialEngine(model, max_waiting=max_waiting, on_device_lost=on_device_lost)

    sock = listen("127.0.0.1", 0)
    address = f"http://127.0.0.1:{sock.getsockname()[1]}"
    worker = Worker(
        ModelCard(name=model.name),
        build,
        memberships=[Membership(controller, address) for controller in controllers],
        worker_id="worker-under-test",
        on_failure=failed.set,
        **{"heartbeat_seconds": 0.05, "grace_seconds": 0.5, **options},
    )
    async with (
        serving(worker.app, sock, before_shutdown=worker.leave) as url,
        httpx.AsyncClient(base_url=url, timeout=60) as client,
    ):
        if wait_until_ready:
            await until(lambda: worker.lifecycle.not_ready_reason() is None)
        try:
            yield RunningWorker(url, worker, model, client, failed)
        finally:
            if model.gate is not None:
                model.gate.set()
