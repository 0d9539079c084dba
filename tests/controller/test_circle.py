"""Controllers that are workers of each other: requests end, and find whoever can answer.

Of models that are gone they do not go on telling each other.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from controller.protocol.fleet import ModelCard, RegisterRequest, WorkerState, WorkerStatus
from controller.registry import Registry
from controller.via import not_through, passed_on
from controller.worker_record import Reach
from tests.controller.conftest import Fleet, question, running_controller, served
from tests.controller.mock_worker import MockWorker
from tests.waiting import until

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
async def forgetful(target: str) -> AsyncIterator[str]:
    """A gateway that lists another's models by their names alone, as other people's do."""
    async with httpx.AsyncClient(base_url=target, timeout=60) as client:

        async def pass_on(request: Request) -> Response:
            headers = [(key, value) for key, value in request.headers.raw if key != b"host"]
            answer = await client.request(
                request.method, request.url.path, headers=headers, content=await request.body()
            )
            body = re.sub(rb',?"via":(\[[^]]*\]|\{[^}]*\})', b"", answer.content)
            kept = ("content-type", "x-error-code")
            head = {key: answer.headers[key] for key in kept if key in answer.headers}
            return Response(body, answer.status_code, headers=head)

        route = Route("/{path:path}", pass_on, methods=["GET", "POST"])
        async with served(Starlette(routes=[route])) as url:
            yield url


@asynccontextmanager
async def told_plainly(target: str) -> AsyncIterator[str]:
    """Nothing in between."""
    yield target


@asynccontextmanager
async def two(
    join: Any, between: Any = told_plainly
) -> AsyncIterator[tuple[Fleet, Fleet, MockWorker]]:
    """Two controllers, each a worker of the other; the first one has a worker of its own."""
    async with (
        running_controller(fleet_token="sesame") as first,
        running_controller(fleet_token="sesame") as second,
        between(first.url) as to_first,
        between(second.url) as to_second,
        MockWorker() as worker,
    ):
        message = worker.registration(heartbeat_seconds=30).model_dump(mode="json")
        registered = await first.client.post("/fleet/register", json=message, headers=TOKEN)
        assert registered.status_code == 200
        await join(second, to_first)
        await join(first, to_second)
        yield first, second, worker


async def lose(fleet: Fleet, worker: MockWorker) -> None:
    """The only worker goes."""
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
    # What stands between them hides from them that each has the model of the other alone.
    async with two(join, forgetful) as (first, second, worker):
        await lose(first, worker)
        for fleet in (first, second):
            reply = await fleet.ask(stream=stream)
            assert reply.status_code == 508
            assert reply.headers["content-type"] == "application/json"
            assert reply.headers["x-error-code"] == "request_loop"
            assert reply.json()["error"]["code"] == "request_loop"
            assert "circle" in reply.json()["error"]["message"]


async def test_on_the_legacy_wire_it_is_refused_in_a_frame() -> None:
    async with two(add_legacy, forgetful) as (first, _second, worker):
        await lose(first, worker)
        body = {"model": "demo", "prompt": "USER: hi ASSISTANT:", "stop": "</s>"}
        reply = await first.client.post("/worker_generate_stream", json=body)
        frame = json.loads(reply.content.rstrip(b"\0"))
        assert frame["error_code"] == 1
        assert "circle" in frame["text"]


async def test_who_refuses_so_is_not_suspected() -> None:
    async with two(add_external, forgetful) as (first, second, worker):
        await lose(first, worker)
        await first.ask()
        for fleet in (first, second):
            suspicions = [record.suspicion for record in fleet.registry.workers()]
            assert suspicions == [None] * len(suspicions)


@pytest.mark.parametrize("join", [add_external, add_legacy])
async def test_a_model_is_gone_everywhere_once_its_last_worker_is(join: Any) -> None:
    async with two(join) as (first, second, worker):
        await until_models_are(["demo"], first, second)
        await lose(first, worker)
        # The first one never had it of the second, which has it of the first.
        assert await first.models() == []
        reply = await first.ask()
        assert reply.json()["error"]["code"] == "no_live_worker"
        await until_models_are([], second)
        assert await first.models() == []


@pytest.mark.parametrize("join", [add_external, add_legacy])
async def test_a_model_stays_while_any_of_them_has_a_worker(join: Any) -> None:
    async with two(join) as (first, second, worker), MockWorker(worker_id="mock-2") as another:
        message = another.registration(heartbeat_seconds=30).model_dump(mode="json")
        await second.client.post("/fleet/register", json=message, headers=TOKEN)
        await lose(first, worker)
        await until_models_are(["demo"], second, first)
        if join is add_external:  # the mock speaks no other wire
            for fleet in (first, second):
                assert (await fleet.ask()).status_code == 200
            assert len(another.received) == 2


async def until_models_are(names: list[str], *fleets: Fleet) -> None:
    """Each is polled by the other every few seconds."""
    async with asyncio.timeout(60):
        for fleet in fleets:
            while await fleet.models() != names:  # noqa: ASYNC110  # over the wire
                await asyncio.sleep(0.05)


async def test_an_entry_names_the_controllers_that_a_request_passes() -> None:
    async with two(add_external) as (first, second, _worker):
        ways = [
            (await fleet.client.get("/v1/models")).json()["data"][0]["metadata"]["via"]
            for fleet in (first, second)
        ]
        assert ways == [[first.registry.name], [second.registry.name, first.registry.name]]


async def test_what_other_servers_have_in_their_metadata_is_no_harm() -> None:
    async with running_controller(fleet_token="sesame") as fleet:
        for metadata in (None, 1, "text", [], {"via": 1}, {"via": [[]]}, {"via": {}}):

            async def listed(_: Request, metadata: Any = metadata) -> Response:
                return JSONResponse({"data": [{"id": "theirs", "metadata": metadata}]})

            async with served(Starlette(routes=[Route("/v1/models", listed)])) as url:
                reply = await fleet.client.post(
                    "/fleet/external", json={"address": url}, headers=TOKEN
                )
                assert reply.json()["models"] == ["theirs"]


class Polled:
    """A controller's registry, that is told of others as polls tell it."""

    def __init__(self, name: str) -> None:
        self.registry = Registry(clock=lambda: 0.0, wall_clock=lambda: 0.0, name=name)

    def hear(self, worker_id: str, ways: Mapping[str, Sequence[str]]) -> None:
        kept = not_through(self.registry.name, ways)
        self.registry.heartbeat(
            RegisterRequest(
                worker_id=worker_id,
                address=f"http://{worker_id}",
                heartbeat_seconds=1,
                version="1",
                status=WorkerStatus(
                    state=WorkerState.READY, models=[ModelCard(name=name) for name in kept]
                ),
            ),
            reach=Reach(ways=kept),
        )

    def ways(self) -> dict[str, Sequence[str]]:
        return {entry.id: entry.metadata.via or () for entry in self.registry.models().data}


@pytest.mark.parametrize("seed", range(20))
def test_among_many_that_all_poll_each_other_a_model_ends_with_its_last_worker(seed: int) -> None:
    rng = random.Random(seed)
    polled = [Polled(f"paragone-{n}") for n in range(5)]
    pairs = [(a, b) for a in polled for b in polled if a is not b]

    def poll_all(times: int) -> None:
        for _ in range(times):
            for hearing, told in rng.sample(pairs, len(pairs)):
                hearing.hear(told.registry.name, told.ways())

    polled[0].hear("w0", {"demo": ()})
    polled[3].hear("w3", {"demo": ()})
    poll_all(len(polled))
    assert [list(each.ways()) for each in polled] == [["demo"]] * 5
    polled[0].registry.drain("w0")
    poll_all(len(polled))
    assert [list(each.ways()) for each in polled] == [["demo"]] * 5
    assert polled[0].ways() == {"demo": ("paragone-0", "paragone-3")}
    polled[3].registry.drain("w3")
    poll_all(len(polled))  # a way holds each of them once at most
    assert [list(each.ways()) for each in polled] == [[]] * 5


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
