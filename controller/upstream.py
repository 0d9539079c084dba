"""HTTP to workers: one request, its answer's head, and its body piece by piece.

Redirects are not followed, cookies and proxies not used: a worker is asked at its address and
nowhere else.
"""

from __future__ import annotations

import asyncio
import errno
import ssl
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import TracebackType
from typing import Self

from yarl import URL

from controller.connection import (
    Connection,
    Headers,
    LostError,
    UnreachableError,
    UpstreamError,
)
from controller.protocol.errors import InternalError

__all__ = ["Answer", "Headers", "LostError", "UnreachableError", "Upstream", "UpstreamError"]

Server = tuple[str, int, bool]  # host, port, whether it is asked over TLS

# Servers close idle connections after 5 s (uvicorn's default) or more; leaving first avoids
# sending a request into a connection that is being closed.
KEEP_ALIVE_SECONDS = 4.0


class Answer:
    """A worker's answer: status and headers are here, the body is read in pieces."""

    __slots__ = ("_connection", "headers", "read", "status")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.status = connection.status
        self.headers = connection.headers
        self.read = connection.read

    @property
    def media_type(self) -> str:
        """The Content-Type without its parameters."""
        for name, value in self.headers:
            if name == b"content-type":
                return value.partition(b";")[0].strip().lower().decode("latin-1")
        return ""

    async def read_all(self, limit: int) -> bytes:
        """The whole body.

        Raises:
            LostError: the connection ended before the body did, or it is longer than ``limit``.
        """
        if self._connection.has_whole_body(limit):  # it came with its head
            return await self.read()
        pieces: list[bytes] = []
        size = 0
        while piece := await self.read():
            pieces.append(piece)
            size += len(piece)
            if size > limit:
                raise LostError(f"its answer is longer than {limit} bytes")
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


@dataclass(frozen=True, slots=True)
class _Target:
    """Where a URL leads, and what follows the method of every request to it."""

    server: Server
    beginning: str


@lru_cache(maxsize=4096)
def _target(url: str) -> _Target:
    """Raises ValueError for what is no URL of a server."""
    try:
        parsed = URL(url)
    except IndexError as exc:  # brackets before an "@" that nothing follows
        raise ValueError("expected http://host:port") from exc
    if parsed.scheme not in ("http", "https") or not parsed.host or parsed.port is None:
        raise ValueError("expected http://host:port")
    host = parsed.raw_host or ""
    authority = f"[{host}]" if ":" in host else host
    if parsed.explicit_port is not None:
        authority += f":{parsed.port}"
    server = (host, parsed.port, parsed.scheme == "https")
    return _Target(server, f" {parsed.raw_path_qs} HTTP/1.1\r\nhost: {authority}\r\n")


def host_of(address: str) -> str | None:
    """The host that would be connected to; None where the address is not a URL.

    Told by the parser that makes the connections: two parsers may differ, and what one lets pass
    the other may take elsewhere.
    """
    try:
        return _target(address).server[0]
    except ValueError:
        return None


class Exchange:
    """One request to a worker, and its answer: see `Upstream.request`.

    Not a generator: this is on every request's way.
    """

    __slots__ = ("_body", "_connection", "_head", "_server", "_upstream")

    def __init__(self, upstream: Upstream, server: Server, head: bytes, body: bytes | None) -> None:
        self._upstream = upstream
        self._server = server
        self._head = head
        self._body = body
        self._connection: Connection

    async def __aenter__(self) -> Answer:
        self._connection = await self._upstream.open(self._server, self._head, self._body)
        return Answer(self._connection)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._upstream.close(self._server, self._connection)


class Upstream:
    """A pool of connections to workers; opened and closed with the application.

    Args:
        connect_seconds: how long a worker may take to accept a connection.
        tls: whose certificates are trusted; None is the system's choice.
    """

    def __init__(self, *, connect_seconds: float, tls: ssl.SSLContext | None = None) -> None:
        self._connect_seconds = connect_seconds
        self._tls = tls or ssl.create_default_context()
        self._idle: dict[Server, deque[Connection]] = {}
        self._sweeping: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._sweeping = asyncio.create_task(self._sweep())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._sweeping is not None:
            self._sweeping.cancel()
        for connections in self._idle.values():
            for connection in connections:
                connection.abort()
        self._idle.clear()
        await asyncio.sleep(0)  # the loop closes what was aborted

    def request(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None = None
    ) -> Exchange:
        """``async with`` it: sends a request and gives the answer once its head is there.

        Leaving the block before the body was read to its end closes the connection, which tells
        the worker to stop.

        Raises:
            UnreachableError: the address is no URL, or a header would break the request; entering
                the block raises it where nothing accepts the connection.
            LostError: on entering, it ended before the answer's head.
            InternalError: on entering, this process is out of file descriptors.
        """
        try:
            target = _target(url)
        except ValueError as exc:
            raise UnreachableError(f"its address {url} is not a URL") from exc
        return Exchange(self, target.server, _head(method, target, headers, body), body)

    async def open(self, server: Server, head: bytes, body: bytes | None) -> Connection:
        """A connection on which a request was sent, and its answer's head read.

        Raises:
            UnreachableError, LostError, InternalError: as `request` does.
        """
        used = self._take(server)
        connection = used or await self._connect(server)
        try:
            try:
                await connection.ask(head, body)
            except LostError:
                # The worker may have closed it just when this request was sent. A question that
                # changes nothing can be asked again; others are for those who know what they do.
                if used is None or not head.startswith(b"GET "):
                    raise
                connection.abort()
                connection = await self._connect(server)
                await connection.ask(head, body)
        except BaseException:
            connection.abort()
            raise
        return connection

    def close(self, server: Server, connection: Connection) -> None:
        """Keeps a connection whose answer was read to its end, and ends any other."""
        if connection.can_be_used_again:
            connection.idle_since = self._loop.time()
            idle = self._idle.get(server)
            if idle is None:
                idle = self._idle[server] = deque()
            idle.append(connection)
        else:
            connection.abort()

    def _take(self, server: Server) -> Connection | None:
        """The connection that was used last: it is the likeliest to be there still."""
        idle = self._idle.get(server)
        oldest = self._loop.time() - KEEP_ALIVE_SECONDS
        while idle:
            connection = idle.pop()
            if not connection.is_closed and connection.idle_since > oldest:
                return connection
            connection.abort()
        return None

    async def _connect(self, server: Server) -> Connection:
        host, port, is_tls = server
        try:
            async with asyncio.timeout(self._connect_seconds):
                _, connection = await self._loop.create_connection(
                    lambda: Connection(self._loop), host, port, ssl=self._tls if is_tls else None
                )
        except TimeoutError as exc:
            raise UnreachableError("it did not accept a connection in time") from exc
        except (OSError, UnicodeError, OverflowError) as exc:
            if isinstance(exc, OSError) and exc.errno in (errno.EMFILE, errno.ENFILE):
                raise InternalError(
                    "The controller is out of file descriptors; raise its limit (ulimit -n)"
                ) from exc
            reason = exc.strerror if isinstance(exc, OSError) else None
            raise UnreachableError(f"cannot connect: {reason or exc}") from exc
        return connection

    async def _sweep(self) -> None:
        """Closes what nobody has used for a while."""
        while True:
            await asyncio.sleep(KEEP_ALIVE_SECONDS)
            oldest = self._loop.time() - KEEP_ALIVE_SECONDS
            for key, connections in tuple(self._idle.items()):
                while connections and connections[0].idle_since <= oldest:
                    connections.popleft().abort()
                if not connections:
                    del self._idle[key]


def _head(method: str, target: _Target, headers: Mapping[str, str], body: bytes | None) -> bytes:
    """A request's head.

    Raises:
        UnreachableError: a header would be more than one.
    """
    head = method + target.beginning
    for name, value in headers.items():
        head += f"{name}: {value}\r\n"
    num_lines = 2 + len(headers)
    if head.count("\n") != num_lines or head.count("\r") != num_lines:
        raise UnreachableError("a header for it holds a line break")
    head += "\r\n" if body is None else f"content-length: {len(body)}\r\n\r\n"
    return head.encode("latin-1", errors="replace")
