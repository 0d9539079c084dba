"""What `paragone up` shows: prefixed log lines, a live board below them, a box of addresses.

Writing is a thread's work: a terminal that was paused with Ctrl-S, or a pager, must not hold up
the supervisor, and through it every process that logs.
"""

from __future__ import annotations

import json
import os
import queue
import threading
import time
from collections.abc import Callable, Sequence

_RESET = "\x1b[0m"
_DIM = "\x1b[2m"
_BOLD_RED = "\x1b[1;31m"
_CLEAR_LINE = "\r\x1b[2K"
# Bright enough on dark and on light grounds; red is for what went wrong.
_COLOURS = ("\x1b[36m", "\x1b[32m", "\x1b[35m", "\x1b[33m", "\x1b[34m", "\x1b[96m", "\x1b[92m")

# Lines that may wait for a terminal; beyond them lines are counted and dropped.
_BACKLOG = 5000

# The supervisor's own name in front of its lines.
SELF = "paragone"


class Console:
    """Prints what processes and supervisor say, from any thread, without ever blocking.

    Args:
        descriptor: file descriptor to write to.
        names: the processes, for colours and alignment.
        live: whether it is a terminal: a board that is drawn anew.
        columns: the terminal's width; the board is cut to it.
        rows: the terminal's height; the board takes half of it at most.
        utf8: whether the other end understands box-drawing characters.
        on_broken: called once, from the writer's thread, when nobody reads any more.
    """

    def __init__(
        self,
        descriptor: int,
        names: Sequence[str],
        *,
        live: bool,
        colour: bool,
        columns: Callable[[], int],
        utf8: bool,
        on_broken: Callable[[], None],
        rows: Callable[[], int] = lambda: 50,
    ) -> None:
        self._descriptor = descriptor
        self._width = max(len(name) for name in (*names, SELF))
        self._live = live
        self._colour = colour
        self._columns = columns
        self._rows = rows
        self._utf8 = utf8
        self._on_broken = on_broken
        self._colours: dict[str, str] = {}
        for name in names:
            self.know(name)
        self._queue: queue.Queue[tuple[str, str] | None] = queue.Queue(_BACKLOG)
        self._count = threading.Lock()
        self._dropped = 0
        self._wanted_status = ""
        self._status = ""  # as it is on the screen now; the writer's own
        self._thread = threading.Thread(target=self._write_all, name="console", daemon=True)
        self._thread.start()

    @property
    def is_live(self) -> bool:
        """Whether somebody sees the board."""
        return self._live

    def know(self, name: str) -> None:
        """A process that has lines from now on."""
        self._width = max(self._width, len(name))
        self._colours.setdefault(name, _COLOURS[len(self._colours) % len(_COLOURS)])

    def line(self, name: str, text: str) -> None:
        """A line of one process."""
        self._put("line", self._in_words(name, text))

    def note(self, text: str) -> None:
        """A line of the supervisor itself."""
        self.line(SELF, text)

    def alarm(self, name: str, text: str) -> None:
        """A line about something that went wrong with a process."""
        self.line(name, f"{_BOLD_RED}{text}{_RESET}" if self._colour else text)

    def status(self, text: str) -> None:
        """Replaces the board, one row or more; empty removes it. Nothing where nobody watches."""
        if self._live and text != self._wanted_status:
            self._wanted_status = text
            self._put("status", text)

    def box(self, lines: Sequence[str]) -> None:
        """A frame around a few lines."""
        corner = "╭─╮│╰╯" if self._utf8 else "+-+|++"
        width = max(len(line) for line in lines)
        rows = [f"{corner[3]}  {line:<{width}}  {corner[3]}" for line in lines]
        bar = corner[1] * (width + 4)
        framed = [
            f"{corner[0]}{bar}{corner[2]}",
            *rows,
            f"{corner[4]}{bar}{corner[5]}",
        ]
        self._put("line", "\n" + "\n".join(framed) + "\n\n")

    def close(self, timeout_seconds: float = 2.0) -> None:
        """Writes what is left, as long as somebody reads it."""
        self.status("")
        try:
            self._queue.put(None, timeout=timeout_seconds)
        except queue.Full:
            return
        self._thread.join(timeout_seconds)

    def _in_words(self, name: str, text: str) -> str:
        return f"{self._prefix(name)} {text}\n"

    def _prefix(self, name: str) -> str:
        padded = f"{name:<{self._width}} |"
        if not self._colour:
            return padded
        return f"{self._colours.get(name, _DIM)}{padded}{_RESET}"

    def _put(self, kind: str, text: str) -> None:
        try:
            self._queue.put_nowait((kind, text))
        except queue.Full:
            with self._count:
                self._dropped += 1

    def _write_all(self) -> None:
        while (item := self._queue.get()) is not None:
            try:
                self._write(self._rendered(item))
            except OSError:
                self._on_broken()
                return

    def _rendered(self, item: tuple[str, str]) -> str:
        kind, text = item
        out = _cleared(self._status)
        if kind == "status":
            # No row may wrap or scroll, or the next redraw would leave parts of it behind.
            width, height = max(0, self._columns() - 1), max(1, self._rows() // 2)
            self._status = "\n".join(row[:width] for row in text.split("\n")[:height])
        else:
            with self._count:
                dropped, self._dropped = self._dropped, 0
            if dropped:
                out += self._in_words(SELF, f"{dropped} lines were not shown: nobody read them")
            out += text
        return out + self._status

    def _write(self, text: str) -> None:
        data = text.encode("utf-8", "replace")
        while data:
            data = data[os.write(self._descriptor, data) :]


class JsonConsole(Console):
    """The same, for programs: one JSON object a line, `time` in seconds since 1970.

    `process` is the name in the fleet file, or `paragone` for the supervisor; `alarm` is there and
    true for what went wrong; the box is `{"event": "summary", "lines": [...]}`.
    """

    def alarm(self, name: str, text: str) -> None:
        """A line about something that went wrong with a process."""
        self._put("line", _as_json(process=name, line=text, alarm=True))

    def box(self, lines: Sequence[str]) -> None:
        """What the box would show."""
        self._put("line", _as_json(event="summary", lines=list(lines)))

    def _in_words(self, name: str, text: str) -> str:
        return _as_json(process=name, line=text)


def _as_json(**fields: object) -> str:
    return json.dumps({"time": round(time.time(), 3), **fields}, ensure_ascii=False) + "\n"


def _cleared(status: str) -> str:
    if not status:
        return ""
    above = status.count("\n")
    return f"\r\x1b[{above}A\x1b[J" if above else _CLEAR_LINE
