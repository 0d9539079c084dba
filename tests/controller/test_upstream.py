"""The client of workers: it asks at the address it was given, and names what goes wrong."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from controller.chassis.serve import listen
from controller.upstream import Answer, LostError, UnreachableError, Upstream

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def server(answer: bytes) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Writes the same bytes to everybody; its address, and what it was sent."""
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer)
        await writer.drain()
        writer.close()

    running = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with running:
        yield f"http://127.0.0.1:{running.sockets[0].getsockname()[1]}", heads


async def ask(address: str, **more: Any) -> tuple[Answer, bytes]:
    async with (
        Upstream(connect_seconds=20) as upstream,
        upstream.request("POST", address + "/x", headers={"a": "b"}, **more) as answer,
    ):
        return answer, await answer.read_all(1000)


def response(*headers: bytes, status: bytes = b"200 OK", body: bytes = b"") -> bytes:
    return b"\r\n".join([b"HTTP/1.1 " + status, *headers, b"", body])


async def test_an_answer_comes_with_its_status_headers_and_body() -> None:
    async with server(response(b"Content-Length: 2", b"X-Y: Z", body=b"ok")) as (address, heads):
        answer, body = await ask(address, body=b"{}")
    assert (answer.status, body) == (200, b"ok")
    assert (b"x-y", b"Z") in answer.headers
    assert heads[0].startswith(b"POST /x HTTP/1.1\r\n")
    assert b"user-agent" not in heads[0].lower()
    assert b"accept-encoding" not in heads[0].lower()


async def test_a_redirect_is_not_followed() -> None:
    async with server(response(b"Content-Length: 0")) as (elsewhere, touched):
        redirect = response(
            b"Location: " + elsewhere.encode(), b"Content-Length: 0", status=b"307 Elsewhere"
        )
        async with server(redirect) as (address, _):
            answer, _ = await ask(address)
    assert answer.status == 307
    assert touched == []


async def test_a_proxy_in_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with server(response(b"Content-Length: 0")) as (proxy, touched):
        monkeypatch.setenv("http_proxy", proxy)
        async with server(response(b"Content-Length: 2", body=b"ok")) as (address, _):
            _, body = await ask(address)
    assert body == b"ok"
    assert touched == []


async def test_cookies_are_not_kept() -> None:
    async with (
        server(response(b"Content-Length: 0", b"Set-Cookie: a=b")) as (address, heads),
        Upstream(connect_seconds=20) as upstream,
    ):
        for _ in range(2):
            async with upstream.request("GET", address, headers={}) as answer:
                await answer.read_all(10)
    assert b"cookie" not in heads[1].lower()


async def test_compressed_bytes_pass_as_they_are() -> None:
    body = b"\x1f\x8bnot really gzip"
    said = response(b"Content-Encoding: gzip", b"Content-Length: %d" % len(body), body=body)
    async with server(said) as (address, _):
        answer, received = await ask(address)
    assert received == body
    assert (b"content-encoding", b"gzip") in answer.headers


async def test_a_refused_connection_says_so() -> None:
    with listen("127.0.0.1", 0) as sock:
        port = sock.getsockname()[1]
    with pytest.raises(UnreachableError, match="cannot connect"):
        await ask(f"http://127.0.0.1:{port}")


@pytest.mark.parametrize("address", ["http://127.0.0.1:99999", "http://[", "http://exa mple"])
async def test_what_is_no_address_is_unreachable(address: str) -> None:
    with pytest.raises(UnreachableError):
        await ask(address)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200",
        b"this is not HTTP\r\n\r\n",
        response(b"Content-Length: 10", body=b"short"),
        response(b"Transfer-Encoding: chunked", body=b"5\r\nhel"),
        response(b"Transfer-Encoding: chunked", body=b"zz\r\n"),
        response(b"Content-Length: 2000", body=b"x" * 2000),  # over the limit
    ],
)
async def test_an_answer_that_is_not_whole_is_lost(answer: bytes) -> None:
    async with server(answer) as (address, _):
        with pytest.raises(LostError):
            await ask(address)


async def test_a_body_above_a_mebibyte_passes_without_a_warning() -> None:
    async with server(response(b"Content-Length: 0")) as (address, heads):
        await ask(address, body=b"x" * (2 * 2**20))
    assert b"content-length: 2097152" in heads[0].lower()


async def test_a_connection_is_used_again_unless_the_worker_closes_it() -> None:
    accepted = 0
    extra: tuple[bytes, ...] = ()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal accepted
        accepted += 1
        with contextlib.suppress(asyncio.IncompleteReadError):
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(response(b"Content-Length: 2", *extra, body=b"ok"))
        writer.close()

    async with (
        await asyncio.start_server(serve, "127.0.0.1", 0) as running,
        Upstream(connect_seconds=20) as upstream,
    ):
        address = f"http://127.0.0.1:{running.sockets[0].getsockname()[1]}"
        for said, connections in (((), 1), ((b"Connection: close",), 4)):
            extra = said
            for _ in range(4):
                async with upstream.request("GET", address, headers={}) as answer:
                    assert await answer.read_all(10) == b"ok"
            assert accepted == connections


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 100 Continue\r\n\r\n" + response(b"Content-Length: 2", body=b"ok"),
        b"HTTP/1.0 200 OK\r\n\r\nok",  # ends with the connection
        response(b"Transfer-Encoding: chunked", body=b"1\r\no\r\n1;x=y\r\nk\r\n0\r\n\r\n"),
    ],
)
async def test_every_way_to_frame_a_body_is_read(answer: bytes) -> None:
    async with server(answer) as (address, _):
        assert (await ask(address))[1] == b"ok"


async def test_a_head_without_an_end_is_lost() -> None:
    async with server(response(b"x: " + b"a" * 200_000)) as (address, _):
        with pytest.raises(LostError):
            await ask(address)


async def test_a_header_cannot_bring_another_one_with_it() -> None:
    async with (
        server(response(b"Content-Length: 0")) as (address, heads),
        Upstream(connect_seconds=20) as upstream,
    ):
        with pytest.raises(UnreachableError, match="line break"):
            async with upstream.request("GET", address, headers={"a": "b\r\nc: d"}):
                pass
    assert heads == []


async def test_a_reader_that_is_behind_stops_the_sender() -> None:
    sent = 0

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(b"x" * 65_536)
                await writer.drain()
                sent += 65_536

    async with (
        await asyncio.start_server(serve, "127.0.0.1", 0) as running,
        Upstream(connect_seconds=20) as upstream,
        upstream.request(
            "GET", f"http://127.0.0.1:{running.sockets[0].getsockname()[1]}", headers={}
        ) as answer,
    ):
        before = -1
        while sent > before:
            before = sent
            await asyncio.sleep(0.2)
        assert sent < 32 * 2**20
        received, more = 0, sent + 2**20  # once it is read, it goes on
        while received < more:
            received += len(await answer.read())
