"""A worker that costs nearly nothing, so that what is measured is the relay before it.

``python -m relay_bench.worker PORT CHUNKS_PER_SECOND``. A request's ``max_tokens`` is the number
of chunks of its stream; to the question ``flood`` it writes 64 KiB pieces for as long as somebody
reads.
``GET /count`` tells how many requests came and when (monotonic seconds, the same in all processes
of a machine) streams were hung up on.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time

import uvloop

MODELS = ("bench",)  # one: smg asks a worker for its first alone
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
TOKENS = re.compile(rb'"max_(?:completion_)?tokens": *(\d+)')  # one relay writes the other name
STREAM = re.compile(rb'"stream": *true')

CHUNK = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"bench",'
    b'"choices":[{"index":0,"delta":{"content":" word"},"finish_reason":null}]}\n\n'
)
WHOLE = (
    b'{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"bench","choices":'
    b'[{"index":0,"message":{"role":"assistant","content":"word"},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}'
)
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)


def framed(body: bytes) -> bytes:
    """One piece of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(body), body)


def whole(body: bytes) -> bytes:
    """A whole response."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    return head % len(body) + body


FRAMED_CHUNK = framed(CHUNK)
STREAM_END = framed(b"data: [DONE]\n\n") + b"0\r\n\r\n"
FLOOD_PIECE = framed(CHUNK + b": " + b"x" * 65_536 + b"\n\n")


class Counts:
    """What `/count` tells."""

    def __init__(self) -> None:
        self.requests = 0
        self.hung_up_at: list[float] = []


class Connection(asyncio.Protocol):
    """Answers the requests of one connection, one after another."""

    def __init__(self, counts: Counts, streams: dict[Connection, int]) -> None:
        self._counts = counts
        self._streams = streams  # open streams and how many chunks each still gets
        self._buffer = b""
        self._floods = False
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the transport."""
        self._transport = transport  # type: ignore[assignment]  # TCP's are asyncio.Transport

    def connection_lost(self, _exc: Exception | None) -> None:
        """Notes when a stream was hung up on."""
        if self._streams.pop(self, None) is not None or self._floods:
            self._counts.hung_up_at.append(time.monotonic())
        self._floods = False

    def data_received(self, data: bytes) -> None:
        """Answers once the request is whole."""
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        found = LENGTH.search(self._buffer, 0, end + 2)
        total = end + 4 + (int(found[1]) if found else 0)
        if len(self._buffer) < total:
            return
        request, self._buffer = self._buffer[:total], self._buffer[total:]
        self._answer(request)

    def _answer(self, request: bytes) -> None:
        if request.startswith(b"GET /count"):
            counts = {"requests": self._counts.requests, "hung_up_at": self._counts.hung_up_at}
            self._transport.write(whole(json.dumps(counts).encode()))
        elif request.startswith(b"GET"):
            data = [{"id": name, "object": "model"} for name in MODELS]
            self._transport.write(whole(json.dumps({"object": "list", "data": data}).encode()))
        else:
            self._counts.requests += 1
            if not STREAM.search(request):
                self._transport.write(whole(WHOLE))
            elif b'"flood"' in request:
                self._transport.write(STREAM_HEAD)
                self._floods = True
                self.resume_writing()
            else:
                tokens = TOKENS.search(request)
                self._transport.write(STREAM_HEAD + FRAMED_CHUNK)
                self._streams[self] = int(tokens[1]) - 1 if tokens else 15
                self._paused = False

    def pause_writing(self) -> None:
        """Stops the flood: the reader is behind."""
        self._paused = True

    def resume_writing(self) -> None:
        """Floods until the reader is behind."""
        self._paused = False
        while self._floods and not self._paused:
            self._transport.write(FLOOD_PIECE)

    def tick(self) -> None:
        """Sends the next chunk of the open stream, or its end."""
        if self._streams[self] > 0:
            self._streams[self] -= 1
            self._transport.write(FRAMED_CHUNK)
        else:
            del self._streams[self]
            self._transport.write(STREAM_END)


async def serve(port: int, chunks_per_second: float) -> None:
    """Serves until killed."""
    loop = asyncio.get_running_loop()
    counts = Counts()
    streams: dict[Connection, int] = {}
    await loop.create_server(lambda: Connection(counts, streams), "127.0.0.1", port, backlog=1024)
    due = loop.time()
    while True:
        due = max(due + 1 / chunks_per_second, loop.time())  # late ticks are not caught up with
        await asyncio.sleep(due - loop.time())
        for connection in tuple(streams):
            connection.tick()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), float(sys.argv[2])))
