"""uvicorn's HTTP protocol in fewer steps, for what our clients send and our servers answer.

What is plain goes the short way: a path without escapes, a whole response in one piece.
Everything else goes uvicorn's way. The difference is a third of what uvicorn costs, and a relayed
request is little more than that.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Generator
from typing import TYPE_CHECKING

from starlette.types import Message, Scope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from controller.chassis.head_guard import HeadGuard

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application

_HOP_HEADERS = frozenset({b"connection", b"transfer-encoding"})
CLIENT = "paragone.client"  # the scope's extension: a `Cycle`
_PLAIN_URL = re.compile(rb"(/(?!/)[A-Za-z0-9_.~/:-]*)(?:\?([^#]*))?")


class _Done:
    """Awaited, it is over at once, for less than a coroutine of its own."""

    def __await__(self) -> Generator[None, None, None]:
        yield from ()


_DONE = _Done()


class Cycle(RequestResponseCycle):
    """One request and its response; an extension of its scope, for those who can use it."""

    on_hang_up: Callable[[], None] | None = None  # called if the client goes before the end
    _start: Message | None = None  # the head of a response that is sent with its body

    @property
    def has_whole_body(self) -> bool:
        """Whether the next `receive` gives all that is left of the request, without a wait."""
        return not self.more_body and not self.waiting_for_100_continue

    def send(self, message: Message) -> Awaitable[None]:  # type: ignore[override]  # uvicorn's are narrower
        """Sends a part of the response.

        The head of one whose length is known waits for its body: two writes of a short one cost
        twice as much as one.
        """
        if self._start is not None and message["type"] == "http.response.body":
            start, self._start = self._start, None
            if not message.get("more_body", False):
                body = message.get("body", b"")
                head = self._head(start)
                if head is not None and self.expected_content_length == len(body):
                    self._finish(head, body)
                    return _DONE
            return self._send_both(start, message)
        if message["type"] == "http.response.start" and self._can_wait(message):
            self._start = message
            return _DONE
        return super().send(message)  # type: ignore[arg-type]  # uvicorn's are narrower

    async def _send_both(self, start: Message, message: Message) -> None:
        await super().send(start)  # type: ignore[arg-type]  # uvicorn's are narrower
        await super().send(message)  # type: ignore[arg-type]  # likewise

    def _can_wait(self, start: Message) -> bool:
        if self.response_started or self.scope["method"] == "HEAD" or self.access_log:
            return False
        return _names_length(start)

    def _head(self, start: Message) -> bytes | None:
        """The head's bytes; None where there is more to it."""
        lines = [STATUS_LINE[start["status"]]]
        for name, value in (*self.default_headers, *start["headers"]):
            if name == b"content-length":
                self.expected_content_length = int(value)
            elif name in _HOP_HEADERS:
                return None
            lines.append(b"%b: %b\r\n" % (name, value))
        head = b"".join(lines)
        num_lines = len(lines)
        if head.count(b"\n") != num_lines or head.count(b"\r") != num_lines or b"\0" in head:
            return None  # uvicorn says what is wrong with it
        return head + (b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n")

    def _finish(self, head: bytes, body: bytes) -> None:
        if self.disconnected:
            return
        self.response_started = True
        self.waiting_for_100_continue = False
        self.expected_content_length = 0
        self.transport.write(head + body)
        self.response_complete = True
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()


class OldCycle(Cycle):
    """Likewise for a client of HTTP/1.0, which knows no chunks.

    A body whose length is not known ends with its connection.
    """

    _ends_with_connection = False  # the head was sent, and no length with it

    def send(self, message: Message) -> Awaitable[None]:  # type: ignore[override]  # as above
        """Sends a part of the response."""
        if self._ends_with_connection:
            return self._send_piece(message)
        if message["type"] == "http.response.start" and not _names_length(message):
            return self._send_head(message)
        return super().send(message)

    async def _send_head(self, message: Message) -> None:
        self.chunked_encoding = False  # what uvicorn has not to choose any more
        await RequestResponseCycle.send(self, message)  # type: ignore[arg-type]  # as above
        self._ends_with_connection = self.response_started

    async def _send_piece(self, message: Message) -> None:
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        if self.scope["method"] != "HEAD":
            self.transport.write(message.get("body", b""))
        if not message.get("more_body", False):
            self.response_complete = True
            self.message_event.set()
            self.transport.close()
            self.on_response()


def _names_length(start: Message) -> bool:
    for name, _ in start.get("headers", ()):  # noqa: SIM110  # a generator costs more
        if name == b"content-length":
            return True
    return False


class HttpServerProtocol(HeadGuard):
    """One client's connection."""

    _running: RequestResponseCycle | None = None  # the last of `pipeline` that was begun

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone, or everything was said."""
        super().connection_lost(exc)
        running = self._running
        if isinstance(running, Cycle) and not running.response_complete:
            running.disconnected = True  # where requests wait behind it, uvicorn told the last
            running.message_event.set()
            if running.on_hang_up is not None:
                running.on_hang_up()

    def on_headers_complete(self) -> None:
        """The head is whole: the application may begin."""
        parser = self.parser
        plain = _PLAIN_URL.fullmatch(self.url)
        version = parser.get_http_version()
        is_old = version == "1.0"
        if plain is None or parser.should_upgrade() or not (is_old or version == "1.1"):
            super().on_headers_complete()
            return
        self._is_in_head = False
        scope: Scope = self.scope  # type: ignore[assignment]  # uvicorn's own types are narrower
        scope["method"] = parser.get_method().decode("ascii")
        scope["path"] = plain[1].decode("ascii")
        scope["raw_path"] = plain[1]
        scope["query_string"] = plain[2] or b""
        if is_old:
            scope["http_version"] = version
        cycle = self.cycle = (OldCycle if is_old else Cycle)(
            scope=self.scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=not is_old and parser.should_keep_alive(),
            on_response=self.on_response_complete,
        )
        scope["extensions"] = {CLIENT: cycle}
        if self._running is None or self._running.response_complete:
            self._start_asgi_task(cycle, self.app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, self.app))

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)
