"""A progress bar on a terminal; nothing where nobody looks."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from typing import TextIO

from controller.protocol.fleet import LoadProgress

_BAR = 24  # characters
_INTERVAL = 0.1  # seconds between two drawings


class ProgressBar:
    """Draws on one line of a terminal, which `close` clears again.

    Args:
        stream: where; nothing is drawn on what is no terminal.
        clock: seconds that never go back.
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._is_terminal = stream.isatty()
        self._started = clock()
        self._drawn: float | None = None

    def show(self, progress: LoadProgress) -> None:
        """The state of the work; at most ten times a second, and at the end."""
        now = self._clock()
        is_last = progress.fraction >= 1
        if not self._is_terminal or (
            self._drawn is not None and now - self._drawn < _INTERVAL and not is_last
        ):
            return
        self._drawn = now
        line = self._line(progress, now - self._started)
        width = shutil.get_terminal_size().columns - 1
        self._stream.write(f"\r\x1b[K{line[:width]}")
        self._stream.flush()

    def close(self) -> None:
        """Takes the bar away."""
        if self._drawn is not None:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def _line(self, progress: LoadProgress, seconds: float) -> str:
        filled = int(progress.fraction * _BAR)
        bar = "#" * filled + "." * (_BAR - filled)
        done, total = progress.bytes_done or 0, progress.bytes_total or 0
        rate = done / seconds / 1e6 if seconds > 0 else 0.0
        return (
            f"{progress.phase} [{bar}] {progress.fraction:4.0%}  "
            f"{done / 1e9:.2f} of {total / 1e9:.2f} GB, {rate:.0f} MB/s"
        )
