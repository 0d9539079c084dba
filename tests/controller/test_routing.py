"""What is read from a request body, and what is left alone."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.protocol.errors import BadRequestError
from controller.routing import DEFAULT_ANSWER_TOKENS, MOST_COMMAS, RoutingHints, routing_hints


def hints(*contents: Any, **more: Any) -> RoutingHints:
    messages = [{"role": "user", "content": content} for content in contents]
    return routing_hints(json.dumps({"model": "demo", "messages": messages, **more}).encode())


def image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
SHAPED = st.fixed_dictionaries(
    {"model": st.text(min_size=1)},
    optional={
        "messages": JSON
        | st.lists(
            st.fixed_dictionaries(
                {
                    "role": JSON,
                    "content": JSON
                    | st.lists(
                        st.fixed_dictionaries(
                            {"type": JSON}, optional={"image_url": JSON, "text": JSON}
                        )
                    ),
                }
            )
        ),
        "max_tokens": JSON,
        "max_completion_tokens": JSON,
    },
)


@given(SHAPED)
def test_a_body_that_names_a_model_is_routed_whatever_else_it_holds(body: dict[str, Any]) -> None:
    found = routing_hints(json.dumps(body).encode())
    assert found.model == body["model"]
    assert found.tokens >= 1


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_other_body_is_a_bad_request_and_nothing_else(body: bytes) -> None:
    with suppress(BadRequestError):
        assert routing_hints(body).model


def test_the_cost_follows_the_answers_limit() -> None:
    assert hints("hi").tokens == DEFAULT_ANSWER_TOKENS
    assert hints("hi", max_tokens=20).tokens == 20
    assert hints("hi", max_tokens=20, max_completion_tokens=30).tokens == 30


def test_prompts_and_images_cost_something() -> None:
    assert hints("x" * 4000).tokens == DEFAULT_ANSWER_TOKENS + 100
    assert hints([image("data:x"), image("data:y")]).tokens > hints([image("data:x")]).tokens


def test_questions_about_the_same_image_share_a_key() -> None:
    first = hints([image("data:a"), {"type": "text", "text": "what?"}])
    second = hints([{"type": "text", "text": "how many?"}, image("data:a")])
    other = hints([image("data:b"), {"type": "text", "text": "what?"}])
    assert first.affinity_key == second.affinity_key != other.affinity_key


def test_images_that_differ_at_their_end_alone_have_different_keys() -> None:
    head = "data:image/png;base64," + "A" * 100_000
    assert hints([image(head + "B")]).affinity_key != hints([image(head + "C")]).affinity_key


def test_the_turns_of_a_conversation_share_a_key_and_strangers_do_not() -> None:
    system = {"role": "system", "content": "You are helpful."}

    def keyed(*turns: str) -> bytes | None:
        messages = [system, *({"role": "user", "content": turn} for turn in turns)]
        return routing_hints(
            json.dumps({"model": "demo", "messages": messages}).encode()
        ).affinity_key

    assert keyed("hello") == keyed("hello", "and then?")
    assert keyed("hello") != keyed("good day")


def test_a_request_without_content_has_no_key() -> None:
    assert routing_hints(b'{"model": "demo"}').affinity_key is None


@pytest.mark.parametrize("body", [b"\xff", b'{"model": "x"', b'{"model": "\\ud800"}'])
def test_broken_json_is_named_as_such(body: bytes) -> None:
    with pytest.raises(BadRequestError, match="not valid JSON"):
        routing_hints(body)


def test_a_stream_its_deadline_and_the_text_that_it_echoes_are_read() -> None:
    assert hints("x", stream=True, timeout=2).stream
    assert hints("x", timeout=2).timeout_seconds == 2
    for odd in (0, -1, "2", None, 1e300, [2]):
        assert hints("x", timeout=odd).timeout_seconds is None
    legacy = {"model": "m", "prompt": "USER: x", "images": ["QUJD"]}
    assert routing_hints(json.dumps(legacy).encode()).beginning == "USER: x"
    quiet = routing_hints(json.dumps({**legacy, "echo": False}).encode())
    assert quiet.beginning == ""
    assert quiet.affinity_key is not None


def test_a_limit_that_means_as_many_as_fit_costs_no_million_tokens() -> None:
    assert hints("x", max_tokens=1_048_576).tokens < 10_000


@pytest.mark.parametrize("value", [b"[],", b"{},", b"1,", b'"",'])
def test_a_body_of_millions_of_values_is_refused_before_they_are_read(value: bytes) -> None:
    body = b'{"model":"demo","messages":[' + value * MOST_COMMAS + value.rstrip(b",") + b",1]}"
    with pytest.raises(BadRequestError, match="arrays or objects"):
        routing_hints(body)


def test_a_large_image_and_a_long_prompt_of_tokens_are_read() -> None:
    image = {"type": "image_url", "image_url": {"url": "A" * 5_000_000}}
    body = {"model": "demo", "messages": [{"role": "user", "content": [image]}]}
    assert routing_hints(json.dumps(body).encode()).model == "demo"
    tokens = {"model": "demo", "prompt": [list(range(100_000))] * 2}
    assert routing_hints(json.dumps(tokens).encode()).model == "demo"
