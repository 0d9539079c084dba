"""uvicorn's HTTP protocol with bounds on what comes before a request's body.

uvicorn waits for ever for a head that comes byte by byte, and holds whatever is sent of it: a
thousand such connections cost their sender nothing.
"""

from __future__ import annotations

import asyncio
import math

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_SECONDS = 20.0  # from a connection, or a request's first byte, to the end of the head
MAX_HEAD_BYTES = 64 * 1024


class HeadTooLargeError(Exception):
    """A request's head is larger than `MAX_HEAD_BYTES`; the parser turns it into a 400."""


class HeadGuard(HttpToolsProtocol):
    """Closes connections whose requests do not begin in time.

    A connection has one timer, which looks when it is due whether it still is: most requests are
    over before, and setting and cancelling one for each costs more than reading their heads.
    """

    _timer: asyncio.TimerHandle | None = None
    _due = math.inf  # when the loop's clock says so, the connection is closed
    _is_in_head = False
    _head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        """A silent connection is given as long as a slow one."""
        super().connection_made(transport)
        self._close_after(HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody is waited for any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes came; a head that they do not complete has its time from now."""
        super().data_received(data)
        if self._is_in_head and self._due == math.inf:
            self._close_after(HEAD_SECONDS)

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        self._head_bytes = 0
        self._is_in_head = True
        self._due = math.inf
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """A piece of the address."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; uvicorn's own method, in its place: this is called most of all."""
        self._count(len(name) + len(value))
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The head is whole; the body has limits of its own."""
        self._is_in_head = False
        self._due = math.inf
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """The next request may follow, and is waited for a while."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif not self._is_in_head:
            self._close_after(self.timeout_keep_alive)

    def _close_after(self, seconds: float) -> None:
        """Unless something comes within it."""
        self._due = self.loop.time() + seconds
        if self._timer is not None:
            if self._timer.when() <= self._due:
                return
            self._timer.cancel()
        self._timer = self.loop.call_at(self._due, self._look)

    def _look(self) -> None:
        self._timer = None
        if self.loop.time() >= self._due:
            self.transport.close()
        elif self._due != math.inf:
            self._timer = self.loop.call_at(self._due, self._look)

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > MAX_HEAD_BYTES:
            raise HeadTooLargeError
