"""One connection to a worker: HTTP/1.1, one request at a time, as few steps as it takes.

The parser is httptools (llhttp, Node's own). Bodies come in pieces as they arrive; a reader that is
behind stops the worker.
"""

from __future__ import annotations

import asyncio

import httptools

Headers = list[tuple[bytes, bytes]]

READ_BUFFER_BYTES = 64 * 1024  # a slow reader stops the worker after about twice this
MAX_HEAD_BYTES = 64 * 1024


class UpstreamError(Exception):
    """A worker failed as a peer; the message says how."""


class UnreachableError(UpstreamError):
    """No connection could be made: the worker has seen nothing of the request."""


class LostError(UpstreamError):
    """The connection ended before the answer did."""


class Connection(asyncio.Protocol):
    """A connection, and the answer that is read from it.

    Args:
        loop: that it runs on.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport
        self._waiter: asyncio.Future[None] | None = None
        self.idle_since = 0.0
        self.is_closed = False
        self._expect_answer()
        self._is_complete = True  # nothing was asked yet

    def _expect_answer(self) -> None:
        self.status = 0  # until the head is there
        self.headers: Headers = []
        self._pieces: list[bytes] = []
        self._held = 0  # bytes of the pieces
        self._head_bytes = 0
        self._ends_with_connection = False
        self._is_kept = False  # the worker keeps the connection after this answer
        self._is_complete = False
        self._is_paused = False
        self._failure: str | None = None

    # What is asked

    async def ask(self, request: bytes, body: bytes | None) -> None:
        """Sends a request; returns once the answer's head is there.

        Raises:
            LostError: the connection ended before.
        """
        self._expect_answer()
        if self.is_closed:
            raise LostError("the connection ended early")
        if not body:
            self._transport.write(request)
        elif len(body) < READ_BUFFER_BYTES:
            self._transport.write(request + body)  # one piece, one packet
        else:
            self._transport.writelines((request, body))
        while not self.status:
            await self._wait()

    async def read(self) -> bytes:
        """The next bytes of the body, as many as have arrived; empty at its end.

        Raises:
            LostError: the connection ended before the body did.
        """
        while not self._pieces:
            if self._is_complete:
                return b""
            await self._wait()
        pieces = self._pieces
        self._pieces, self._held = [], 0
        if self._is_paused and not self.is_closed:
            self._is_paused = False
            self._transport.resume_reading()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def has_whole_body(self, limit: int) -> bool:
        """Whether the next `read` gives all that is left, at most so many bytes, at once."""
        return self._is_complete and self._held <= limit

    @property
    def can_be_used_again(self) -> bool:
        """Whether the answer was read to its end, and the worker keeps the connection."""
        return (
            self._is_complete
            and not self._pieces
            and not self.is_closed
            and not self._ends_with_connection
            and self._failure is None
            and self._is_kept
            and not self._transport.get_write_buffer_size()
        )

    def abort(self) -> None:
        """Ends it now, which tells the worker to stop."""
        if not self.is_closed:
            self.is_closed = True
            self._transport.abort()

    def _wait(self) -> asyncio.Future[None]:
        """Until something came, or nothing will."""
        if self._failure is not None:
            raise LostError(self._failure)
        self._waiter = self._loop.create_future()
        return self._waiter

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():  # who waited may have been cancelled
            waiter.set_result(None)

    def _fail(self, reason: str) -> None:
        if not self._is_complete and self._failure is None:
            self._failure = reason
        self._wake()

    # What the loop says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is there."""
        self._transport = transport  # type: ignore[assignment]  # TCP's is an asyncio.Transport

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        if self._is_complete:  # an answer that nobody asked for
            self.abort()
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fail("what it sent is not HTTP")
            self.abort()
        self._wake()

    def eof_received(self) -> None:
        """The worker has said all that it will; the transport closes itself."""
        if self._ends_with_connection and self.status:
            self._is_complete = True
        self._fail("the connection ended early")

    def connection_lost(self, _exc: Exception | None) -> None:
        """It is over."""
        self.is_closed = True
        self._fail("the connection ended early")

    # What the parser says

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header."""
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > MAX_HEAD_BYTES:
            raise ValueError("the head has no end")
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """The head is there."""
        status = self._parser.get_status_code()
        if status < 200:  # "go on": the answer is still to come
            return
        names = {name for name, _ in self.headers}
        self._ends_with_connection = not names & {b"content-length", b"transfer-encoding"}
        self._is_kept = self._parser.should_keep_alive()  # it knows now, and not later
        self.status = status

    def on_body(self, piece: bytes) -> None:
        """A piece of the body."""
        self._pieces.append(piece)
        self._held += len(piece)
        if self._held > READ_BUFFER_BYTES and not self._is_paused:
            self._is_paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        """The answer is whole."""
        if self.status:
            self._is_complete = True
        else:
            self.headers = []
            self._head_bytes = 0
