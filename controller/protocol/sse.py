"""Server-sent events: writing them, and reading them from bytes that arrive in any pieces.

Source of the format: the HTML standard, section "Server-sent events".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from controller.protocol.errors import ErrorBody
from controller.protocol.message import Message

_DONE_DATA = "[DONE]"
DONE = f"data: {_DONE_DATA}\n\n".encode()
PING = b": ping\n\n"  # a comment: keeps proxies and clients from giving up while we think
MEDIA_TYPE = "text/event-stream"


@dataclass(frozen=True, slots=True)
class Event:
    """One event; ``event`` is the empty string where the stream named none."""

    event: str
    data: str

    @property
    def is_error(self) -> bool:
        """Whether the answer ends here with an error, whose body is the data."""
        # Servers that are not ours name no event.
        return self.event == "error" or self.data.startswith('{"error"')

    @property
    def is_done(self) -> bool:
        """Whether the answer ends here, and is whole."""
        return self.data == _DONE_DATA


def encode(message: Message) -> bytes:
    """A message as one event; absent optional fields are left out."""
    return b"data: " + message.model_dump_json(exclude_none=True).encode() + b"\n\n"


def encode_error(body: ErrorBody) -> bytes:
    """An error as the last event of a stream that had already begun; no ``[DONE]`` follows it."""
    return b"event: error\ndata: " + body.model_dump_json().encode() + b"\n\n"


class Decoder:
    """Turns pieces of a byte stream into events. Comments are dropped."""

    def __init__(self) -> None:
        self._tail = b""
        self._event = ""
        self._data: list[str] = []

    def feed(self, piece: bytes) -> Iterator[Event]:
        """Events that ``piece`` completes."""
        # A lone \r at the end may be half of \r\n, so it waits with the rest of its line.
        buffer = self._tail + piece
        held = b""
        if buffer.endswith(b"\r"):
            buffer, held = buffer[:-1], b"\r"
        lines = buffer.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        self._tail = lines.pop() + held
        for line in lines:
            event = self._line(line.decode("utf-8", errors="replace"))
            if event is not None:
                yield event

    def _line(self, line: str) -> Event | None:
        if not line:
            if not self._data:
                self._event = ""
                return None
            event = Event(self._event, "\n".join(self._data))
            self._event, self._data = "", []
            return event
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            self._data.append(value)
        elif field == "event":
            self._event = value
        return None
