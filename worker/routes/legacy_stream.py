"""A response of NUL-framed JSON that repeats its last frame while there is nothing new."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from controller.chassis.hangup import HangUp

# LLaVA's controller waits 5 s for each piece, its page 10 s.
KEEP_ALIVE_SECONDS = 2.0


class FrameStream(Response):
    """Sends each frame as it comes; the first one at once.

    Legacy clients take an unchanged text in any number, and give up on a silent stream. It has no
    Content-Type, as theirs have none.

    Args:
        frames: whole encoded frames.
        headers: of the response.
        keep_alive: the frame of an answer that has said nothing yet; None where frames are there.
    """

    def __init__(
        self,
        frames: AsyncGenerator[bytes],
        *,
        headers: Mapping[str, str],
        keep_alive: bytes | None = None,
    ) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers(headers)
        del self.headers["content-length"]  # a stream has none
        self._frames = frames
        self._last = keep_alive

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Streams until the source or the client ends."""
        async with aclosing(self._frames), HangUp(receive):
            await send(
                {
                    "type": "http.response.start",
                    "status": self.status_code,
                    "headers": self.raw_headers,
                }
            )
            repeats = asyncio.create_task(self._repeat(send))
            try:
                async for frame in self._frames:
                    self._last = None  # nothing is repeated while it is being sent
                    await _send(send, frame)
                    self._last = frame
            finally:
                repeats.cancel()
                with suppress(asyncio.CancelledError):
                    await repeats
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _repeat(self, send: Send) -> None:
        sent: bytes | None = None
        while True:
            if self._last is not None and (sent is None or sent is self._last):
                await _send(send, self._last)
            sent = self._last
            await asyncio.sleep(KEEP_ALIVE_SECONDS)


async def _send(send: Send, frame: bytes) -> None:
    await send({"type": "http.response.body", "body": frame, "more_body": True})
