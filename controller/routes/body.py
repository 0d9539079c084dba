"""Reads requests' bodies off raw ASGI: once, within a size and a time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from controller.chassis.http import error_response
from controller.chassis.http_server import CLIENT
from controller.protocol.errors import (
    BadRequestError,
    ParagoneError,
    PayloadTooLargeError,
    RequestTimeoutError,
)


class ClientGoneError(Exception):
    """The client hung up before its request was complete."""


async def read_json_body(
    scope: Scope,
    headers: Mapping[bytes, bytes],
    receive: Receive,
    *,
    max_bytes: int,
    seconds: float,
) -> bytes:
    """The body of a request that says it is JSON; it is not parsed here.

    Args:
        scope: the request's.
        headers: its headers.
        receive: the rest of it.
        max_bytes: the most that is taken.
        seconds: how long it may take to arrive.

    Raises:
        BadRequestError: it does not say that it is JSON.
        PayloadTooLargeError: it is longer than ``max_bytes``, or says that it will be.
        RequestTimeoutError: it did not arrive within ``seconds``.
        ClientGoneError: the client hung up within it.
    """
    _check_head(headers, max_bytes)
    return await _read_in_time(scope, receive, max_bytes, seconds)


class BoundedBodies:
    """Gives an application whole bodies, of a bounded size that came within a bounded time.

    The web framework reads bodies of any size for as long as they take.

    Args:
        app: the application.
        max_bytes: the most that is taken.
        seconds: how long a body may take to arrive.
    """

    def __init__(self, app: ASGIApp, *, max_bytes: int, seconds: float) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Reads, then passes on."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        try:
            _check_length(dict(scope["headers"]), self._max_bytes)
            body = await _read_in_time(scope, receive, self._max_bytes, self._seconds)
        except ClientGoneError:
            return
        except ParagoneError as exc:
            await error_response(exc)(scope, receive, send)
            return
        is_read = False

        async def receive_whole() -> Message:
            nonlocal is_read
            if is_read:
                return await receive()
            is_read = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, receive_whole, send)


async def _read_in_time(scope: Scope, receive: Receive, max_bytes: int, seconds: float) -> bytes:
    client = scope.get("extensions", {}).get(CLIENT)
    if client is not None and client.has_whole_body:
        return await _read(receive, max_bytes)
    try:
        async with asyncio.timeout(seconds):
            return await _read(receive, max_bytes)
    except TimeoutError as exc:
        raise RequestTimeoutError(
            f"The body did not arrive within {seconds:g} s; send it faster, or raise the "
            f"controller's --body-seconds"
        ) from exc


def _check_length(headers: Mapping[bytes, bytes], max_bytes: int) -> None:
    if int(headers.get(b"content-length", 0)) > max_bytes:  # the server has checked it
        raise _too_large(max_bytes)


def _check_head(headers: Mapping[bytes, bytes], max_bytes: int) -> None:
    _check_length(headers, max_bytes)
    # A page in a browser may post other types to any address without asking.
    if b"json" not in headers.get(b"content-type", b"").lower():
        raise BadRequestError("The request must have the header Content-Type: application/json")


async def _read(receive: Receive, max_bytes: int) -> bytes:
    pieces: list[bytes] = []
    size = 0
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        piece: bytes = message.get("body", b"")
        size += len(piece)
        if size > max_bytes:
            raise _too_large(max_bytes)
        pieces.append(piece)
        more = message.get("more_body", False)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _too_large(max_bytes: int) -> PayloadTooLargeError:
    return PayloadTooLargeError(
        f"The body is larger than {max_bytes / 2**20:g} MiB, the most that is taken here; "
        f"send fewer or smaller images, or raise the controller's --max-body-bytes"
    )
