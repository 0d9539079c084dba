"""Cuts a stream of bytes into lines of text."""

from __future__ import annotations

# A line longer than this is shown in pieces, so that no process can fill our memory.
MAX_LINE_BYTES = 16_384


class LineSplitter:
    """Cuts what a process writes into lines, whatever the pieces in which it arrives.

    A progress bar that redraws itself with carriage returns counts as one line: its last state.
    """

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[str]:
        """The lines that ``data`` completes."""
        *lines, rest = (self._rest + data).split(b"\n")
        *begun, self._rest = _pieces(rest)
        complete = [piece for line in lines for piece in _pieces(line)]
        return [_decode(line) for line in (*complete, *begun)]

    def flush(self) -> list[str]:
        """The last line, if it has no end."""
        rest, self._rest = self._rest, b""
        return [_decode(rest)] if rest else []


def _pieces(line: bytes) -> list[bytes]:
    """The line in pieces of the greatest length; an empty line is one empty piece."""
    starts = range(0, max(len(line), 1), MAX_LINE_BYTES)
    return [line[start : start + MAX_LINE_BYTES] for start in starts]


def _decode(line: bytes) -> str:
    shown = line.rstrip(b"\r").rsplit(b"\r", 1)[-1]
    return shown.decode("utf-8", "replace")
