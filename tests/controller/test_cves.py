"""Holes that others had, each with its number. The registration's are in test_legacy."""

from __future__ import annotations

import asyncio

import pytest

from tests.controller.conftest import Fleet, question
from tests.controller.mock_worker import Fault, Script
from tests.waiting import until

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    "path",
    ["/health/", "//a.example/", "/v1/models/?next=//a.example", "/list_models/", "/%2e%2e/"],
)
async def test_cve_2024_9308_no_path_sends_a_client_elsewhere(fleet: Fleet, path: str) -> None:
    for method in ("GET", "POST"):
        reply = await fleet.client.request(
            method, f"{fleet.url}{path}", headers={"host": "a.example"}
        )
        assert not reply.is_redirect
        assert "location" not in reply.headers


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/register_worker", "/fleet/register"])
async def test_cve_2024_10907_a_form_without_an_end_is_refused_unparsed(
    fleet: Fleet, path: str
) -> None:
    # Their multipart parser reads a boundary that never comes to its end, a byte at a time.
    body = b"--x\r\n" + b"-" * 2_000_000
    reply = await fleet.client.post(
        path, content=body, headers={"content-type": "multipart/form-data; boundary=x"}, timeout=60
    )
    assert reply.status_code == 400


async def test_cve_2026_6607_a_slow_worker_blocks_nobody_else(fleet: Fleet) -> None:
    worker = await fleet.worker("slow", models=["slow"], script=Script(fault=Fault.HANG))
    await fleet.worker("quick", models=["quick"])
    slow = [asyncio.create_task(fleet.ask("slow")) for _ in range(20)]
    await until(lambda: worker.received)
    assert (await fleet.ask("quick")).status_code == 200
    assert (await fleet.client.get("/health")).status_code == 200
    assert not any(task.done() for task in slow)
    for task in slow:
        task.cancel()


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "%2e%2e%2f%2e%2e%2fetc%2fpasswd", "..\\..\\x", "a\0b", "x" * 5000]
)
async def test_cve_2026_7302_a_models_name_is_no_path(fleet: Fleet, name: str) -> None:
    await fleet.worker()
    for reply in (
        await fleet.ask(name),
        await fleet.client.get("/v1/models/" + name.replace("\0", "%00")),
    ):
        assert reply.status_code == 404
        assert "root:" not in reply.text


async def test_cve_2026_24779_an_address_is_judged_by_the_parser_that_connects(
    fleet: Fleet,
) -> None:
    # Backslashes, userinfo and zero-padded numbers: two parsers, two hosts.
    for address in (
        "http://127.0.0.1\\@10.0.0.1:80",
        "http://127.0.0.1:80@10.0.0.1",
        "http://10.0.0.1#@127.0.0.1",
        "http://0177.0.0.1:1",
        "http://2130706433:1",
        "http://[]@",  # an error of the parser's own
    ):
        message = {
            "worker_id": "w",
            "address": address,
            "heartbeat_seconds": 1,
            "version": "1",
            "status": {"state": "ready", "models": [{"name": "demo"}]},
        }
        reply = await fleet.client.post("/fleet/register", json=message)
        assert reply.status_code in (400, 403), address
        legacy = {"worker_name": address, "check_heart_beat": False, "worker_status": None}
        reply = await fleet.client.post("/register_worker", json=legacy)
        assert reply.status_code in (400, 403), address


async def test_what_a_client_asks_reaches_no_log(
    fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    await fleet.worker(script=Script())
    with caplog.at_level("DEBUG"):
        await fleet.ask(messages=[{"role": "user", "content": "my-secret-question"}])
        await fleet.ask("no-such-model", **{k: v for k, v in question().items() if k == "messages"})
    assert "my-secret-question" not in caplog.text
