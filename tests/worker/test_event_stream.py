"""A stream of events says that it lives, and ends with its client."""

import asyncio

import httpx
import pytest

from controller.protocol import sse
from tests.waiting import until
from tests.worker.servers import serving
from worker.routes.event_stream import EventStream

pytestmark = pytest.mark.anyio


class Source:
    """Pieces that come when they are told to."""

    def __init__(self):
        self.queue = asyncio.Queue()
        self.is_closed = False

    async def pieces(self):
        try:
            while (piece := await self.queue.get()) is not None:
                yield piece
        finally:
            await asyncio.sleep(0)  # closing may wait
            self.is_closed = True

    async def __call__(self, scope, receive, send):
        if scope["type"] == "http":
            await receive()  # the body
            await EventStream(self.pieces(), ping_seconds=0.05)(scope, receive, send)


async def test_a_quiet_stream_pings_until_there_is_something_to_say():
    source = Source()
    async with (
        serving(source) as url,
        httpx.AsyncClient() as client,
        client.stream("POST", url, content=b"x") as reply,
    ):
        assert reply.headers["content-type"].startswith("text/event-stream")
        assert reply.headers["x-accel-buffering"] == "no"
        assert "content-length" not in reply.headers
        pieces = reply.aiter_bytes()
        assert [await anext(pieces) for _ in range(3)] == [sse.PING] * 3
        source.queue.put_nowait(b"data: 1\n\n")
        source.queue.put_nowait(None)
        rest = b"".join([piece async for piece in pieces])
    assert rest.replace(sse.PING, b"") == b"data: 1\n\n"
    assert source.is_closed


async def test_a_busy_stream_does_not_ping():
    source = Source()
    async with (
        serving(source) as url,
        httpx.AsyncClient() as client,
        client.stream("POST", url, content=b"x") as reply,
    ):
        pieces = reply.aiter_bytes()
        assert await anext(pieces) == sse.PING
        for _ in range(20):
            source.queue.put_nowait(b"data: 1\n\n")
            assert await anext(pieces) == b"data: 1\n\n"
            await asyncio.sleep(0.01)


async def test_the_source_is_closed_when_the_client_hangs_up():
    source = Source()
    async with serving(source) as url, httpx.AsyncClient() as client:
        async with client.stream("POST", url, content=b"x") as reply:
            await anext(reply.aiter_bytes())
            assert not source.is_closed
        await until(lambda: source.is_closed)
