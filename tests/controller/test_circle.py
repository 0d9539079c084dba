"""Controllers that are workers of each other: requests end, and find whoever can answer."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from controller.routes.via import passed_on
from tests.controller.conftest import Fleet, question, running_controller, until
from tests.controller.mock_worker import MockWorker

pytestmark = pytest.mark.anyio

TOKEN = {"authorization": "Bearer sesame"}


async def add_external(fleet: Fleet, address: str) -> None:
    message = {"address": address}
    reply = await fleet.client.post("/fleet/external", json=message, headers=TOKEN)
    assert reply.status_code == 200, reply.text


async def add_legacy(fleet: Fleet, address: str) -> None:
    message = {"worker_name": address, "check_heart_beat": False, "worker_status": None}
    reply = await fleet.client.post("/register_worker", json=message, headers=TOKEN)
    assert reply.status_code == 200, reply.text


@asynccontextmanager
async def two(join: Any) -> AsyncIterator[tuple[Fleet, Fleet, MockWorker]]:
    """Two controllers, each a worker of the other; the first one has a worker of its own."""
    async with (
        running_controller(fleet_token="sesame") as first,
        running_controller(fleet_token="sesame") as second,
        MockWorker() as worker,
    ):
        message = worker.registration(heartbeat_seconds=30).model_dump(mode="json")
        registered = await first.client.post("/fleet/register", json=message, headers=TOKEN)
        assert registered.status_code == 200
        await join(second, first.url)
        await join(first, second.url)
        yield first, second, worker


async def lose(fleet: Fleet, worker: MockWorker) -> None:
    """The only worker goes; its model stays listed, as each controller has it of the other."""
    reply = await fleet.client.post(
        "/fleet/drain", json={"worker_id": worker.worker_id}, headers=TOKEN
    )
    assert reply.json() == {"known": True}


async def test_a_request_finds_the_worker_whichever_way_it_went() -> None:
    async with two(add_external) as (first, second, worker):
        for _ in range(8):
            for fleet in (first, second):
                reply = await fleet.ask()
                assert reply.status_code == 200, reply.text
        assert len(worker.received) == 16


@pytest.mark.parametrize("join", [add_external, add_legacy])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_that_comes_round_is_refused_with_the_cause(
    join: Any, stream: bool
) -> None:
    async with two(join) as (first, second, worker):
        await lose(first, worker)
        for fleet in (first, second):
            reply = await fleet.ask(stream=stream)
            assert reply.status_code == 508
            assert reply.headers["content-type"] == "application/json"
            assert reply.headers["x-error-code"] == "request_loop"
            assert reply.json()["error"]["code"] == "request_loop"
            assert "circle" in reply.json()["error"]["message"]


async def test_on_the_legacy_wire_it_is_refused_in_a_frame() -> None:
    async with two(add_legacy) as (first, _second, worker):
        await lose(first, worker)
        body = {"model": "demo", "prompt": "USER: hi ASSISTANT:", "stop": "</s>"}
        reply = await first.client.post("/worker_generate_stream", json=body)
        frame = json.loads(reply.content.rstrip(b"\0"))
        assert frame["error_code"] == 1
        assert "circle" in frame["text"]


async def test_who_refuses_so_is_not_suspected() -> None:
    async with two(add_external) as (first, second, worker):
        await lose(first, worker)
        await first.ask()
        for fleet in (first, second):
            suspicions = [record.suspicion for record in fleet.registry.workers()]
            assert suspicions == [None] * len(suspicions)


async def test_a_worker_is_told_the_way_that_a_request_came() -> None:
    async with running_controller() as fleet:
        worker = await fleet.worker()
        headers = [("via", "1.1 edge"), ("via", "1.0 inner")]
        await fleet.client.post("/v1/chat/completions", json=question(), headers=headers)
        await until(lambda: worker.received)
        edge, inner, ours = worker.received[0].headers["via"].split(", ")
        assert (edge, inner) == ("1.1 edge", "1.0 inner")
        assert ours.startswith("1.1 paragone-")


def test_others_names_in_via_are_no_circle() -> None:
    assert passed_on("paragone-1", [(b"via", b"1.1 paragone-2")]) == (
        "1.1 paragone-2, 1.1 paragone-1"
    )
