"""A reverse proxy that shows a server under a path, and tells the server nothing of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

_HOP_BY_HOP = {"connection", "transfer-encoding", "keep-alive"}
_METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE"]


def path_proxy(target: str, prefix: str) -> Starlette:
    """The proxy's application.

    Args:
        target: address of the server.
        prefix: the path that stands before the server's own; nothing else is forwarded.
    """
    client = httpx.AsyncClient(base_url=target, trust_env=False, timeout=None)

    async def forward(request: Request) -> Response:
        path = httpx.URL(path="/" + request.path_params["rest"], query=request.url.query.encode())
        asked = client.build_request(
            request.method, path, headers=request.headers.raw, content=await request.body()
        )
        reply = await client.send(asked, stream=True)
        headers = {name: value for name, value in reply.headers.items() if name not in _HOP_BY_HOP}
        response = StreamingResponse(
            reply.aiter_raw(), reply.status_code, background=BackgroundTask(reply.aclose)
        )
        # Several cookies are several headers.
        response.raw_headers = [
            (name, value) for name, value in reply.headers.raw if name.decode().lower() in headers
        ]
        return response

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        yield
        await client.aclose()

    return Starlette(
        routes=[Route(prefix + "/{rest:path}", forward, methods=_METHODS)], lifespan=lifespan
    )
