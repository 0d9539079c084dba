"""What each of our HTTP servers does alike: request ids, errors, health."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from pydantic import BaseModel

from controller.chassis.http import (
    RequestIdMiddleware,
    install_errors,
    install_health,
    package_version,
)
from controller.chassis.logs import request_id
from controller.protocol.errors import QueueFullError
from tests.worker.servers import serving

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Body(BaseModel):
    """A body to get wrong."""

    count: int


class Process:
    """An application as a process builds it, with a reason not to be ready."""

    def __init__(self) -> None:
        self.reason: str | None = None
        api = FastAPI()
        install_errors(api)
        install_health(api, not_ready_reason=lambda: self.reason)

        @api.get("/full")
        async def full() -> None:
            raise QueueFullError("the queue is full", retry_after_seconds=3)

        @api.get("/broken")
        async def broken() -> None:
            raise ZeroDivisionError

        @api.get("/id")
        async def current_id() -> str | None:
            return request_id.get()

        @api.post("/count")
        async def count(body: Body) -> int:
            return body.count

        self.app = RequestIdMiddleware(api)


@pytest.fixture
def process() -> Process:
    return Process()


@pytest.fixture
async def client(process: Process) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(process.app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


async def error(reply: httpx.Response) -> dict[str, Any]:
    assert list(reply.json()) == ["error"]
    return reply.json()["error"]


async def test_an_error_of_ours_keeps_its_status_code_and_headers(
    client: httpx.AsyncClient,
) -> None:
    reply = await client.get("/full")
    assert reply.status_code == 429
    assert reply.headers["retry-after"] == "3"
    assert (await error(reply))["code"] == "queue_full"


async def test_an_unexpected_error_is_a_500_that_says_where_to_look(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        reply = await client.get("/broken", headers={"x-request-id": "mine"})
    assert reply.status_code == 500
    message = (await error(reply))["message"]
    assert "ZeroDivisionError" in message
    assert "mine" in message
    assert any(record.exc_info for record in caplog.records)


async def test_after_an_unexpected_error_the_next_request_is_answered(process: Process) -> None:
    async with serving(process.app) as url, httpx.AsyncClient(base_url=url) as client:
        for _ in range(5):
            reply = await client.get("/broken")
            assert (reply.status_code, reply.headers["connection"]) == (500, "close")
            assert (await client.get("/id")).status_code == 200


@pytest.mark.parametrize(
    ("body", "param", "reason"),
    [
        ('{"count": "many"}', "count", "valid integer"),
        ("{}", "count", "required"),
        ("{", None, "not valid JSON"),
    ],
)
async def test_a_wrong_body_is_a_400_that_names_the_field(
    client: httpx.AsyncClient, body: str, param: str | None, reason: str
) -> None:
    reply = await client.post("/count", content=body, headers={"content-type": "application/json"})
    assert reply.status_code == 400
    details = await error(reply)
    assert details["param"] == param
    assert reason in details["message"]


async def test_unknown_addresses_and_methods_are_named(client: httpx.AsyncClient) -> None:
    missing = await client.get("/nowhere")
    assert missing.status_code == 404
    assert "GET /nowhere" in (await error(missing))["message"]
    wrong = await client.post("/full")
    assert wrong.status_code == 405
    assert wrong.headers["allow"] == "GET"
    assert "POST" in (await error(wrong))["message"]


async def test_a_sane_request_id_is_kept_and_reaches_the_log(client: httpx.AsyncClient) -> None:
    reply = await client.get("/id", headers={"x-request-id": "trace-1.a_b:c"})
    assert reply.json() == "trace-1.a_b:c"
    assert reply.headers["x-request-id"] == "trace-1.a_b:c"


@pytest.mark.parametrize("asked", ["", "a b", "x" * 129, "<script>", "a;b"])
async def test_any_other_request_id_is_replaced(client: httpx.AsyncClient, asked: str) -> None:
    reply = await client.get("/id", headers={"x-request-id": asked})
    assert reply.json().startswith("req-")
    assert reply.headers["x-request-id"] == reply.json()


async def test_two_requests_have_two_ids(client: httpx.AsyncClient) -> None:
    # Each in a task of its own, as a server has it; an id stays in its task.
    first, second = await asyncio.gather(client.get("/id"), client.get("/id"))
    assert first.json() != second.json()
    assert request_id.get() is None


async def test_ready_says_why_it_is_not(process: Process, client: httpx.AsyncClient) -> None:
    assert (await client.get("/ready")).status_code == 200
    process.reason = "loading"
    reply = await client.get("/ready")
    assert reply.status_code == 503
    assert reply.json() == {"status": "not ready", "reason": "loading"}
    assert (await client.get("/health")).status_code == 200


async def test_the_version_is_the_packages(client: httpx.AsyncClient) -> None:
    assert (await client.get("/version")).json() == {"version": package_version()}
