"""A response of server-sent events that ends its source when the client hangs up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager, suppress

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from controller.chassis.hangup import HangUp
from controller.protocol import sse

# Well below the read timeouts of clients and proxies.
PING_SECONDS = 5.0


class EventStream(Response):
    """Sends each piece as it comes, and a ping at once and after each quiet interval.

    Starlette's StreamingResponse leaves a source that was cancelled while its client was slow to
    the garbage collector; here it is closed before the response returns.

    Args:
        pieces: whole encoded events.
        close: ends what the pieces are made from, also where the first was never asked for.
        headers: besides those of an event stream.
        ping_seconds: how long the stream may be quiet.
    """

    media_type = sse.MEDIA_TYPE

    def __init__(
        self,
        pieces: AsyncGenerator[bytes],
        *,
        close: Callable[[], Awaitable[None]] | None = None,
        headers: Mapping[str, str] | None = None,
        ping_seconds: float = PING_SECONDS,
    ) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers(
            {"cache-control": "no-cache", "x-accel-buffering": "no", **(headers or {})}
        )
        del self.headers["content-length"]  # a stream has none
        self._pieces = pieces
        self._close = close
        self._ping_seconds = ping_seconds
        self._has_sent = False

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Streams until the source or the client ends."""
        async with self._closing(), HangUp(receive):
            await send(
                {
                    "type": "http.response.start",
                    "status": self.status_code,
                    "headers": self.raw_headers,
                }
            )
            # Until the first token this tells client and proxies that somebody is there.
            await self._send(send, sse.PING)
            pings = asyncio.create_task(self._ping(send))
            try:
                async for piece in self._pieces:
                    await self._send(send, piece)
            finally:
                pings.cancel()
                with suppress(asyncio.CancelledError):
                    await pings
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    @asynccontextmanager
    async def _closing(self) -> AsyncGenerator[None]:
        try:
            async with aclosing(self._pieces):
                yield
        finally:
            if self._close is not None:
                await self._close()

    async def _send(self, send: Send, piece: bytes) -> None:
        self._has_sent = True
        await send({"type": "http.response.body", "body": piece, "more_body": True})

    async def _ping(self, send: Send) -> None:
        """Each piece is whole events, so that a ping between two of them harms neither."""
        while True:
            self._has_sent = False
            await asyncio.sleep(self._ping_seconds)
            if not self._has_sent:
                await self._send(send, sse.PING)
