"""The fleet API, the model list and the health routes, over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from controller.app import MAX_FLEET_BODY_BYTES
from controller.chassis.http import package_version
from controller.protocol.fleet import FleetView, LeaseReply, ModelList, WorkerState
from tests.controller.conftest import Fleet, running_controller
from tests.controller.mock_worker import Fault, MockWorker, Script
from tests.controller.test_registry import Clock
from tests.waiting import until

pytestmark = pytest.mark.anyio


async def test_a_registration_grants_a_lease_of_three_beats(fleet: Fleet) -> None:
    mock = await fleet.stack.enter_async_context(MockWorker())
    reply = await fleet.heartbeat(mock, heartbeat_seconds=1.0)
    assert LeaseReply.model_validate(reply.json()) == LeaseReply(known=False, lease_seconds=3.0)
    reply = await fleet.heartbeat(mock, heartbeat_seconds=1.0)
    assert LeaseReply.model_validate(reply.json()) == LeaseReply(known=True, lease_seconds=3.0)


async def test_a_silent_workers_model_leaves_the_list_without_any_request() -> None:
    clock = Clock()
    async with running_controller(clock=clock) as fleet:
        mock = await fleet.stack.enter_async_context(MockWorker())
        await fleet.register(mock, heartbeat_seconds=0.1)
        clock.now += 0.25
        assert await fleet.models() == ["demo"]
        clock.now += 0.1
        assert await fleet.models() == []
        assert (await fleet.client.get("/v1/models/demo")).status_code == 503


async def test_models_are_listed_with_what_they_are(fleet: Fleet) -> None:
    await fleet.worker("a", models=["org/demo", "other"])
    await fleet.worker("b", models=["org/demo"])
    listed = ModelList.model_validate((await fleet.client.get("/v1/models")).json())
    assert [entry.id for entry in listed.data] == ["org/demo", "other"]
    assert listed.data[0].metadata.worker_count == 2
    assert listed.data[0].metadata.state is WorkerState.READY
    assert listed.data[0].metadata.card.name == "org/demo"
    one = await fleet.client.get("/v1/models/org/demo")
    assert one.json()["id"] == "org/demo"


async def test_the_openai_client_lists_models(fleet: Fleet) -> None:
    await fleet.worker()
    async with fleet.openai() as client:
        listed = await client.models.list()
        assert [model.id for model in listed.data] == ["demo"]
        assert (await client.models.retrieve("demo")).owned_by == "paragone"


async def test_the_fleet_is_shown_with_its_requests_in_flight(fleet: Fleet) -> None:
    worker = await fleet.worker(script=Script(fault=Fault.HANG))
    asking = asyncio.create_task(fleet.ask())
    await until(lambda: worker.received)
    view = FleetView.model_validate((await fleet.client.get("/fleet/workers")).json())
    asking.cancel()
    (shown,) = view.workers
    assert shown.worker_id == "mock-1"
    assert shown.address == worker.address
    assert shown.in_flight == 1
    assert 0 <= shown.heartbeat_age_seconds < 60
    assert not shown.suspect


async def test_a_drained_worker_finishes_what_it_has(fleet: Fleet) -> None:
    worker = await fleet.worker(script=Script(words=["a"] * 10, word_seconds=0.02))
    streaming = asyncio.create_task(fleet.stream())
    await until(lambda: worker.received)
    reply = await fleet.client.post("/fleet/drain", json={"worker_id": "mock-1"})
    assert reply.json() == {"known": True}
    assert await fleet.models() == []
    _, events = await streaming
    assert events[-1].data == "[DONE]"


async def test_two_workers_at_one_address_are_told_of_each_other(fleet: Fleet) -> None:
    first = await fleet.worker("one")
    second = MockWorker(worker_id="two", port=first.port)
    await fleet.register(second)
    reply = await fleet.heartbeat(first)
    assert reply.status_code == 409
    assert "worker two" in reply.json()["error"]["message"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"worker_id": "a\r\nb"}, "worker_id"),
        ({"worker_id": ""}, "worker_id"),
        ({"address": "ftp://host"}, "address"),
        ({"heartbeat_seconds": 0}, "heartbeat_seconds"),
        ({"heartbeat_seconds": 1e9}, "heartbeat_seconds"),
    ],
)
async def test_a_wrong_registration_is_a_400_that_names_the_field(
    fleet: Fleet, change: dict[str, object], field: str
) -> None:
    message = MockWorker(port=1).registration().model_dump(mode="json") | change
    reply = await fleet.client.post("/fleet/register", json=message)
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == field


async def test_a_registrants_address_is_not_contacted(fleet: Fleet) -> None:
    touched = asyncio.Event()

    async def on_connection(_reader: object, writer: asyncio.StreamWriter) -> None:
        touched.set()
        writer.close()

    server = await asyncio.start_server(on_connection, "127.0.0.1", 0)
    async with server:
        mock = MockWorker(port=server.sockets[0].getsockname()[1])
        await fleet.register(mock)
        await fleet.models()
        await fleet.client.get("/fleet/workers")
        await asyncio.sleep(0.2)
    assert not touched.is_set()


async def test_ready_once_a_worker_is(fleet: Fleet) -> None:
    reply = await fleet.client.get("/ready")
    assert reply.status_code == 503
    assert reply.json()["reason"] == "no worker is ready"
    await fleet.worker()
    assert (await fleet.client.get("/ready")).status_code == 200


async def test_alive_from_the_start(fleet: Fleet) -> None:
    assert (await fleet.client.get("/health")).json() == {"status": "ok"}
    assert (await fleet.client.get("/version")).json() == {"version": package_version()}


async def test_metrics_count_requests_tokens_and_workers(fleet: Fleet) -> None:
    await fleet.worker()
    await fleet.ask()
    await fleet.stream()
    await fleet.ask("unknown")
    text = (await fleet.client.get("/metrics")).text
    samples = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    prefix = "paragone_controller_"
    demo = (("model_name", "demo"),)
    assert samples[prefix + "request_success_total", demo] == 2
    assert samples[prefix + "time_to_first_token_seconds_count", demo] == 2
    assert samples[prefix + "e2e_request_latency_seconds_count", demo] == 2
    assert samples[prefix + "requests_total", (*demo, ("status", "200"))] == 2
    assert samples[prefix + "requests_total", (("model_name", ""), ("status", "404"))] == 1
    assert samples[prefix + "num_requests_running", demo] == 0
    assert samples[prefix + "oldest_request_age_seconds", demo] == 0
    assert any(name == prefix + "worker_up" and value == 1 for (name, _), value in samples.items())


async def test_the_openapi_document_describes_the_relayed_route_too(fleet: Fleet) -> None:
    document = (await fleet.client.get("/openapi.json")).json()
    assert "post" in document["paths"]["/v1/chat/completions"]
    assert "ChatCompletionRequest" in document["components"]["schemas"]
    assert "/fleet/register" in document["paths"]


async def test_an_unknown_address_is_a_404_in_openais_shape(fleet: Fleet) -> None:
    reply = await fleet.client.get("/v1/nothing")
    assert reply.status_code == 404
    assert reply.json()["error"]["code"] == "not_found"
    assert reply.headers["x-request-id"].startswith("req-")


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/chat/completions", "/v1/chat/completions"),  # a base address without /v1
        ("/v1/v1/chat/completions", "/v1/chat/completions"),  # one that had it already
        ("/v1/chat/completions/", "/v1/chat/completions"),
        ("/models", "/v1/models"),
        ("/v1/models/", "/v1/models"),
        ("/v1/health", "/health"),
        ("//health", "/health"),
    ],
)
async def test_an_address_that_is_nearly_right_is_a_404_that_names_the_right_one(
    fleet: Fleet, path: str, meant: str
) -> None:
    reply = await fleet.client.get(fleet.url + path)
    assert reply.status_code == 404
    assert reply.json()["error"]["message"].endswith(f"did you mean {meant}?")


@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/v1/completions", "/v1/preview", "/worker_generate_stream"]
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "OPTIONS"])
async def test_a_relayed_route_says_which_method_it_takes(
    fleet: Fleet, path: str, method: str
) -> None:
    reply = await fleet.client.request(method, path)
    assert reply.status_code == 405
    assert reply.headers["allow"] == "POST"
    if method != "HEAD":
        assert reply.json()["error"]["code"] == "method_not_allowed"


@pytest.mark.parametrize("path", ["/health", "/ready", "/v1/models", "/metrics"])
async def test_head_is_answered_as_get_without_the_body(fleet: Fleet, path: str) -> None:
    whole = await fleet.client.get(path)
    head = await fleet.client.head(path)
    assert head.status_code == whole.status_code
    assert head.content == b""
    if path != "/metrics":  # whose body has changed since
        assert head.headers["content-length"] == whole.headers["content-length"]


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("path", ["/fleet/register", "/fleet/drain", "/refresh_all_workers"])
async def test_what_the_fleet_says_has_a_bound_too(fleet: Fleet, path: str, chunked: bool) -> None:
    size = MAX_FLEET_BODY_BYTES + 1

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(size // 2**20 + 1):
            yield b" " * 2**20

    reply = await fleet.client.post(
        path,
        content=pieces() if chunked else b" " * size,
        headers={"content-type": "application/json"},
    )
    assert reply.status_code == 413
    assert reply.json()["error"]["code"] == "payload_too_large"


async def test_what_the_fleet_says_has_to_arrive_in_time() -> None:
    async with running_controller(body_seconds=0.1) as fleet:

        async def never() -> AsyncIterator[bytes]:
            yield b"{"
            await asyncio.sleep(60)

        headers = {"content-type": "application/json"}
        reply = await fleet.client.post("/fleet/register", content=never(), headers=headers)
        assert reply.status_code == 408
