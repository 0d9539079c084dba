"""The error tree: each kind's status and code, and the body that OpenAI's clients expect."""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx
import openai
import pytest

from controller.protocol import errors
from controller.protocol.errors import ParagoneError, QueueFullError


def tree(kind: type[ParagoneError] = ParagoneError) -> Iterator[type[ParagoneError]]:
    for child in kind.__subclasses__():
        yield child
        yield from tree(child)


# Lines such as "├── NotFoundError            404   not_found".
DRAWN = dict(re.findall(r"── (\w+) +(\d{3})", errors.__doc__ or ""))


def test_the_drawn_tree_is_the_real_one() -> None:
    assert {kind.__name__: str(kind.status) for kind in tree()} == DRAWN


@pytest.mark.parametrize("kind", list(tree()))
def test_an_errors_body_has_openais_four_fields(kind: type[ParagoneError]) -> None:
    body = kind("what happened", param="model").body().model_dump()
    assert body == {
        "error": {
            "message": "what happened",
            "type": kind.type,
            "param": "model",
            "code": kind.code,
        }
    }


@pytest.mark.parametrize("kind", list(tree()))
def test_an_errors_kind_fits_its_status(kind: type[ParagoneError]) -> None:
    assert 400 <= kind.status < 600
    assert (kind.type == "server_error") == (kind.status in {500, 502, 508})


@pytest.mark.parametrize(
    ("seconds", "header"), [(None, None), (0.0, "1"), (0.2, "1"), (2.0, "2"), (2.1, "3")]
)
def test_retry_after_is_in_whole_seconds_and_never_too_soon(
    seconds: float | None, header: str | None
) -> None:
    error = QueueFullError("full", retry_after_seconds=seconds)
    assert error.headers().get("retry-after") == header


@pytest.mark.parametrize(
    ("kind", "raised"),
    [
        (errors.BadImageError, openai.BadRequestError),
        (errors.AuthenticationError, openai.AuthenticationError),
        (errors.PermissionDeniedError, openai.PermissionDeniedError),
        (errors.ModelNotFoundError, openai.NotFoundError),
        (errors.QueueFullError, openai.RateLimitError),
        (errors.ModelLoadingError, openai.InternalServerError),
    ],
)
def test_the_openai_client_raises_its_own_kind(
    kind: type[ParagoneError], raised: type[openai.APIStatusError]
) -> None:
    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(kind.status, json=kind("what happened").body().model_dump())

    with (
        httpx.Client(transport=httpx.MockTransport(answer)) as http,
        openai.OpenAI(
            base_url="http://test/v1", api_key="x", max_retries=0, http_client=http
        ) as client,
        pytest.raises(raised) as caught,
    ):
        client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}])
    assert caught.value.code == kind.code
    assert "what happened" in caught.value.message
