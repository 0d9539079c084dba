"""Messages between processes: frozen, tolerant of newer peers, strict where it matters."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from controller.protocol.chat import ChatCompletionRequest, ImagePart, TextPart
from controller.protocol.fleet import RegisterRequest, WorkerLoad

REGISTRATION = {
    "worker_id": "w1",
    "address": "http://host:21002",
    "heartbeat_seconds": 1.0,
    "version": "1",
    "status": {"state": "ready", "models": [{"name": "demo"}]},
}


def test_a_newer_peers_unknown_fields_are_dropped() -> None:
    message = RegisterRequest.model_validate({**REGISTRATION, "novelty": {"a": 1}})
    assert "novelty" not in message.model_dump()


def test_a_message_cannot_be_changed() -> None:
    message = RegisterRequest.model_validate(REGISTRATION)
    with pytest.raises(ValidationError, match="frozen"):
        message.worker_id = "w2"  # type: ignore[misc]  # that it is refused is the point


def test_a_message_survives_the_wire() -> None:
    message = RegisterRequest.model_validate(REGISTRATION)
    assert RegisterRequest.model_validate_json(message.model_dump_json()) == message


@pytest.mark.parametrize("worker_id", ["", "a b", "a\nb", "x" * 129, "é"])
def test_a_worker_id_fits_into_a_header(worker_id: str) -> None:
    with pytest.raises(ValidationError, match="worker_id"):
        RegisterRequest.model_validate({**REGISTRATION, "worker_id": worker_id})


@pytest.mark.parametrize("address", ["host:1", "file:///etc/passwd", "http://", "http:// x"])
def test_an_address_is_an_http_url(address: str) -> None:
    with pytest.raises(ValidationError, match="address"):
        RegisterRequest.model_validate({**REGISTRATION, "address": address})


@pytest.mark.parametrize("speed", [-1.0, float("inf"), float("nan")])
def test_a_speed_can_be_divided_by(speed: float) -> None:
    with pytest.raises(ValidationError):
        WorkerLoad(tokens_per_second=speed)


def test_content_is_text_or_parts_in_order() -> None:
    request = ChatCompletionRequest.model_validate(
        {
            "model": "demo",
            "messages": [
                {"role": "system", "content": "Be brief."},
                {
                    "role": "user",
                    "content": [
                        {"type": "image_url", "image_url": {"url": "data:x"}},
                        {"type": "text", "text": "What is it?"},
                    ],
                },
            ],
        }
    )
    assert request.messages[0].content == "Be brief."
    parts = request.messages[1].content
    assert isinstance(parts, list)
    assert [type(part) for part in parts] == [ImagePart, TextPart]


def test_either_name_of_the_limit_counts_and_the_newer_one_wins() -> None:
    base = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    assert ChatCompletionRequest.model_validate(base).token_limit is None
    assert ChatCompletionRequest.model_validate({**base, "max_tokens": 5}).token_limit == 5
    both = {**base, "max_tokens": 5, "max_completion_tokens": 7}
    assert ChatCompletionRequest.model_validate(both).token_limit == 7


@pytest.mark.parametrize(("stop", "strings"), [(None, ()), ("a", ("a",)), (["a", "b"], ("a", "b"))])
def test_stop_strings_come_in_three_spellings(
    stop: str | list[str] | None, strings: tuple[str, ...]
) -> None:
    request = ChatCompletionRequest.model_validate(
        {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stop": stop}
    )
    assert request.stop_strings == strings


def test_usage_is_streamed_only_when_asked_for() -> None:
    base = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    assert not ChatCompletionRequest.model_validate(base).wants_usage
    asked = {**base, "stream_options": {"include_usage": True}}
    assert ChatCompletionRequest.model_validate(asked).wants_usage
