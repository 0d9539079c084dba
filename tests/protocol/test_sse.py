"""Server-sent events, in whatever pieces they arrive."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.protocol import sse
from controller.protocol.chat import ChatCompletionChunk, ChunkChoice, Delta
from controller.protocol.errors import WorkerLostError
from controller.protocol.sse import Decoder, Event


def decode(*pieces: bytes) -> list[Event]:
    decoder = Decoder()
    return [event for piece in pieces for event in decoder.feed(piece)]


def chunk(text: str) -> ChatCompletionChunk:
    choice = ChunkChoice(delta=Delta(content=text))
    return ChatCompletionChunk(id="c", created=1, model="m", choices=[choice])


# A line of data may hold anything but the ends of lines.
LINES = st.text(st.characters(blacklist_characters="\r\n", blacklist_categories=["Cs"]))
EVENTS = st.lists(
    st.builds(
        Event,
        event=st.sampled_from(["", "error", "note"]),
        data=st.lists(LINES, min_size=1, max_size=3).map("\n".join),
    ),
    max_size=5,
)
NEWLINES = st.sampled_from(["\n", "\r\n", "\r"])


@given(events=EVENTS, newline=NEWLINES, cuts=st.lists(st.integers(0, 400)), comment=LINES)
def test_events_are_the_same_in_whatever_pieces_they_arrive(
    events: list[Event], newline: str, cuts: list[int], comment: str
) -> None:
    lines: list[str] = [f": {comment}", ""]
    for event in events:
        if event.event:
            lines.append(f"event: {event.event}")
        lines += [f"data: {line}" for line in event.data.split("\n")]
        lines.append("")
    # What follows the last \r could be the other half of \r\n, so a comment ends the stream.
    stream = newline.join([*lines, ": end", ""]).encode()
    places = sorted({min(cut, len(stream)) for cut in cuts} | {0, len(stream)})
    pieces = [stream[a:b] for a, b in pairwise(places)]
    assert decode(*pieces) == events


@given(st.text())
def test_an_encoded_message_decodes_to_itself(text: str) -> None:
    (event,) = decode(sse.encode(chunk(text)))
    assert event.event == ""
    assert ChatCompletionChunk.model_validate_json(event.data) == chunk(text)


def test_absent_fields_are_left_out() -> None:
    (event,) = decode(sse.encode(chunk("hi")))
    assert json.loads(event.data)["choices"] == [{"index": 0, "delta": {"content": "hi"}}]


def test_an_error_is_an_event_of_its_own_kind() -> None:
    (event,) = decode(sse.encode_error(WorkerLostError("gone").body()))
    assert event.event == "error"
    assert json.loads(event.data)["error"]["code"] == "worker_lost"


def test_the_kind_of_one_event_does_not_leak_into_the_next() -> None:
    events = decode(b"event: error\ndata: 1\n\ndata: 2\n\nevent: error\n\ndata: 3\n\n")
    assert events == [Event("error", "1"), Event("", "2"), Event("", "3")]


def test_pings_are_not_events() -> None:
    assert decode(sse.PING, sse.PING, sse.DONE) == [Event("", "[DONE]")]


def test_an_event_without_its_empty_line_is_not_over() -> None:
    assert decode(b"data: half\n") == []


def test_one_space_after_the_colon_is_not_data() -> None:
    assert decode(b"data:  a\n\ndata:b\n\n") == [Event("", " a"), Event("", "b")]


def test_a_character_cut_in_two_is_put_together() -> None:
    stream = "data: é\n\n".encode()
    assert decode(*(stream[i : i + 1] for i in range(len(stream)))) == [Event("", "é")]


@pytest.mark.parametrize("field", [b"id: 7", b"retry: 10", b"unknown", b"data2: x"])
def test_other_fields_are_passed_over(field: bytes) -> None:
    assert decode(field + b"\ndata: a\n\n") == [Event("", "a")]
