"""The client's side of a relayed answer: what was sent of it, and how it ends."""

from __future__ import annotations

from starlette.types import Send

from controller.protocol import sse
from controller.protocol.errors import ErrorBody, ParagoneError
from controller.upstream import Headers


class Reply:
    """An answer on its way to the client, and how far it has come."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status: int | None = None  # None until the head was sent
        self.has_content = False  # more than comments was sent: there is no way back

    async def start(self, status: int, headers: Headers) -> None:
        """Sends the head."""
        self.status = status
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def write(self, piece: bytes) -> None:
        """Sends a piece of the body; returns once the client's connection has room for more."""
        await self._send({"type": "http.response.body", "body": piece, "more_body": True})

    async def end(self) -> None:
        """Ends the body."""
        await self._send({"type": "http.response.body", "body": b""})

    async def send_whole(self, status: int, headers: Headers, body: bytes) -> None:
        """Sends a whole response."""
        await self.start(status, [*headers, (b"content-length", str(len(body)).encode())])
        await self._send({"type": "http.response.body", "body": body})

    async def fail(self, error: ParagoneError) -> None:
        """Ends with an error: the whole response, or the last event of a stream."""
        if self.status is not None:
            await self.fail_stream(error.body())
            return
        headers = [(name.encode(), value.encode()) for name, value in error.headers().items()]
        headers.append((b"content-type", b"application/json"))
        await self.send_whole(error.status, headers, error.body().model_dump_json().encode())

    async def fail_stream(self, body: ErrorBody) -> None:
        """Ends a stream that had begun with an error event."""
        await self._send({"type": "http.response.body", "body": sse.encode_error(body)})
