"""Reads and checks the body of a chat request, with errors that name the field."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from fastapi import Request
from pydantic import ValidationError
from pydantic_core import ErrorDetails, from_json

from controller.protocol.errors import (
    BadRequestError,
    PayloadTooLargeError,
    RequestTimeoutError,
)
from controller.protocol.message import Message

_log = logging.getLogger(__name__)

RequestT = TypeVar("RequestT", bound=Message)

# What nginx logs for a client that went away; it never reaches one.
CLIENT_CLOSED_REQUEST = 499
# The kinds of what has a type, by the field that holds it.
_KINDS = {
    "content": ("text", "image_url"),
    "response_format": ("text", "json_object", "json_schema"),
}


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """How large a body may be, and how long it may take to arrive."""

    max_bytes: int = 64 * 1024 * 1024
    seconds: float = 60.0


DEFAULT_BODY_LIMITS = BodyLimits()


async def read_body(request: Request, limits: BodyLimits) -> bytes:
    """The whole body, refused as soon as it is known to be beyond a limit.

    Raises:
        PayloadTooLargeError: it is too large.
        RequestTimeoutError: it does not arrive in time.
        BadRequestError: it is not said to be JSON. A page in a browser may post other types to
            any address without asking.
    """
    if "json" not in request.headers.get("content-type", "").lower():
        raise BadRequestError("The request must have the header Content-Type: application/json")
    too_large = PayloadTooLargeError(
        f"The body is larger than this worker's limit of {limits.max_bytes} bytes; send fewer or "
        f"smaller images, or start the worker with a larger --max-body-bytes"
    )
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limits.max_bytes:
        raise too_large
    pieces, size = [], 0
    try:
        async with asyncio.timeout(limits.seconds):
            async for piece in request.stream():
                size += len(piece)
                if size > limits.max_bytes:
                    raise too_large
                pieces.append(piece)
    except TimeoutError as exc:
        raise RequestTimeoutError(
            f"The body did not arrive within {limits.seconds:g} s; send it faster, or start the "
            f"worker with a larger --body-seconds"
        ) from exc
    return b"".join(pieces)


def parse_request(body: bytes, kind: type[RequestT]) -> RequestT:
    """A request of some kind; unknown fields are ignored and named in the debug log.

    Raises:
        BadRequestError: it is no JSON, or a field is wrong; ``param`` names the field.
    """
    try:
        content = from_json(body)
    except ValueError as exc:
        raise BadRequestError(f"The body is not valid JSON: {exc}") from exc
    if not isinstance(content, dict):
        raise BadRequestError("The body should be a JSON object with model and messages")
    try:
        request = kind.model_validate(content)
    except ValidationError as exc:
        raise _bad_field(exc.errors(include_url=False)) from exc
    unknown = sorted(content.keys() - kind.model_fields.keys())
    if unknown:
        _log.debug("ignored fields: %s", ", ".join(unknown))
    return request


def _bad_field(errors: Sequence[ErrorDetails]) -> BadRequestError:
    """The most telling of the errors: the one that is deepest inside the body."""
    error = max(errors, key=lambda each: len(each["loc"]))
    path = _path(error["loc"])
    if error["type"] in {"union_tag_invalid", "union_tag_not_found"}:
        tag = error.get("ctx", {}).get("tag")
        got = f"type {tag!r}" if tag else "something without a type"
        field = next(each for each in reversed(error["loc"]) if each in _KINDS)
        reason = f"got {got}; this worker takes the types {' and '.join(_KINDS[str(field)])}"
    else:
        reason = error["msg"]
    return BadRequestError(f"{path}: {reason}", param=path)


def _path(loc: Sequence[int | str]) -> str:
    """Where the error is in the body, without the names of the alternatives that were tried."""
    parts: list[str] = []
    holder = ""  # the last field whose values have a type, while its value's kind may come
    for part in loc:
        is_kind_of_union = part == "str" or "[" in str(part)
        is_kind_of_value = part in _KINDS.get(holder, ())
        if not (is_kind_of_union or is_kind_of_value):
            parts.append(str(part))
        if not isinstance(part, int) and not is_kind_of_union:
            holder = "" if is_kind_of_value else str(part)
    return ".".join(parts) or "body"
