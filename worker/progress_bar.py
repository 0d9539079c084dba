"""How far loading is, as a bar on a terminal. Log lines that come meanwhile push it down."""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable
from typing import TextIO

from controller.protocol.fleet import LoadProgress

_CLEAR = "\r\x1b[K"  # to the start of the line, and erase it
_WIDEST = 40  # of the bar, columns
_FULL, _EMPTY = "\u2588", "\u2591"


def columns_of_terminal() -> int:
    """Of the terminal, or of a usual one."""
    return shutil.get_terminal_size().columns


class ProgressBar:
    """One line of a terminal, drawn over itself; from any thread.

    Args:
        stream: the terminal.
        name: what is loaded.
        columns: how wide the terminal is now.
    """

    def __init__(
        self, stream: TextIO, name: str, columns: Callable[[], int] = columns_of_terminal
    ) -> None:
        self._stream = stream
        self._name = name
        self._columns = columns
        self._lock = threading.Lock()
        self._is_drawn = self._is_closed = False

    def show(self, progress: LoadProgress) -> None:
        """Draws how far it is."""
        with self._lock:
            if self._is_closed:
                return
            self._stream.write(_CLEAR + line(self._name, progress, self._columns() - 1))
            self._stream.flush()
            self._is_drawn = True

    def clear(self) -> None:
        """Takes it off the terminal, until it is drawn again."""
        with self._lock:
            if self._is_drawn:
                self._stream.write(_CLEAR)
                self._stream.flush()
                self._is_drawn = False

    def close(self) -> None:
        """Takes it off for good."""
        self.clear()
        self._is_closed = True

    def make_room_for_logs(self, logger: logging.Logger) -> None:
        """Has it cleared before each of a logger's lines, which share the terminal."""
        logger.handlers.insert(0, _Clearing(self))


class _Clearing(logging.Handler):
    """Writes nothing; runs before the handler that does."""

    def __init__(self, bar: ProgressBar) -> None:
        super().__init__()
        self._bar = bar

    def emit(self, record: logging.LogRecord) -> None:  # noqa: ARG002 - logging's signature
        self._bar.clear()


def line(name: str, progress: LoadProgress, columns: int) -> str:
    """The bar as one line of at most so many columns; without bytes, the phase alone."""
    head = f"{name}  {progress.phase}"
    if progress.bytes_done is None or not progress.bytes_total:
        return head[:columns]
    sizes = f"{_gib(progress.bytes_done)} of {_gib(progress.bytes_total)} GiB"
    tail = f"{progress.fraction:4.0%}  {sizes}"
    width = min(_WIDEST, columns - len(head) - len(tail) - 4)
    if width < 1:
        return f"{head}  {tail}"[:columns]
    filled = round(progress.fraction * width)
    return f"{head}  {_FULL * filled}{_EMPTY * (width - filled)}  {tail}"


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:.2f}"
