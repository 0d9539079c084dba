"""Images from files and addresses to ``data:`` URIs: the person's own, so from anywhere.

What is in them is not looked into: who answers decodes them, within limits.
"""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path

import httpx

from controller.protocol.errors import BadImageError

# Beyond it no worker takes an image, whatever its settings; it keeps a wrong file off the wire.
MAX_BYTES = 64 * 1024 * 1024
FETCH_SECONDS = 30.0

_SIGNATURES = (
    (0, b"\x89PNG", "image/png"),
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"GIF8", "image/gif"),
    (0, b"BM", "image/bmp"),
    (8, b"WEBP", "image/webp"),
    (4, b"ftypavif", "image/avif"),
    (4, b"ftyp", "image/heic"),
)


def data_uri(data: bytes) -> str:
    """A file's bytes as a ``data:`` URI; its type is told by how it begins."""
    kind = next(
        (kind for at, sign, kind in _SIGNATURES if data[at : at + len(sign)] == sign),
        "application/octet-stream",
    )
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


async def image_uri(source: str) -> str:
    """An image as a ``data:`` URI.

    Args:
        source: a file, an ``http`` or ``https`` address, or a ``data:`` URI, which stays as it is.

    Raises:
        BadImageError: it cannot be read or fetched, and why.
    """
    scheme = source.partition(":")[0].lower()
    if scheme == "data":
        return source
    if scheme in {"http", "https"}:
        return data_uri(await _fetch(source))
    return data_uri(await asyncio.to_thread(_read, source))


def _read(source: str) -> bytes:
    path = Path(source).expanduser()
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise BadImageError(f"{path} has {size} bytes; an image may have {MAX_BYTES}")
        return path.read_bytes()
    except OSError as exc:
        raise BadImageError(
            f"the image {path} cannot be read: {exc.strerror or exc}; name a file or an address"
        ) from exc


async def _fetch(address: str) -> bytes:
    timeout = httpx.Timeout(FETCH_SECONDS)
    try:
        async with (
            asyncio.timeout(FETCH_SECONDS),
            httpx.AsyncClient(follow_redirects=True, timeout=timeout) as client,
            client.stream("GET", address, headers={"user-agent": "paragone"}) as reply,
        ):
            if not reply.is_success:
                raise BadImageError(f"{address} answered {reply.status_code}, not an image")
            data = bytearray()
            async for piece in reply.aiter_bytes():
                data += piece
                if len(data) > MAX_BYTES:
                    raise BadImageError(f"{address} has more than {MAX_BYTES} bytes")
    except TimeoutError as exc:
        raise BadImageError(f"{address} did not arrive within {FETCH_SECONDS:g} s") from exc
    except (httpx.HTTPError, httpx.InvalidURL) as exc:
        why = str(exc) or type(exc).__name__
        raise BadImageError(
            f"{address} cannot be fetched: {why}; name a file or an address"
        ) from exc
    return bytes(data)
