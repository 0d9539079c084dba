"""What `paragone up` shows: prefixed log lines, one live status line, the box with the addresses.

Writing is a thread's work: a terminal that was paused with Ctrl-S, or a pager, must not hold up
the supervisor, and through it every process that logs.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Mapping, Sequence

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
        live: whether it is a terminal: colours, and a status line that is drawn anew.
        columns: the terminal's width; the status line is cut to it.
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
    ) -> None:
        self._descriptor = descriptor
        self._width = max(len(name) for name in (*names, SELF))
        self._live = live
        self._colour = colour
        self._columns = columns
        self._utf8 = utf8
        self._on_broken = on_broken
        self._colours: Mapping[str, str] = {
            name: _COLOURS[index % len(_COLOURS)] for index, name in enumerate(names)
        }
        self._queue: queue.Queue[tuple[str, str] | None] = queue.Queue(_BACKLOG)
        self._count = threading.Lock()
        self._dropped = 0
        self._wanted_status = ""
        self._status = ""  # as it is on the screen now; the writer's own
        self._thread = threading.Thread(target=self._write_all, name="console", daemon=True)
        self._thread.start()

    def line(self, name: str, text: str) -> None:
        """A line of one process."""
        self._put("line", f"{self._prefix(name)} {text}\n")

    def note(self, text: str) -> None:
        """A line of the supervisor itself."""
        self.line(SELF, text)

    def alarm(self, name: str, text: str) -> None:
        """A line about something that went wrong with a process."""
        self.line(name, f"{_BOLD_RED}{text}{_RESET}" if self._colour else text)

    def status(self, text: str) -> None:
        """Replaces the status line; empty removes it. Nothing where nobody watches."""
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
        out = _CLEAR_LINE if self._status else ""
        if kind == "status":
            # One row, or the next redraw would leave parts of it behind.
            self._status = text[: max(0, self._columns() - 1)]
        else:
            with self._count:
                dropped, self._dropped = self._dropped, 0
            if dropped:
                out += f"{self._prefix(SELF)} {dropped} lines were not shown: nobody read them\n"
            out += text
        return out + self._status

    def _write(self, text: str) -> None:
        data = text.encode("utf-8", "replace")
        while data:
            data = data[os.write(self._descriptor, data) :]
