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

from controller.protocol.chat import ChatCompletionRequest
from controller.protocol.errors import (
    BadRequestError,
    PayloadTooLargeError,
    RequestTimeoutError,
    UnsupportedError,
)
from controller.protocol.message import Message

_log = logging.getLogger(__name__)

RequestT = TypeVar("RequestT", bound=Message)

# OpenAI takes four; each is looked for after every token.
MAX_STOP_STRINGS = 16
_PART_KINDS = ("text", "image_url")


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


def parse_chat_request(body: bytes) -> ChatCompletionRequest:
    """The request, checked.

    Raises:
        BadRequestError: see `parse_request`.
        UnsupportedError: it is valid, and nothing that this worker can do.
    """
    chat = parse_request(body, ChatCompletionRequest)
    if chat.n > 1:
        raise UnsupportedError(
            "n: this worker gives one answer a request; send the request n times", param="n"
        )
    if len(chat.stop_strings) > MAX_STOP_STRINGS:
        raise BadRequestError(f"stop: at most {MAX_STOP_STRINGS} strings", param="stop")
    return chat


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
        got = f"a part of type {tag!r}" if tag else "a part without a type"
        reason = f"{got}; this worker takes parts of type {' and '.join(_PART_KINDS)}"
    else:
        reason = error["msg"]
    return BadRequestError(f"{path}: {reason}", param=path)


def _path(loc: Sequence[int | str]) -> str:
    """Where the error is in the body, without the names of the alternatives that were tried."""
    parts: list[str] = []
    for before, part in zip(("", *loc), loc, strict=False):
        is_kind_of_union = part == "str" or "[" in str(part)
        is_kind_of_part = isinstance(before, int) and part in _PART_KINDS
        if not (is_kind_of_union or is_kind_of_part):
            parts.append(str(part))
    return ".".join(parts) or "body"
