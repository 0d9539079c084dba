"""Where the events of a stream begin and end, found without decoding them.

A relayed stream is cut at the ends of events only, so that a worker lost inside one leaves nothing
half-said. Workers write whole events, so nearly every piece passes as it came.
"""

from __future__ import annotations

from typing import Protocol

MAX_EVENT_BYTES = 1024 * 1024
_DONE = (b"data: [DONE]", b"data:[DONE]")
# Ours has a name, other servers' are known by their data.
_ERRORS = (b"event: error", b"event:error", b'data: {"error"', b'data:{"error"')


class EventTooLongError(Exception):
    """An event does not end within `MAX_EVENT_BYTES`."""


class Framer(Protocol):
    """Cuts a worker's stream where the client may be left."""

    def feed(self, piece: bytes) -> bytes:
        """What may be passed on now; empty where nothing has become whole.

        Raises:
            EventTooLongError: something has no end in sight.
        """

    @property
    def is_complete(self) -> bool:
        """Whether the stream may end here."""

    @property
    def has_enough(self) -> bool:
        """Whether the rest of the stream need not be read."""

    def are_comments(self, events: bytes) -> bool:
        """Whether what `feed` returned says nothing of the answer itself."""

    def rest(self) -> bytes:
        """What is still to be passed on once the stream has ended and is complete."""


class EventFramer:
    """Turns pieces of a stream into pieces that end where an event ends."""

    has_enough = False

    def __init__(self) -> None:
        self._held = b""  # the beginning of an event that has not arrived whole
        self._last = b""  # the whole events passed on last, comments left out

    def feed(self, piece: bytes) -> bytes:
        """The whole events that ``piece`` completes, as they came; empty if it completes none.

        Raises:
            EventTooLongError: an event has no end in sight.
        """
        if self._held:
            piece = self._held + piece
        end = _end_of_last_event(piece)
        self._held = piece[end:]
        if len(self._held) > MAX_EVENT_BYTES:
            raise EventTooLongError
        if not end:
            return b""
        events = piece[:end] if self._held else piece
        if not self.are_comments(events):
            self._last = events
        return events

    @property
    def is_complete(self) -> bool:
        """Whether the stream may end here: with ``[DONE]``, or with an error in its place."""
        if self._held:
            return self._ends_too_early
        events = self._last.replace(b"\r\n", b"\n").rstrip().split(b"\n\n")
        while len(events) > 1 and self.are_comments(events[-1]):
            events.pop()
        last = events[-1].strip()
        return last in _DONE or last.startswith(_ERRORS)

    @property
    def _ends_too_early(self) -> bool:
        """Whether the last event lacks nothing but the empty line that ends it."""
        return self._held.strip() in _DONE

    def rest(self) -> bytes:
        """The end of a stream whose last event was never ended."""
        return _DONE[0] + b"\n\n" if self._held and self._ends_too_early else b""

    def are_comments(self, events: bytes) -> bool:
        """Whether whole events are nothing but comments, such as ``: ping``."""
        return events.startswith(b":") and all(
            not line or line.startswith(b":") for line in events.splitlines()
        )


def _end_of_last_event(piece: bytes) -> int:
    """Where the last whole event ends; 0 if none does. Events end in an empty line."""
    if piece.endswith(b"\n\n"):
        return len(piece)
    unix, dos = piece.rfind(b"\n\n"), piece.rfind(b"\r\n\r\n")
    return max(unix + 2 if unix >= 0 else 0, dos + 4 if dos >= 0 else 0)
