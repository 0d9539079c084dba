"""Where what a process says goes: to the screen, and into the log book."""

from __future__ import annotations

from typing import Protocol

from controller.fleet.console import Console
from controller.fleet.log_book import LogBook


class Reporter(Protocol):
    """Is told what there is to know of a process."""

    def line(self, name: str, text: str) -> None:
        """A line that a process wrote."""
        ...

    def alarm(self, name: str, text: str) -> None:
        """A line about something that went wrong with a process."""
        ...

    def repeat(self, name: str, text: str) -> None:
        """A line that was told before, shown once more beside an alarm."""
        ...


class FleetReporter:
    """Shows lines, and keeps them for `paragone logs`.

    Args:
        console: shows them.
        logs: keeps them.
    """

    def __init__(self, console: Console, logs: LogBook) -> None:
        self._console = console
        self._logs = logs

    def line(self, name: str, text: str) -> None:
        """Kept and shown."""
        self._logs.add(name, text)
        self._console.line(name, text)

    def alarm(self, name: str, text: str) -> None:
        """Kept, and shown as an alarm."""
        self._logs.add(name, text)
        self._console.alarm(name, text)

    def repeat(self, name: str, text: str) -> None:
        """Shown alone: in the log book it stands right above."""
        self._console.alarm(name, text)
