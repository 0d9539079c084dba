"""The lines in which requests wait until a worker has room: one for each model, each bounded.

A request waits here and not with a worker, so that it goes to whoever is free first. Who is first
in a line looks for a worker itself when it is told that there may be room; nobody who comes later
looks before it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from controller.protocol.errors import QueueFullError

PACE_SAMPLES = 16  # answers over which the pace of a model is taken
UNKNOWN_PACE_SECONDS = 5.0  # Retry-After while nothing was answered yet
LONGEST_RETRY_AFTER_SECONDS = 120.0
MAX_PACES = 4096  # models whose pace is remembered


class Place:
    """A request's place in its line."""

    def __init__(self, line: deque[Place]) -> None:
        self._line = line
        self.may_look = asyncio.Event()

    @property
    def is_first(self) -> bool:
        """Whether it is its turn to look for a worker."""
        return self._line[0] is self


class _Pace:
    """How fast a model's requests leave: what tells when a line will have moved."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._departures: deque[float] = deque(maxlen=PACE_SAMPLES)

    def note_departure(self) -> None:
        self._departures.append(self._clock())

    def seconds_for(self, requests: int) -> float:
        """How long so many requests take to leave. A standstill makes it longer."""
        if len(self._departures) < 2:
            return UNKNOWN_PACE_SECONDS
        passed = self._clock() - self._departures[0]
        seconds = requests * passed / (len(self._departures) - 1)
        return min(LONGEST_RETRY_AFTER_SECONDS, seconds)


class Lines:
    """The lines of all models.

    Args:
        max_waiting: the most requests that wait for one model.
        clock: monotonic seconds.
    """

    def __init__(self, *, max_waiting: int, clock: Callable[[], float]) -> None:
        self._max_waiting = max_waiting
        self._clock = clock
        self._lines: dict[str, deque[Place]] = {}
        self._paces: dict[str, _Pace] = {}

    def waiting(self, model: str) -> int:
        """How many wait for a model."""
        return len(self._lines.get(model, ()))

    @contextmanager
    def join(self, model: str, *, ahead: bool) -> Iterator[Place]:
        """A place in a line while the block runs.

        Args:
            model: for which.
            ahead: at its head, and also where the line is full: it had waited its turn before.

        Raises:
            QueueFullError: the line is as long as it may get.
        """
        line = self._lines.setdefault(model, deque())
        if len(line) >= self._max_waiting and not ahead:
            if not line:
                del self._lines[model]
            raise QueueFullError(
                f"{self._max_waiting} requests wait for the model {model!r} already, the most that "
                f"may; retry later, or start another worker of it",
                param="model",
                retry_after_seconds=self.retry_after_seconds(model),
            )
        place = Place(line)
        if ahead:
            line.appendleft(place)
        else:
            line.append(place)
        try:
            yield place
        finally:
            line.remove(place)
            if line:  # there may be room for more than one
                line[0].may_look.set()
            else:
                del self._lines[model]

    @property
    def are_empty(self) -> bool:
        """Whether nobody waits for anything."""
        return not self._lines

    def note_departure(self, model: str) -> None:
        """A request for a model was answered: its pace is known better."""
        pace = self._paces.get(model)
        if pace is None:
            if len(self._paces) >= MAX_PACES:
                del self._paces[next(iter(self._paces))]
            pace = self._paces[model] = _Pace(self._clock)
        pace.note_departure()

    def wake(self, models: Iterable[str]) -> None:
        """The first of each line may look for a worker."""
        for model in models:
            line = self._lines.get(model)
            if line:
                line[0].may_look.set()

    def wake_all(self) -> None:
        """Likewise for all models."""
        self.wake(tuple(self._lines))

    def retry_after_seconds(self, model: str) -> float:
        """When a request that came now would have its turn, at the pace of late."""
        pace = self._paces.get(model)
        return UNKNOWN_PACE_SECONDS if pace is None else pace.seconds_for(self.waiting(model) + 1)
