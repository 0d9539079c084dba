"""Streams are cut where events end, whatever pieces they arrive in, and nothing is changed."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.framing import MAX_EVENT_BYTES, EventFramer, EventTooLongError
from controller.protocol import sse
from controller.protocol.errors import WorkerLostError

EVENTS = st.lists(
    st.sampled_from([b'data: {"a": 1}', b"data: x\ndata: y", b": ping", b"event: note\ndata: z"]),
    max_size=6,
)


def pieces_of(stream: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({min(cut, len(stream)) for cut in cuts} | {0, len(stream)})
    return [stream[a:b] for a, b in pairwise(places)]


@given(
    events=EVENTS,
    cuts=st.lists(st.integers(0, 150)),
    newline=st.sampled_from([b"\n", b"\r\n"]),
    tail=st.sampled_from([b"", b"data: half", b"data: half\n"]),
)
def test_whole_events_pass_unchanged_and_as_soon_as_they_are_whole(
    events: list[bytes], cuts: list[int], newline: bytes, tail: bytes
) -> None:
    end = newline * 2
    whole = b"".join(event.replace(b"\n", newline) + end for event in events)
    framer = EventFramer()
    arrived = passed = b""
    for piece in pieces_of(whole + tail.replace(b"\n", newline), cuts):
        arrived += piece
        passed += framer.feed(piece)
        # Everything up to the last event that has arrived whole has been passed on.
        assert passed == whole[: arrived[: len(whole)].rfind(end) + len(end)] or (
            end not in arrived[: len(whole)] and passed == b""
        )
    assert passed == whole


@pytest.mark.parametrize(
    ("stream", "complete"),
    [
        (b"data: 1\n\ndata: [DONE]\n\n", True),
        (b"data: 1\r\n\r\ndata: [DONE]\r\n\r\n", True),
        (b"data:[DONE]\n\n", True),
        (sse.encode_error(WorkerLostError("gone").body()), True),
        (b"data: 1\n\n", False),
        (b"data: [DONE]\n", True),  # said, though the event was never ended
        (b"data: [DONE]", True),
        (b"data: [DON", False),
        (b"data: [DONE]\n\n" + sse.PING, True),
        (b"data: [DONE]\n\n" + sse.PING * 2, True),
        (b'data: 1\n\ndata: {"error": {"message": "boom", "code": 500}}\n\n', True),  # llama.cpp's
        (b'data: {"id": 1, "error": null}\n\n', False),
        (b"data: [DONE]\n\ndata: 2", False),
        (b'data: "[DONE]"\n\n', False),
        (b"", False),
        (sse.PING, False),
    ],
)
def test_a_stream_is_complete_after_done_or_an_error_alone(stream: bytes, complete: bool) -> None:
    framer = EventFramer()
    for position in range(len(stream)):
        framer.feed(stream[position : position + 1])
    assert framer.is_complete is complete
    at_once = EventFramer()
    at_once.feed(stream)
    assert at_once.is_complete is complete


@pytest.mark.parametrize("stream", [b"data: 1\n\ndata: [DONE]\n", b"data: 1\n\ndata: [DONE]"])
def test_an_end_that_lacks_its_own_end_is_given_one(stream: bytes) -> None:
    framer = EventFramer()
    assert framer.feed(stream) == b"data: 1\n\n"
    assert framer.rest() == sse.DONE


@pytest.mark.parametrize("stream", [b"data: 1\n\n" + sse.DONE, b"data: 1\n\n", b"data: 1\n"])
def test_nothing_is_put_behind_any_other_stream(stream: bytes) -> None:
    framer = EventFramer()
    framer.feed(stream)
    assert framer.rest() == b""


@pytest.mark.parametrize(
    ("events", "comments"),
    [
        (sse.PING, True),
        (sse.PING * 3, True),
        (b": a\r\n\r\n", True),
        (sse.PING + b"data: 1\n\n", False),
        (b"data: 1\n\n" + sse.PING, False),
        (b": a\ndata: 1\n\n", False),
    ],
)
def test_comments_are_told_from_content(events: bytes, comments: bool) -> None:
    assert EventFramer().are_comments(events) is comments


def test_an_event_without_an_end_is_not_held_for_ever() -> None:
    framer = EventFramer()
    framer.feed(b"x" * MAX_EVENT_BYTES)
    with pytest.raises(EventTooLongError):
        framer.feed(b"x")
