"""Who may ask, register and look: with keys and a token, with one of them, and with none."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import openai
import pytest
import yaml
from pydantic import ValidationError

from controller.app import create_app
from controller.chassis.auth import KeyFileError
from controller.settings import ControllerSettings
from tests.controller.conftest import Fleet, question, running_controller
from tests.controller.mock_worker import Fault, MockWorker, Script
from tests.waiting import until

pytestmark = pytest.mark.anyio

KEY = "sk-a-long-random-key"
TOKEN = "a-long-random-token"


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    path = tmp_path / "keys.yaml"
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    path.write_text(f"keys:\n  - name: alice\n    sha256: {digest}\n")
    return path


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


async def register(fleet: Fleet, secret: str | None) -> int:
    message = MockWorker(port=1).registration().model_dump(mode="json")
    headers = {} if secret is None else bearer(secret)
    reply = await fleet.client.post("/fleet/register", json=message, headers=headers)
    return reply.status_code


async def test_clients_need_a_key_and_workers_the_token(keys: Path) -> None:
    async with running_controller(api_keys=keys, fleet_token=TOKEN) as fleet:
        for secret in (None, "wrong", KEY):
            assert await register(fleet, secret) == 401
        assert await register(fleet, TOKEN) == 200
        for path in ("/v1/models", "/v1/models/demo"):
            assert (await fleet.client.get(path)).status_code == 401
            assert (await fleet.client.get(path, headers=bearer(TOKEN))).status_code == 401
            assert (await fleet.client.get(path, headers=bearer(KEY))).status_code == 200
        for path in ("/fleet/heartbeat", "/fleet/drain"):
            reply = await fleet.client.post(path, json={"worker_id": "mock-1"})
            assert reply.status_code == 401
        reply = await fleet.client.post("/v1/chat/completions", json=question())
        assert reply.status_code == 401
        assert reply.json()["error"]["code"] == "invalid_api_key"
        assert reply.headers["www-authenticate"] == "Bearer"
        assert reply.headers["x-request-id"]


async def test_the_fleet_is_shown_to_whoever_has_either_secret(keys: Path) -> None:
    async with running_controller(api_keys=keys, fleet_token=TOKEN) as fleet:
        for secret, status in ((KEY, 200), (TOKEN, 200), ("wrong", 401)):
            reply = await fleet.client.get("/fleet/workers", headers=bearer(secret))
            assert reply.status_code == status


async def test_health_and_metrics_are_open(keys: Path) -> None:
    async with running_controller(api_keys=keys, fleet_token=TOKEN) as fleet:
        for path in ("/health", "/version", "/metrics"):
            assert (await fleet.client.get(path)).status_code == 200


async def test_the_openai_client_sends_its_key(keys: Path) -> None:
    async with running_controller(api_keys=keys) as fleet:
        await fleet.worker()
        for key, works in ((KEY, True), ("wrong", False)):
            client = openai.AsyncOpenAI(base_url=f"{fleet.url}/v1", api_key=key, max_retries=0)
            async with client:
                if works:
                    answer = await client.chat.completions.create(**question())
                    assert answer.choices[0].message.content == "Two red squares."
                else:
                    with pytest.raises(openai.AuthenticationError):
                        await client.chat.completions.create(**question())


async def test_a_refused_request_is_refused_before_its_body_is_read(keys: Path) -> None:
    async with running_controller(api_keys=keys, max_body_bytes=1024) as fleet:
        reply = await fleet.post(b"x" * 100_000)
        assert reply.status_code == 401  # and not 413


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ({}, ["--api-keys", "--fleet-token"]),
        ({"api_keys": "keys.yaml"}, ["--fleet-token"]),
        ({"fleet_token": TOKEN}, ["--api-keys"]),
    ],
)
async def test_beyond_this_machine_both_secrets_are_needed(
    given: dict[str, Any], missing: list[str]
) -> None:
    with pytest.raises(ValidationError) as caught:
        ControllerSettings(host="0.0.0.0", **given)
    for flag in missing:
        assert flag in str(caught.value)
    ControllerSettings(host="127.0.0.1", **given)
    ControllerSettings(host="0.0.0.0", allow_anonymous_network_access=True, **given)
    ControllerSettings(host="0.0.0.0", api_keys="keys.yaml", fleet_token=TOKEN)


ELSEWHERE = [
    "http://169.254.169.254/latest/meta-data",  # what such attacks are after
    "http://10.0.0.7:21002",
    "http://127.0.0.1.example.org",
    "http://127.0.0.1@example.org",
    "http://127.0.0.1\\@example.org",
    "http://[::ffff:10.0.0.7]:1",
    "http://[127.0.0.1",
]


@pytest.mark.parametrize("address", ELSEWHERE)
@pytest.mark.parametrize("call", ["register", "heartbeat"])
async def test_an_anonymous_registrant_can_have_nothing_sent_beyond_this_machine(
    fleet: Fleet, call: str, address: str
) -> None:
    message = MockWorker(port=1).registration().model_dump(mode="json") | {"address": address}
    reply = await fleet.client.post(f"/fleet/{call}", json=message)
    assert reply.status_code == 403
    assert "--fleet-token" in reply.json()["error"]["message"]
    assert (await fleet.ask()).status_code == 404


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1", "http://127.9.9.9:1"]
)
async def test_a_worker_on_this_machine_needs_no_token(fleet: Fleet, address: str) -> None:
    message = MockWorker(port=1).registration().model_dump(mode="json") | {"address": address}
    assert (await fleet.client.post("/fleet/register", json=message)).status_code == 200


@pytest.mark.parametrize(
    "settings", [{"fleet_token": TOKEN}, {"allow_anonymous_network_access": True}]
)
async def test_whoever_is_trusted_may_register_any_address(settings: dict[str, Any]) -> None:
    async with running_controller(**settings) as fleet:
        message = MockWorker(port=1).registration().model_dump(mode="json")
        reply = await fleet.client.post(
            "/fleet/register", json=message | {"address": ELSEWHERE[1]}, headers=bearer(TOKEN)
        )
        assert reply.status_code == 200


async def test_the_token_is_not_printed_with_the_settings() -> None:
    settings = ControllerSettings(fleet_token=TOKEN)
    assert TOKEN not in settings.model_dump_json()
    assert TOKEN not in repr(settings)


# What a key may use


def keys_with(tmp_path: Path, **limits: Any) -> Path:
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    path = tmp_path / "limited.yaml"
    path.write_text(yaml.safe_dump({"keys": [{"name": "alice", "sha256": digest, **limits}]}))
    return path


async def test_a_key_beyond_its_rate_gets_a_429_with_the_time_to_wait(tmp_path: Path) -> None:
    async with running_controller(api_keys=keys_with(tmp_path, rate="2/minute")) as fleet:
        await fleet.worker()
        fleet.client.headers.update(bearer(KEY))
        for _ in range(2):
            assert (await fleet.ask()).status_code == 200
        refused = await fleet.ask()
        assert refused.status_code == 429
        assert refused.headers["x-error-code"] == "rate_limit_exceeded"
        assert 50 <= int(refused.headers["retry-after"]) <= 60
        assert await fleet.models() == ["demo"]  # looking is free


async def test_a_key_has_no_more_requests_open_than_it_may(tmp_path: Path) -> None:
    async with running_controller(api_keys=keys_with(tmp_path, concurrency=1)) as fleet:
        worker = await fleet.worker(script=Script(fault=Fault.HANG))
        fleet.client.headers.update(bearer(KEY))
        first = asyncio.create_task(fleet.ask())
        await until(lambda: worker.received)
        refused = await fleet.ask()
        assert refused.status_code == 429
        assert refused.headers["x-error-code"] == "rate_limit_exceeded"
        assert refused.headers["retry-after"] == "1"
        first.cancel()
        await until(worker.hung_up.is_set)
        worker.script.fault = None
        assert (await fleet.ask()).status_code == 200  # the one that was hung up on counts no more


@pytest.mark.parametrize("limits", [{"rate": "often"}, {"concurrency": 0}])
async def test_a_wrong_limit_stops_the_start_and_is_named(tmp_path: Path, limits: dict) -> None:
    with pytest.raises(KeyFileError, match=next(iter(limits))):
        create_app(ControllerSettings(api_keys=keys_with(tmp_path, **limits)))


# Browsers


async def test_pages_of_other_origins_are_allowed_only_by_name(keys: Path) -> None:
    asked = {
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type",
    }
    async with running_controller() as fleet:
        reply = await fleet.client.get("/v1/models", headers={"origin": "https://a.example"})
        assert "access-control-allow-origin" not in reply.headers
    async with running_controller(cors_origins="https://a.example", api_keys=keys) as fleet:
        for origin, allowed in (("https://a.example", True), ("https://b.example", False)):
            reply = await fleet.client.options(
                "/v1/chat/completions", headers={"origin": origin, **asked}
            )
            assert ("access-control-allow-origin" in reply.headers) is allowed
    with pytest.raises(ValidationError, match="expected an origin"):
        ControllerSettings(cors_origins="*")
