"""HTTP to workers: one request, its answer's head, and its body piece by piece.

This is the only module that knows the client library; what can go wrong with it is translated
here. Redirects are not followed, cookies and proxies not used: a worker is asked at its address
and nowhere else.
"""

from __future__ import annotations

import asyncio
import errno
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Self

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from yarl import URL

from controller.protocol.errors import InternalError

# Servers close idle connections after 5 s (uvicorn's default) or more; leaving first avoids
# sending a request into a connection that is being closed.
KEEP_ALIVE_SECONDS = 4.0
READ_BUFFER_BYTES = 64 * 1024  # a slow reader stops the worker after about twice this

Headers = list[tuple[bytes, bytes]]


class UpstreamError(Exception):
    """A worker failed as a peer; the message says how."""


class UnreachableError(UpstreamError):
    """No connection could be made: the worker has seen nothing of the request."""


class LostError(UpstreamError):
    """The connection ended before the answer did."""


class _Body(aiohttp.Payload):
    """A body that is in memory already; aiohttp's own kind warns of those above 1 MiB."""

    _value: bytes

    def __init__(self, value: bytes) -> None:
        super().__init__(value, content_type="application/json")
        self._size = len(value)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return self._value.decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        await writer.write(self._value)


class Answer:
    """A worker's answer: status and headers are here, the body is read in pieces."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.status = response.status
        self.headers: Headers = [(k.lower(), v) for k, v in response.raw_headers]
        self.media_type = response.content_type

    async def read(self) -> bytes:
        """The next bytes, as many as have arrived; empty at the end.

        Raises:
            LostError: the connection ended before the body did.
        """
        try:
            return await self._response.content.readany()
        except (aiohttp.ClientError, OSError, TimeoutError) as exc:
            raise LostError(_reason(exc)) from exc

    async def read_all(self, limit: int) -> bytes:
        """The whole body.

        Raises:
            LostError: the connection ended before the body did, or it is longer than ``limit``.
        """
        pieces: list[bytes] = []
        size = 0
        while piece := await self.read():
            pieces.append(piece)
            size += len(piece)
            if size > limit:
                raise LostError(f"its answer is longer than {limit} bytes")
        return b"".join(pieces)


def host_of(address: str) -> str | None:
    """The host that would be connected to; None where the address is not a URL.

    Told by the parser that makes the connections: two parsers may differ, and what one lets pass
    the other may take elsewhere.
    """
    try:
        return URL(address).host
    except ValueError:
        return None


class Upstream:
    """A pool of connections to workers; opened and closed with the application.

    Args:
        connect_seconds: how long a worker may take to accept a connection.
        tls: whose certificates are trusted; None is the system's choice.
    """

    def __init__(self, *, connect_seconds: float, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect_seconds)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0, keepalive_timeout=KEEP_ALIVE_SECONDS, ssl=self._tls or True
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=self._timeout,
            auto_decompress=False,  # bytes pass through as they are
            skip_auto_headers=("User-Agent", "Accept-Encoding"),
            read_bufsize=READ_BUFFER_BYTES,
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._session is not None:
            await self._session.close()

    @asynccontextmanager
    async def request(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None = None
    ) -> AsyncIterator[Answer]:
        """Sends a request and yields the answer once its head is there.

        Leaving the block before the body was read to its end closes the connection, which tells
        the worker to stop.

        Raises:
            UnreachableError: nothing accepted the connection.
            LostError: it ended before the answer's head.
            InternalError: this process is out of file descriptors.
        """
        if self._session is None:
            raise RuntimeError("Upstream is used inside `async with`")
        try:
            response = await self._session.request(
                method,
                url,
                data=None if body is None else _Body(body),
                headers=headers,
                allow_redirects=False,
            )
        except aiohttp.ClientConnectorError as exc:
            if exc.os_error.errno in (errno.EMFILE, errno.ENFILE):
                raise InternalError(
                    "The controller is out of file descriptors; raise its limit (ulimit -n)"
                ) from exc
            raise UnreachableError(_reason(exc)) from exc
        except (aiohttp.InvalidURL, aiohttp.ConnectionTimeoutError) as exc:
            raise UnreachableError(_reason(exc)) from exc
        except (aiohttp.ClientError, OSError, TimeoutError) as exc:
            raise LostError(_reason(exc)) from exc
        try:
            yield Answer(response)
        finally:
            response.close()  # to the pool if read to its end, else for good


def _reason(exc: BaseException) -> str:
    if isinstance(exc, aiohttp.ClientConnectorError):
        return f"cannot connect: {exc.os_error.strerror or exc.os_error}"
    if isinstance(exc, asyncio.TimeoutError):
        return "it did not accept a connection in time"
    if isinstance(exc, aiohttp.InvalidURL):
        return f"its address {exc} is not a URL"
    return "the connection ended early"
