"""OpenAI-compatible servers beside our own workers."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from controller.protocol import sse
from controller.protocol.errors import ErrorBody
from controller.settings import ControllerSettings
from tests.controller.conftest import Fleet, running_controller
from tests.controller.mock_worker import Fault, MockWorker, Script
from tests.waiting import until

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
TOKEN = "a-long-random-token"


@pytest.fixture(autouse=True)
def _polled_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controller.external.POLL_SECONDS", 0.05)


async def external(fleet: Fleet, **more: Any) -> MockWorker:
    return await fleet.stack.enter_async_context(MockWorker(served_models=["theirs"], **more))


async def add(fleet: Fleet, address: str, **more: Any) -> httpx.Response:
    return await fleet.client.post(
        "/fleet/external",
        json={"address": address, **more},
        headers={"authorization": f"Bearer {TOKEN}"},
    )


async def test_its_models_appear_beside_ours_and_answer() -> None:
    async with running_controller(fleet_token=TOKEN) as fleet:
        server = await external(fleet)
        reply = await add(fleet, f"{server.address}/v1/")
        assert reply.json()["models"] == ["theirs"]
        assert await fleet.models() == ["theirs"]
        answer = await fleet.ask("theirs")
        assert answer.json()["choices"][0]["message"]["content"] == "Two red squares."
        assert answer.headers["x-worker-id"] == reply.json()["worker_id"]
        assert server.received[0].path == "/v1/chat/completions"


async def test_its_key_goes_to_it_and_is_shown_to_nobody() -> None:
    async with running_controller(fleet_token=TOKEN) as fleet:
        server = await external(fleet)
        await add(fleet, server.address, api_key="sk-theirs")
        await fleet.ask("theirs")
        assert server.listing_headers["authorization"] == "Bearer sk-theirs"
        assert server.received[0].headers["authorization"] == "Bearer sk-theirs"
        shown = await fleet.client.get(
            "/fleet/workers", headers={"authorization": f"Bearer {TOKEN}"}
        )
        assert "theirs" in shown.text
        assert "sk-theirs" not in shown.text


async def test_a_server_named_at_the_start_may_come_up_later() -> None:
    server = MockWorker(served_models=["theirs"])
    async with server:
        port = server.port
    async with running_controller(external=(f"http://127.0.0.1:{port}",)) as fleet:
        assert await fleet.models() == []
        await fleet.stack.enter_async_context(server)
        assert server.port == port
        async with asyncio.timeout(60):
            while await fleet.models() != ["theirs"]:  # noqa: ASYNC110  # over the wire
                await asyncio.sleep(0.1)


async def test_a_server_is_polled_until_it_is_drained() -> None:
    async with running_controller(fleet_token=TOKEN) as fleet:
        server = await external(fleet)
        worker_id = (await add(fleet, server.address)).json()["worker_id"]
        await until(lambda: server.listings >= 3)
        await fleet.client.post(
            "/fleet/drain",
            json={"worker_id": worker_id},
            headers={"authorization": f"Bearer {TOKEN}"},
        )
        assert await fleet.models() == []
        listings = server.listings
        await asyncio.sleep(0.5)
        assert server.listings == listings
        await add(fleet, server.address)
        assert await fleet.models() == ["theirs"]


async def test_a_lost_server_is_suspected_like_any_worker() -> None:
    async with running_controller(fleet_token=TOKEN) as fleet:
        server = await external(fleet, script=Script(fault=Fault.AT_BYTE_ZERO))
        await add(fleet, server.address)
        assert (await fleet.ask("theirs")).status_code == 502
        assert await fleet.models() == []


async def test_what_is_no_such_server_cannot_be_added() -> None:
    async with running_controller(fleet_token=TOKEN) as fleet:
        worker = await fleet.stack.enter_async_context(MockWorker())
        for address, reason in (
            (worker.address, "status 404"),
            ("http://127.0.0.1:9", "cannot connect"),
        ):
            reply = await add(fleet, address)
            assert reply.status_code == 400
            assert reason in reply.json()["error"]["message"]
            assert "/v1/models" in reply.json()["error"]["message"]


async def paragone(*words: str, **environ: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "controller.cli",
        *words,
        cwd=ROOT,
        env={**os.environ, **environ},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_the_command_line_adds_a_server() -> None:
    async with running_controller(fleet_token=TOKEN) as fleet:
        server = await external(fleet)
        status, out, err = await paragone(
            "register",
            server.address,
            "--engine",
            "openai",
            "--controller",
            fleet.url,
            PARAGONE_CONTROLLER_FLEET_TOKEN=TOKEN,
            PARAGONE_EXTERNAL_API_KEY="sk-theirs",
        )
        assert (status, err) == (0, "")
        assert "theirs" in out
        assert await fleet.models() == ["theirs"]
        assert server.listing_headers["authorization"] == "Bearer sk-theirs"


async def test_the_command_line_says_why_a_server_was_not_added() -> None:
    async with running_controller(fleet_token=TOKEN) as fleet:
        for token, reason in (
            ("", "PARAGONE_CONTROLLER_FLEET_TOKEN"),
            (TOKEN, "http://127.0.0.1:9 cannot be added: cannot connect"),
        ):
            status, out, err = await paragone(
                "register",
                "http://127.0.0.1:9",
                "--controller",
                fleet.url,
                PARAGONE_CONTROLLER_FLEET_TOKEN=token,
            )
            assert (status, out) == (1, "")
            assert reason in err
    status, _, err = await paragone("register", "http://x", "--controller", fleet.url)
    assert status == 1
    assert "no controller answers" in err


async def test_without_a_fleet_token_no_address_is_fetched(fleet: Fleet) -> None:
    server = await external(fleet)
    reply = await fleet.client.post("/fleet/external", json={"address": server.address})
    assert reply.status_code == 403
    assert "--external" in reply.json()["error"]["message"]
    assert server.listings == 0


async def test_addresses_are_given_with_commas_between_them() -> None:
    settings = ControllerSettings(external="http://a:1, https://b/api")
    assert settings.external == ("http://a:1", "https://b/api")


async def theirs(script: Script, *, stream: bool) -> tuple[httpx.Response, list[sse.Event]]:
    """What a client gets of a server that answers so."""
    async with running_controller(fleet_token=TOKEN) as fleet:
        server = await external(fleet, script=script)
        await add(fleet, server.address)
        reply = await fleet.ask("theirs", stream=stream)
        return reply, list(sse.Decoder().feed(reply.content))


@pytest.mark.parametrize(
    ("status", "said", "message", "kind"),
    [
        (400, b'{"error": "model is required"}', "model is required", "invalid_request_error"),
        (500, b'{"error": {"code": 500, "message": "slot"}}', "slot", "server_error"),
        (422, b'{"detail": [{"loc": ["body", "n"], "msg": "bad"}]}', "n: bad", None),
        (404, b'{"detail": "Not Found"}', "Not Found", None),
        (
            400,
            b'{"object": "error", "message": "too long", "type": "BadRequest"}',
            "too long",
            None,
        ),
        (429, b"slow down", "answered 429 without an explanation: slow down", "rate_limit_error"),
        (502, b"<html>nginx</html>", "without an explanation: <html>nginx</html>", "server_error"),
        (503, b"", "answered 503 without an explanation: an empty body", None),
    ],
)
async def test_its_errors_reach_clients_in_openais_shape(
    status: int, said: bytes, message: str, kind: str | None
) -> None:
    reply, _ = await theirs(Script(foreign_refusal=(status, said)), stream=True)
    assert reply.status_code == status
    assert reply.headers["content-type"] == "application/json"
    error = ErrorBody.model_validate_json(reply.content).error
    assert error.message.endswith(message)
    assert kind is None or error.type == kind


async def test_an_error_in_openais_shape_stays_as_it_came() -> None:
    said = b'{"error":  {"message": "x", "type": "t", "more": 1}}'
    reply, _ = await theirs(Script(foreign_refusal=(400, said)), stream=False)
    assert reply.content == said
    assert reply.headers["content-type"] == "text/html"


async def test_its_error_event_ends_a_stream_and_is_not_taken_for_its_loss() -> None:
    said = b'data: {"error": {"code": 500, "message": "boom", "type": "server_error"}}\n\n'
    reply, events = await theirs(Script(last=said), stream=True)
    assert reply.content.endswith(said)
    assert events[-1].is_error
    assert not any(event.is_done for event in events)


@pytest.mark.parametrize("last", [b"data: [DONE]\n", b"data: [DONE]\n\n: bye\n\n"])
async def test_an_end_that_is_said_a_little_otherwise_is_one(last: bytes) -> None:
    _, events = await theirs(Script(last=last), stream=True)
    assert events[-1].is_done


async def test_a_server_that_has_no_models_yet_may_say_null() -> None:
    async with running_controller(fleet_token=TOKEN) as fleet:
        server = await external(fleet, models_are_null=True)
        reply = await add(fleet, server.address)
        assert reply.json()["models"] == []
        server.models_are_null = False
        await until(fleet.registry.has_live_worker)
