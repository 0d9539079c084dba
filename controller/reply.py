"""The client's side of a relayed answer: what was sent of it, and how it ends."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping

from starlette.types import Send

from controller.framing import EventFramer, Framer
from controller.protocol import sse
from controller.protocol.errors import ErrorBody, ParagoneError
from controller.upstream import Headers
from controller.worker_record import Wire

_EVENT_STREAM: Headers = [
    (b"content-type", sse.MEDIA_TYPE.encode()),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


class Reply:
    """An answer on its way to a client of OpenAI's API, and how far it has come.

    Args:
        send: the client.
    """

    wire = Wire.OPENAI
    # A stream that waits for a worker is kept open; below the patience of clients and proxies.
    keep_alive_seconds = 5.0
    passes_refusals = True  # a worker's error response is this wire's

    def __init__(self, send: Send) -> None:
        self._send = send
        self.wants_stream = False  # until the request was read
        self.status: int | None = None  # None until the head was sent
        self.error_code: str | None = None  # of the error that it ended with
        self.worker_id: str | None = None  # who answered last
        self.has_content = False  # more than comments was sent: there is no way back

    def expect(self, *, stream: bool, beginning: str) -> None:  # noqa: ARG002  # legacy's alone
        """What the client asked for: a stream, and the text that a legacy one begins with."""
        self.wants_stream = stream

    def new_framer(self) -> Framer:
        """What cuts a worker's stream of this wire."""
        return EventFramer()

    async def start(self, status: int, headers: Headers) -> None:
        """Sends the head."""
        self.status = status
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def start_stream(self, headers: Headers) -> None:
        """Sends the head of a stream; ``headers`` are the worker's, if it has one already."""
        if not any(name == b"content-type" for name, _ in headers):
            headers = [*headers, *_EVENT_STREAM]
        await self.start(200, headers)

    def write(self, piece: bytes) -> Awaitable[None]:
        """Sends a piece of the body; is over once the client's connection has room for more."""
        return self._send({"type": "http.response.body", "body": piece, "more_body": True})

    async def keep_alive(self) -> None:
        """Tells a client that waits for a stream that somebody is there."""
        if self.wants_stream:
            if self.status is None:
                await self.start_stream([])
            await self.write(sse.PING)

    async def end(self) -> None:
        """Ends the body."""
        await self._send({"type": "http.response.body", "body": b""})

    async def send_whole(self, status: int, headers: Headers, body: bytes) -> None:
        """Sends a whole response."""
        self.status = status
        headers = [*headers, (b"content-length", b"%d" % len(body))]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})

    async def fail(self, error: ParagoneError) -> None:
        """Ends with an error: the whole response, or the last event of a stream."""
        await self.fail_with(error.status, error.headers(), error.body())

    async def fail_with(self, status: int, headers: Mapping[str, str], body: ErrorBody) -> None:
        """Likewise, with an error that came from elsewhere."""
        self.error_code = body.error.code or body.error.type
        if self.status is not None:
            await self._send({"type": "http.response.body", "body": sse.encode_error(body)})
            return
        encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
        encoded.append((b"content-type", b"application/json"))
        await self.send_whole(status, encoded, body.model_dump_json().encode())
