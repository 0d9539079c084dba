"""HTTPS between our processes, and who is believed about where a request came from."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from pydantic import ValidationError

from controller.chassis.serve import Server, listen
from controller.chassis.settings import ProcessSettings
from controller.chassis.tls import client_context
from controller.upstream import UnreachableError, Upstream
from tests.waiting import until

pytestmark = pytest.mark.anyio

TLS = Path(__file__).parents[1] / "data" / "tls"  # made for these tests, of no use elsewhere
CERTIFICATE, KEY = TLS / "localhost.pem", TLS / "localhost-key.pem"


@asynccontextmanager
async def serving(**settings: Any) -> AsyncIterator[str]:
    app = FastAPI()

    @app.get("/")
    async def whence(request: Request) -> dict[str, str]:
        assert request.client is not None
        return {"client": request.client.host, "scheme": request.url.scheme}

    sock = listen("127.0.0.1", 0)
    process = ProcessSettings(port=0, **settings)
    server = Server(app, grace_seconds=1, settings=process)
    task = asyncio.create_task(server.serve(sockets=[sock]))
    await until(lambda: server.started)
    try:
        yield f"{process.scheme}://127.0.0.1:{sock.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


async def test_a_process_with_a_certificate_is_reached_by_those_who_trust_it_alone() -> None:
    async with serving(tls_cert=CERTIFICATE, tls_key=KEY) as url:
        assert url.startswith("https://")
        async with httpx.AsyncClient(verify=client_context(CERTIFICATE)) as client:
            assert (await client.get(url)).json()["scheme"] == "https"
        async with httpx.AsyncClient() as client:
            with pytest.raises(httpx.ConnectError, match="certificate"):
                await client.get(url)


async def test_the_controller_asks_workers_whose_certificate_it_trusts() -> None:
    async with serving(tls_cert=CERTIFICATE, tls_key=KEY) as url:
        async with (
            Upstream(connect_seconds=2, tls=client_context(CERTIFICATE)) as upstream,
            upstream.request("GET", url, headers={}) as answer,
        ):
            assert answer.status == 200
        async with Upstream(connect_seconds=2) as upstream:
            with pytest.raises(UnreachableError):
                async with upstream.request("GET", url, headers={}):
                    pass


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"tls_key": KEY}, "says nothing without"),
        ({"tls_cert": Path("nowhere.pem")}, "cannot be used"),
        ({"tls_cert": CERTIFICATE}, "has to hold its key"),
        ({"tls_ca": KEY}, "cannot be used"),
        ({"trusted_proxies": "*"}, "does not appear to be"),
    ],
)
def test_wrong_files_stop_the_start_with_their_names(wrong: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        ProcessSettings(port=0, **wrong)


@pytest.mark.parametrize(
    ("trusted", "client"),
    [("", "127.0.0.1"), ("10.0.0.0/8", "127.0.0.1"), ("127.0.0.1", "9.9.9.9")],
)
async def test_forwarded_addresses_are_believed_from_named_proxies_alone(
    trusted: str, client: str
) -> None:
    async with serving(trusted_proxies=trusted) as url, httpx.AsyncClient() as http:
        reply = await http.get(url, headers={"x-forwarded-for": "9.9.9.9"})
        assert reply.json()["client"] == client
