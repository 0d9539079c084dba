"""Our HTTP server's short way answers as the long one does, byte for byte on real connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from starlette.types import Receive, Scope, Send

from controller.chassis.hangup import HangUp
from controller.chassis.http_server import CLIENT
from controller.chassis.serve import Server, listen

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}


class App:
    """Answers by path; notes what it saw."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.went_the_short_way: list[bool] = []
        self.hung_up = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return
        path = scope["path"]
        self.paths.append(path)
        self.went_the_short_way.append(CLIENT in scope.get("extensions", {}))
        body = (await receive())["body"] or path.encode()
        if path == "/slow":
            async with HangUp(receive, scope) as hang_up:
                await asyncio.sleep(60)
            assert hang_up.happened
            self.hung_up.set()
            return
        length = len(body) + (path == "/wrong-length")
        headers = [(b"content-length", str(length).encode())]
        if path.startswith("/unknown-length"):
            headers.clear()
        if path.endswith("/two-heads"):
            headers.append((b"x-a", b"b\r\nx-c: d"))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if path == "/no-body":
            return
        if path in ("/pieces", "/unknown-length"):
            await send({"type": "http.response.body", "body": body[:2], "more_body": True})
            body = body[2:]
        await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def serving(app: App) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A server, and a connection to it."""
    sock = listen("127.0.0.1", 0)
    server = Server(app, grace_seconds=1)
    server.config.load()
    server.lifespan = server.config.lifespan_class(server.config)
    await server.startup(sockets=[sock])
    try:
        reader, writer = await asyncio.open_connection(*sock.getsockname())
        try:
            yield reader, writer
        finally:
            writer.close()
            await asyncio.sleep(0.01)  # the loop closes it in its next rounds
    finally:
        await server.shutdown(sockets=[sock])


def request(path: str, *, version: str = "1.1", more: str = "") -> bytes:
    return f"GET {path} HTTP/{version}\r\nhost: x\r\n{more}\r\n".encode()


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Status and body of the next answer on a connection, which has a length."""
    head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)).lower()
    length = int(head.partition(b"content-length: ")[2].split(b"\r\n")[0])
    return int(head[9:12]), await reader.readexactly(length)


@pytest.mark.parametrize(
    ("target", "path", "is_short"),
    [
        ("/a?b=c%20d", "/a", True),
        ("/a%20b", "/a b", False),
        ("//a/b", "//a/b", False),
        ("http://x/a", "/a", False),
    ],
)
async def test_an_odd_address_goes_the_long_way_to_the_same_path(
    target: str, path: str, is_short: bool
) -> None:
    app = App()
    async with serving(app) as (reader, writer):
        writer.write(request(target))
        assert await answer(reader) == (200, path.encode())
    assert app.went_the_short_way == [is_short]


async def test_requests_that_wait_behind_each_other_are_answered_in_order() -> None:
    async with serving(App()) as (reader, writer):
        writer.write(b"".join(request(f"/{number}") for number in range(20)))
        for number in range(20):
            assert await answer(reader) == (200, f"/{number}".encode())


async def test_an_answer_in_pieces_is_whole() -> None:
    async with serving(App()) as (reader, writer):
        writer.write(request("/pieces") + request("/after"))
        assert await answer(reader) == (200, b"/pieces")
        assert await answer(reader) == (200, b"/after")


@pytest.mark.parametrize("path", ["/wrong-length", "/two-heads", "/no-body"])
async def test_a_broken_answer_does_not_look_right(path: str) -> None:
    async with serving(App()) as (reader, writer):
        writer.write(request(path))
        said = await asyncio.wait_for(reader.read(), 60)  # until the server closes
        head, _, body = said.partition(b"\r\n\r\n")
        assert not head.startswith(b"HTTP/1.1 200") or f": {len(body)}".encode() not in head
        assert b"x-c" not in head


@pytest.mark.parametrize(("version", "more"), [("1.0", ""), ("1.1", "connection: close\r\n")])
async def test_a_client_that_wants_one_answer_gets_it_and_the_end(version: str, more: str) -> None:
    async with serving(App()) as (reader, writer):
        writer.write(request("/a", version=version, more=more))
        said = await asyncio.wait_for(reader.read(), 60)
        assert b"connection: close" in said
        assert said.endswith(b"/a")


@pytest.mark.parametrize("more", ["", "connection: keep-alive\r\n"])
async def test_a_client_of_http_1_0_gets_no_chunks_and_the_end_of_the_connection(more: str) -> None:
    async with serving(App()) as (reader, writer):
        writer.write(request("/unknown-length", version="1.0", more=more))
        said = await asyncio.wait_for(reader.read(), 60)
        head, _, body = said.partition(b"\r\n\r\n")
        assert b"transfer-encoding" not in head.lower()
        assert b"connection: close" in head
        assert body == b"/unknown-length"


async def test_a_client_of_http_1_0_that_asks_for_the_head_gets_the_head_alone() -> None:
    async with serving(App()) as (reader, writer):
        writer.write(request("/unknown-length", version="1.0").replace(b"GET", b"HEAD"))
        said = await asyncio.wait_for(reader.read(), 60)
        assert said.startswith(b"HTTP/1.1 200")
        assert said.endswith(b"\r\n\r\n")


async def test_a_broken_answer_to_a_client_of_http_1_0_ends_the_connection() -> None:
    async with serving(App()) as (reader, writer):
        writer.write(request("/unknown-length/two-heads", version="1.0"))
        said = await asyncio.wait_for(reader.read(), 60)
        assert b"x-c" not in said


async def test_a_kept_connection_is_closed_once_nothing_comes_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("controller.chassis.head_guard.HEAD_SECONDS", 0.1)
    async with serving(App()) as (reader, writer):
        writer.write(request("/a"))
        assert await answer(reader) == (200, b"/a")
        writer.write(b"GET /half")
        # After the head's time, and not after the 75 s of an idle connection.
        assert await asyncio.wait_for(reader.read(), 60) == b""


async def test_a_hang_up_is_told_to_the_request_that_runs_and_not_to_one_behind_it() -> None:
    app = App()
    async with serving(app) as (_reader, writer):
        writer.write(request("/slow") + request("/behind"))
        while not app.paths:  # noqa: ASYNC110  # the server's state
            await asyncio.sleep(0.01)
        writer.transport.abort()
        await asyncio.wait_for(app.hung_up.wait(), 60)
    assert app.paths == ["/slow"]
