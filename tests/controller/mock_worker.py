"""A worker's wire without a model, with faults on demand; by itself: ``python -m`` this module.

It writes HTTP by hand, so that it can end a connection at any byte.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import TracebackType
from typing import Any, Self

import httpx

from controller.protocol import sse
from controller.protocol.chat import ChatCompletionChunk, ChunkChoice, Delta, FinishReason, Usage
from controller.protocol.errors import ParagoneError
from controller.protocol.fleet import (
    LoadProgress,
    ModelCard,
    RegisterRequest,
    WorkerLoad,
    WorkerState,
    WorkerStatus,
)

WORDS = ("Two", " red", " squares", ".")


class Fault(StrEnum):
    """Where an answer goes wrong. All but the last two end in a reset connection."""

    AT_BYTE_ZERO = "at_byte_zero"  # the request was read, nothing is said
    AFTER_HEADERS = "after_headers"
    AFTER_PING = "after_ping"  # a comment was sent, but nothing of the answer
    MID_EVENT = "mid_event"  # after two words, inside the third one's event
    BEFORE_DONE = "before_done"  # all words, no [DONE]
    BEFORE_TERMINATOR = "before_terminator"  # [DONE] was said, the body's own end was not
    CLEAN_CLOSE = "clean_close"  # after two words, the body ends as if it were whole
    HANG = "hang"  # nothing is ever said


@dataclass
class Script:
    """How the mock answers."""

    words: Sequence[str] = WORDS
    word_seconds: float = 0.0
    fault: Fault | None = None
    gate: asyncio.Event | None = None  # nothing is said before it is set
    refusal: ParagoneError | None = None  # answered instead, with its status
    error_event: ParagoneError | None = None  # ends a stream after two words
    foreign_refusal: tuple[int, bytes] | None = None  # likewise, status and body of another server
    last: bytes = sse.DONE  # what a stream ends with
    newline: bytes = b"\n"
    piece_bytes: int | None = None  # writes in pieces of this size, wherever events end
    stands_still: bool = False  # at the fault: another one kills it there
    endless_bytes: int = 0  # goes on with words of this size until nobody reads


@dataclass
class Received:
    """A request as it came."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class MockWorker:
    """``async with MockWorker() as worker:`` listens on a free port."""

    worker_id: str = "mock-1"
    script: Script = field(default_factory=Script)
    port: int = 0
    served_models: Sequence[str] | None = None  # names for GET /v1/models, as an external server
    models_are_null: bool = False  # as Ollama says while it has none
    received: list[Received] = field(default_factory=list)
    listings: int = 0  # how often it was asked for its models
    listing_headers: dict[str, str] = field(default_factory=dict)
    bytes_written: int = 0
    open_answers: int = 0

    def __post_init__(self) -> None:
        self.hung_up = asyncio.Event()
        self._all_closed = asyncio.Event()
        self._all_closed.set()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        self._connections: set[asyncio.StreamWriter] = set()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.die()

    async def die(self) -> None:
        """Goes as a killed process does: nothing listens, connections are reset."""
        self._server.close()
        for writer in tuple(self._connections):
            _reset(writer)
        await self._all_closed.wait()

    def registration(
        self,
        *,
        models: Sequence[str] = ("demo",),
        state: WorkerState = WorkerState.READY,
        heartbeat_seconds: float = 30.0,
        load: WorkerLoad | None = None,
        progress: LoadProgress | None = None,
        detail: str | None = None,
    ) -> RegisterRequest:
        """What a worker of this address says of itself."""
        return RegisterRequest(
            worker_id=self.worker_id,
            address=self.address,
            heartbeat_seconds=heartbeat_seconds,
            version="0",
            status=WorkerStatus(
                state=state,
                models=[ModelCard(name=name) for name in models],
                load=load or WorkerLoad(capacity=4),
                progress=progress,
                detail=detail,
            ),
        )

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(writer)
        self._all_closed.clear()
        try:
            first = await reader.read(1)
            while first:
                first = await self._serve_one(first, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            self._connections.discard(writer)
            if not self._connections:
                self._all_closed.set()

    async def _serve_one(
        self, first: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bytes:
        """One request, whose first byte was read; the next one's first byte, or nothing."""
        head = (first + await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        request_line, *lines = head.strip().split("\r\n")
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        path = request_line.split()[1]
        if path == "/v1/models":
            await self._list_models(headers, writer)
            return await reader.read(1)
        self.received.append(Received(path, headers, body))
        request: dict[str, Any] = json.loads(body)
        answer = asyncio.create_task(self._answer(request, writer))
        # Nothing is sent on this connection until the answer is whole: before that, only its end
        # can be read; after it, the next request's first byte.
        gone = asyncio.create_task(reader.read(1))
        self.open_answers += 1
        try:
            await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                self.hung_up.set()
                return b""
            return await gone if answer.result() else b""
        except ConnectionError:
            self.hung_up.set()
            return b""
        finally:
            self.open_answers -= 1
            for task in (answer, gone):
                task.cancel()

    async def _fail(self, writer: asyncio.StreamWriter) -> bool:
        if self.script.stands_still:
            print("standing still", flush=True)
            await asyncio.sleep(3600)
        return _reset(writer)

    async def _list_models(self, headers: dict[str, str], writer: asyncio.StreamWriter) -> None:
        self.listings += 1
        self.listing_headers = headers
        status = 404 if self.served_models is None else 200
        data = [{"id": name, "object": "model"} for name in self.served_models or ()]
        listing = {"object": "list", "data": None if self.models_are_null else data}
        body = json.dumps(listing).encode()
        head = _head(status, {"content-type": "application/json"}, len(body))
        await self._write(writer, head + body)

    async def _answer(self, request: dict[str, Any], writer: asyncio.StreamWriter) -> bool:
        script = self.script
        if script.refusal is not None:
            body = script.refusal.body().model_dump_json().encode()
            headers = {"content-type": "application/json", **script.refusal.headers()}
            await self._write(writer, _head(script.refusal.status, headers, len(body)) + body)
            return True
        if script.foreign_refusal is not None:
            status, body = script.foreign_refusal
            await self._write(
                writer, _head(status, {"content-type": "text/html"}, len(body)) + body
            )
            return True
        if script.gate is not None:
            await script.gate.wait()
        if script.fault is Fault.HANG:
            await asyncio.sleep(3600)
        if script.fault is Fault.AT_BYTE_ZERO:
            return await self._fail(writer)
        if not request.get("stream"):
            return await self._answer_whole(writer)
        return await self._answer_stream(writer, str(request["model"]))

    async def _answer_whole(self, writer: asyncio.StreamWriter) -> bool:
        text = "".join(self.script.words)
        body = json.dumps(
            {
                "id": "chatcmpl-1",
                "object": "chat.completion",
                "created": 1,
                "model": "demo",
                "choices": [
                    {
                        "index": 0,
                        "message": {"role": "assistant", "content": text},
                        "finish_reason": "stop",
                    }
                ],
                "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
            }
        ).encode()
        await asyncio.sleep(self.script.word_seconds * len(self.script.words))
        head = _head(200, {"content-type": "application/json"}, len(body))
        if self.script.fault is Fault.AFTER_HEADERS:
            await self._write(writer, head)
            return await self._fail(writer)
        if self.script.fault is Fault.MID_EVENT:
            await self._write(writer, head + body[: len(body) // 2])
            return await self._fail(writer)
        await self._write(writer, head + body)
        return True

    async def _answer_stream(self, writer: asyncio.StreamWriter, model: str) -> bool:
        script = self.script
        await self._write(writer, _head(200, {"content-type": "text/event-stream"}, None))
        if script.fault is Fault.AFTER_HEADERS:
            return await self._fail(writer)
        if script.fault is Fault.AFTER_PING:
            await self._event(writer, sse.PING)
            await asyncio.sleep(0.05)
            return await self._fail(writer)

        def event(delta: Delta, finish: FinishReason | None = None) -> bytes:
            choice = ChunkChoice(delta=delta, finish_reason=finish)
            return sse.encode(
                ChatCompletionChunk(id="chatcmpl-1", created=1, model=model, choices=[choice])
            )

        await self._event(writer, event(Delta(role="assistant")))
        for position, word in enumerate(script.words):
            if position == 2:
                if script.fault is Fault.MID_EVENT:
                    part = event(Delta(content=word))[:40]
                    await self._write(writer, b"%x\r\n%b\r\n" % (len(part), part))
                    await asyncio.sleep(0.05)
                    return await self._fail(writer)
                if script.fault is Fault.CLEAN_CLOSE:
                    await self._write(writer, b"0\r\n\r\n")
                    return True
                if script.error_event is not None:
                    await self._event(writer, sse.encode_error(script.error_event.body()))
                    await self._write(writer, b"0\r\n\r\n")
                    return True
            await self._event(writer, event(Delta(content=word)))
            await asyncio.sleep(script.word_seconds)
        while script.endless_bytes:
            await self._event(writer, event(Delta(content="x" * script.endless_bytes)))
            await asyncio.sleep(script.word_seconds)
        if script.fault is Fault.BEFORE_DONE:
            await asyncio.sleep(0.05)
            return await self._fail(writer)
        last = ChatCompletionChunk(
            id="chatcmpl-1",
            created=1,
            model=model,
            choices=[],
            usage=Usage(prompt_tokens=3, completion_tokens=4, total_tokens=7),
        )
        end = event(Delta(), FinishReason.STOP) + sse.encode(last)
        await self._event(writer, end + script.last)
        if script.fault is Fault.BEFORE_TERMINATOR:
            await asyncio.sleep(0.05)
            return await self._fail(writer)
        await self._write(writer, b"0\r\n\r\n")
        return True

    async def _event(self, writer: asyncio.StreamWriter, event: bytes) -> None:
        event = event.replace(b"\n", self.script.newline)
        step = self.script.piece_bytes or len(event)
        for start in range(0, len(event), step):
            piece = event[start : start + step]
            await self._write(writer, b"%x\r\n%b\r\n" % (len(piece), piece))
            if self.script.piece_bytes:
                await asyncio.sleep(0)

    async def _write(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        if writer.is_closing():  # uvloop has an error of its own for that
            raise ConnectionResetError
        writer.write(data)
        await writer.drain()
        self.bytes_written += len(data)


def _head(status: int, headers: dict[str, str], length: int | None) -> bytes:
    framing = "transfer-encoding: chunked" if length is None else f"content-length: {length}"
    lines = [f"HTTP/1.1 {status} X", *(f"{k}: {v}" for k, v in headers.items()), framing]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def _reset(writer: asyncio.StreamWriter) -> bool:
    """Ends a connection as the kernel does for a killed process with unread data: by RST."""
    sock: socket.socket | None = writer.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    return False


async def _run(
    controller: str, worker_id: str, model: str, word_seconds: float, fault: Fault | None
) -> None:
    script = Script(
        words=[f" {number}" for number in range(200)],
        word_seconds=word_seconds,
        fault=fault,
        stands_still=True,
    )
    async with (
        MockWorker(worker_id=worker_id, script=script) as worker,
        httpx.AsyncClient() as client,
    ):
        message = worker.registration(models=[model], heartbeat_seconds=1.0).model_dump(mode="json")
        while True:
            try:
                await client.post(f"{controller}/fleet/heartbeat", json=message)
            except httpx.HTTPError as exc:
                print(f"no controller: {exc}", file=sys.stderr)
            await asyncio.sleep(1.0)


if __name__ == "__main__":
    fault_given = Fault(sys.argv[5]) if len(sys.argv) > 5 else None
    asyncio.run(_run(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4]), fault_given))
