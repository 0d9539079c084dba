"""Clients lean enough not to be what is measured: raw HTTP/1.1 on asyncio's protocols."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import time
from dataclasses import dataclass

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
CHUNK_START = b"data: {"
FRAMING = re.compile(rb"\r\n[0-9A-Fa-f]+\r\n")  # of a chunked body's pieces
PATIENCE_SECONDS = 60.0


class LoadError(Exception):
    """An answer was not what it should have been."""


def request(model: str, *, stream: bool, chunks: int = 1, text: str = "hello") -> bytes:
    """A chat completion request, head and body."""
    body = json.dumps(
        {
            "model": model,
            "stream": stream,
            "max_tokens": chunks,
            "messages": [{"role": "user", "content": text}],
        }
    ).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Client(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self) -> None:
        self._done: asyncio.Future[None] | None = None
        self._answer = bytearray()
        self.first_at: float | None = None  # when the first chunk of the last answer came

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the transport."""
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]  # TCP's is

    def connection_lost(self, _exc: Exception | None) -> None:
        """Fails the answer that was waited for."""
        if self._done is not None and not self._done.done():
            self._done.set_exception(LoadError("the connection ended before the answer"))

    async def ask(self, message: bytes) -> bytes:
        """Sends a request; the answer as it came."""
        self._answer.clear()
        self.first_at = None
        self._done = asyncio.get_running_loop().create_future()
        self._transport.write(message)
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self._done
        if not self._answer.startswith(b"HTTP/1.1 200"):
            raise LoadError(bytes(self._answer[:300]).decode(errors="replace"))
        return bytes(self._answer)

    def data_received(self, data: bytes) -> None:
        """Notes the first chunk and looks for the answer's end."""
        self._answer += data
        if self._done is None or self._done.done():
            return
        if self.first_at is None and b"{" in data:  # which no head has
            self.first_at = time.monotonic()
        if self._answer.endswith(b"\r\n0\r\n\r\n") or self._has_whole_body():
            self._done.set_result(None)

    def _has_whole_body(self) -> bool:
        end = self._answer.find(b"\r\n\r\n")
        length = LENGTH.search(self._answer, 0, end + 2) if 0 <= end < 4096 else None
        return length is not None and len(self._answer) >= end + 4 + int(length[1])

    def count_chunks(self) -> int:
        """The chunks of the last answer.

        Counted without the framing: a busy relay may cut its pieces inside an event.
        """
        return FRAMING.sub(b"", self._answer).count(CHUNK_START)

    def close(self) -> None:
        """Hangs up."""
        self._transport.abort()


async def connect(port: int) -> Client:
    """A new connection."""
    _, client = await asyncio.get_running_loop().create_connection(Client, "127.0.0.1", port)
    return client


async def get(port: int, path: str) -> bytes:
    """The body of a GET."""
    client = await connect(port)
    try:
        answer = await client.ask(f"GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
    finally:
        client.close()
    return answer.partition(b"\r\n\r\n")[2]


async def short_requests(port: int, *, count: int, connections: int) -> None:
    """``count`` requests that do not stream, over kept connections."""
    message = request("bench", stream=False)
    clients = [await connect(port) for _ in range(connections)]

    async def share(client: Client) -> None:
        for _ in range(count // connections):
            await client.ask(message)

    try:
        await asyncio.gather(*(share(client) for client in clients))
    finally:
        for client in clients:
            client.close()


@dataclass(frozen=True, slots=True)
class StreamLoad:
    """What came of many simultaneous streams."""

    chunks: int
    seconds: float


async def streams(port: int, *, count: int, chunks: int) -> StreamLoad:
    """``count`` streams at once, of ``chunks`` each.

    Raises:
        LoadError: a stream was not whole.
    """
    message = request("bench", stream=True, chunks=chunks)
    clients = [await connect(port) for _ in range(count)]
    start = time.monotonic()
    try:
        await asyncio.gather(*(client.ask(message) for client in clients))
    finally:
        for client in clients:
            client.close()
    seconds = time.monotonic() - start
    received = sum(client.count_chunks() for client in clients)
    if received != count * chunks:
        raise LoadError(f"{received} chunks came, not {count * chunks}")
    return StreamLoad(received, seconds)


async def first_token_seconds(port: int, *, count: int) -> list[float]:
    """Times to the first chunk, one request after another on one connection."""
    message = request("bench", stream=True, chunks=1)
    client = await connect(port)
    times = []
    try:
        for _ in range(count):
            start = time.monotonic()
            await client.ask(message)
            if client.first_at is None:
                raise LoadError("a stream had no chunk")
            times.append(client.first_at - start)
    finally:
        client.close()
    return times


async def hang_up_seconds(port: int, worker_port: int) -> float:
    """From a client's hang-up to the moment the worker sees it."""
    before = len(json.loads(await get(worker_port, "/count"))["hung_up_at"])
    client = await connect(port)
    asking = asyncio.create_task(client.ask(request("bench", stream=True, chunks=100_000)))
    while client.first_at is None:  # noqa: ASYNC110  # set by the protocol, chunk by chunk
        await asyncio.sleep(0.001)
    gone_at = time.monotonic()
    client.close()
    await asyncio.gather(asking, return_exceptions=True)
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            seen = json.loads(await get(worker_port, "/count"))["hung_up_at"]
            if len(seen) > before:
                return float(seen[before]) - gone_at
            await asyncio.sleep(0.01)


def silent_reader(port: int) -> socket.socket:
    """Asks for an endless stream and never reads it. To be closed by the caller."""
    sock = socket.create_connection(("127.0.0.1", port))
    sock.sendall(request("bench", stream=True, text="flood"))
    return sock
