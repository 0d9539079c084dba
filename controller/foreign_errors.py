"""Errors of servers that are not ours, in the shape that clients of OpenAI's API read."""

from __future__ import annotations

from pydantic import ValidationError

from controller.protocol.error_bodies import error_of_body, type_of_status
from controller.protocol.errors import ErrorBody, ErrorDetail
from controller.upstream import Headers

MAX_QUOTED_CHARACTERS = 200


def in_openais_shape(status: int, headers: Headers, body: bytes) -> tuple[Headers, bytes]:
    """Headers and body of an error; those that have the shape already stay as they came.

    Args:
        status: 400 or above.
        headers: what came.
        body: likewise.
    """
    try:
        ErrorBody.model_validate_json(body)
    except ValidationError:
        pass
    else:
        return headers, body
    detail = error_of_body(body, status) or ErrorDetail(
        message=f"The model's server answered {status} without an explanation: "
        f"{body.decode(errors='replace').strip()[:MAX_QUOTED_CHARACTERS] or 'an empty body'}",
        type=type_of_status(status),
    )
    kept = [(name, value) for name, value in headers if not name.startswith(b"content-")]
    shaped = ErrorBody(error=detail).model_dump_json().encode()
    return [*kept, (b"content-type", b"application/json")], shaped
