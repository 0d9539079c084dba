"""What each of our HTTP servers does alike: request ids, errors in OpenAI's shape, health."""

from __future__ import annotations

import logging
import random
import re
from collections.abc import Awaitable, Callable
from importlib.metadata import PackageNotFoundError, version

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from controller.chassis.logs import request_id
from controller.protocol.errors import (
    BadRequestError,
    ErrorBody,
    ErrorDetail,
    InternalError,
    ParagoneError,
)
from controller.protocol.fleet import LoadProgress

_log = logging.getLogger(__name__)

_ID_HEADER = b"x-request-id"
_ids = random.Random()  # noqa: S311  # ids tell requests apart and guard nothing
# A client's own id is kept if it cannot break a header or a log line.
_SANE_ID = re.compile(r"^[A-Za-z0-9_.:\-]{1,128}$")


def package_version() -> str:
    """The installed version of Paragone."""
    try:
        return version("paragone")
    except PackageNotFoundError:  # run from a checkout that was never installed
        return "0+checkout"


class RequestIdMiddleware:
    """Gives each request an id, on its log lines and in the ``x-request-id`` header."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Raw ASGI, so that streams pass through untouched."""
        if scope["type"] != "http":
            return self._app(scope, receive, send)
        asked = b""
        for name, value in scope["headers"]:
            if name == _ID_HEADER:
                asked = value
        current = asked.decode("latin-1")
        if not asked or not _SANE_ID.match(current):
            current = f"req-{_ids.getrandbits(128):032x}"
        scope.setdefault("state", {})["request_id"] = current

        def send_with_id(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                headers = message.get("headers", ())
                for name, _ in headers:
                    if name == _ID_HEADER:
                        break
                else:
                    message["headers"] = [*headers, (_ID_HEADER, current.encode("latin-1"))]
            return send(message)

        # The server gives each request a task, and a task has its own context: nothing to reset.
        request_id.set(current)
        return self._app(scope, receive, send_with_id)


def error_response(error: ParagoneError) -> JSONResponse:
    """An error as the whole response."""
    return JSONResponse(
        error.body().model_dump(), status_code=error.status, headers=error.headers()
    )


def validation_error(exc: RequestValidationError) -> BadRequestError:
    """Which field is wrong and why, as a 400 (OpenAI's clients know no 422)."""
    first = exc.errors()[0]
    path = [str(part) for part in first["loc"] if part != "body"]
    if first["type"] == "json_invalid":
        reason = first.get("ctx", {}).get("error", "")
        return BadRequestError(f"The body is not valid JSON: {reason}")
    field = ".".join(path)
    return BadRequestError(f"{field or 'body'}: {first['msg']}", param=field or None)


def _meant(request: Request) -> str | None:
    """The path that was likely meant: one slash less, or a base address with or without /v1."""
    path = request.url.path
    bare = "/" + path.strip("/")
    for meant in (bare, "/v1" + bare, bare.removeprefix("/v1")):
        scope = {**request.scope, "path": meant}
        if meant != path and any(r.matches(scope)[0] is not Match.NONE for r in request.app.routes):
            return meant
    return None


def install_errors(app: FastAPI) -> None:
    """Renders every failure of a route in OpenAI's error shape, unknown routes included."""

    async def on_paragone_error(_request: Request, exc: Exception) -> Response:
        if not isinstance(exc, ParagoneError):
            raise exc
        return error_response(exc)

    async def on_validation_error(_request: Request, exc: Exception) -> Response:
        if not isinstance(exc, RequestValidationError):
            raise exc
        return error_response(validation_error(exc))

    async def on_http_exception(request: Request, exc: Exception) -> Response:
        if not isinstance(exc, HTTPException):
            raise exc
        message = exc.detail
        if exc.status_code == 404:
            meant = _meant(request)
            hint = f"did you mean {meant}?" if meant else "see /openapi.json"
            message = f"There is no {request.method} {request.url.path} here; {hint}"
        elif exc.status_code == 405:
            message = f"{request.url.path} does not take {request.method}"
        code = {404: "not_found", 405: "method_not_allowed"}.get(exc.status_code)
        detail = ErrorDetail(message=message, type="invalid_request_error", code=code)
        return JSONResponse(
            ErrorBody(error=detail).model_dump(), status_code=exc.status_code, headers=exc.headers
        )

    async def on_anything_else(request: Request, exc: Exception) -> Response:
        current = request.scope.get("state", {}).get("request_id", "unknown")
        _log.error("%s %s failed", request.method, request.url.path, exc_info=exc)
        response = error_response(
            InternalError(
                f"{type(exc).__name__} while answering {request.url.path}; the log of this "
                f"process has the cause under request id {current}"
            )
        )
        # The server closes the connection; a client that is not told would send its next request.
        response.headers["connection"] = "close"
        return response

    app.add_exception_handler(ParagoneError, on_paragone_error)
    app.add_exception_handler(RequestValidationError, on_validation_error)
    app.add_exception_handler(HTTPException, on_http_exception)
    app.add_exception_handler(Exception, on_anything_else)


def install_health(
    app: FastAPI,
    *,
    not_ready_reason: Callable[[], str | None],
    progress: Callable[[], LoadProgress | None] = lambda: None,
) -> None:
    """Adds ``/health`` (alive), ``/ready`` (can serve, or 503 and why not) and ``/version``.

    Args:
        app: the application.
        not_ready_reason: cheap and without I/O; None when ready.
        progress: how far it is on its way to being ready, where that is known.
    """

    @app.get("/health", tags=["health"])
    async def health() -> dict[str, str]:
        """Alive. Always cheap."""
        return {"status": "ok"}

    @app.get("/ready", tags=["health"])
    async def ready() -> Response:
        """Whether requests would be served now."""
        reason = not_ready_reason()
        if reason is None:
            return JSONResponse({"status": "ready"})
        content: dict[str, object] = {"status": "not ready", "reason": reason}
        loading = progress()
        if loading is not None:
            content["progress"] = loading.model_dump(mode="json", exclude_none=True)
        return JSONResponse(content, status_code=503)

    @app.get("/version", tags=["health"])
    async def show_version() -> dict[str, str]:
        """The version of this process."""
        return {"version": package_version()}
