"""Reads what went wrong off the body of an answer, whoever gave it.

Servers that speak OpenAI's API speak it less exactly where something fails: llama.cpp's codes are
numbers, Ollama's error is a text, FastAPI's a `detail`, older vLLMs leave out the outer object.
"""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json

from controller.protocol.errors import ErrorBody, ErrorDetail

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


def error_of_body(body: str | bytes, status: int) -> ErrorDetail | None:
    """What a body says went wrong; None where it explains nothing.

    Args:
        body: of an answer, or the data of an event.
        status: the answer's, for the type where the body names none.
    """
    try:
        return ErrorBody.model_validate_json(body).error
    except ValidationError:
        pass
    try:
        said = from_json(body)
    except ValueError:
        return None
    error = said.get("error", said) if isinstance(said, dict) else None
    if isinstance(error, str):
        error = {"message": error}
    if not isinstance(error, dict):
        return None
    message = _message(error)
    if message is None:
        return None
    code = error.get("code")
    return ErrorDetail(
        message=message,
        type=_text(error.get("type")) or type_of_status(status),
        param=_text(error.get("param")),
        code=str(code) if isinstance(code, str | int) else None,
    )


def type_of_status(status: int) -> str:
    """What OpenAI calls the errors of a status."""
    return _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")


def _message(error: dict[str, Any]) -> str | None:
    detail = error.get("message") or error.get("detail")
    if isinstance(detail, list) and detail and isinstance(detail[0], dict):  # FastAPI's 422
        where = ".".join(str(part) for part in detail[0].get("loc") or () if part != "body")
        what = _text(detail[0].get("msg"))
        return f"{where}: {what}" if where and what else what
    return _text(detail)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
