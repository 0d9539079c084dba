"""Errors of servers that speak OpenAI's API less exactly where something fails."""

from __future__ import annotations

import pytest

from controller.protocol.error_bodies import error_of_body
from controller.protocol.errors import BadImageError, ErrorDetail


def test_our_own_error_is_read_whole() -> None:
    error = BadImageError("image 1 is not an image", param="messages.0")
    assert error_of_body(error.body().model_dump_json(), 400) == error.body().error


@pytest.mark.parametrize(
    ("body", "status", "expected"),
    [
        (
            '{"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}',
            503,
            ErrorDetail(message="Loading model", type="unavailable_error", code="503"),
        ),
        (
            '{"error": "model \'x\' not found"}',
            404,
            ErrorDetail(message="model 'x' not found", type="invalid_request_error"),
        ),
        (
            '{"detail": [{"loc": ["body", "messages", 0], "msg": "Field required"}]}',
            422,
            ErrorDetail(message="messages.0: Field required", type="invalid_request_error"),
        ),
        (
            '{"object": "error", "message": "too long", "type": "BadRequestError", "code": 400}',
            400,
            ErrorDetail(message="too long", type="BadRequestError", code="400"),
        ),
        ('{"detail": "Busy"}', 429, ErrorDetail(message="Busy", type="rate_limit_error")),
        ('{"error": "boom"}', 500, ErrorDetail(message="boom", type="server_error")),
    ],
)
def test_other_servers_errors_are_understood(body: str, status: int, expected: ErrorDetail) -> None:
    assert error_of_body(body, status) == expected


@pytest.mark.parametrize(
    "body",
    ["", "<html>", "[]", "null", "{}", '{"error": null}', '{"error": {}}', '{"detail": [1]}'],
)
def test_what_explains_nothing_is_no_error_that_can_be_told(body: str) -> None:
    assert error_of_body(body, 500) is None
