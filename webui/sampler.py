"""Decides when a streaming column is shown again: often enough to read along, no more.

A browser that is sent every token falls behind its streams, and long answers cost more to draw
than short ones. So each column is sampled at its own pace, and what is due at about the same time
goes into one frame: a tab's browser goes through all of its columns with each. Pure: the time is an
argument.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

# Seconds between two updates, for answers of up to so many characters; ends with infinity.
Paces = tuple[tuple[float, float], ...]
TEXT_PACES: Paces = ((4_000, 0.11), (16_000, 0.25), (float("inf"), 0.5))
DIFFERENCE_PACES: Paces = ((4_000, 0.3), (float("inf"), 0.8))  # comparing takes time
FIGURE_PACES: Paces = ((float("inf"), 0.5),)  # numbers that change faster cannot be read

_FRAME_SECONDS = 0.11  # between two frames of a tab: no less than this
_MAX_FRAME_SECONDS = 0.5  # however busy the server is: an end is to be seen within a second
# A column is shown this much before its time rather than in a frame of its own.
_EARLY_SECONDS = _FRAME_SECONDS / 2
# Of the time between two frames, what making one may take; the rest belongs to the other tabs.
_FRAME_SHARE = 0.2


@dataclass(frozen=True, slots=True)
class Sample:
    """The state of a column at a moment."""

    column: int
    version: object  # differs from any other state of the column
    num_chars: int
    has_ended: bool


class Sampler:
    """Remembers what was shown when.

    Args:
        paces: how often a column may be shown, by the length of its answer.
    """

    def __init__(self, paces: Paces) -> None:
        self._paces = paces
        self._shown: dict[int, tuple[object, float]] = {}  # column -> version, time

    def take_due(self, samples: Iterable[Sample], *, now: float) -> list[int]:
        """The columns to show now, with those that are nearly due; they count as shown."""
        waits = [(sample, self._wait(sample, now)) for sample in samples]
        if all(wait != 0 for _, wait in waits):
            return []
        due = [sample for sample, wait in waits if wait is not None and wait <= _EARLY_SECONDS]
        for sample in due:
            self._shown[sample.column] = (sample.version, now)
        return [sample.column for sample in due]

    def seconds_until_due(self, samples: Iterable[Sample], *, now: float) -> float | None:
        """How long until the next column is due; None while nothing has changed."""
        waits = [wait for sample in samples if (wait := self._wait(sample, now)) is not None]
        return min(waits, default=None)

    def _wait(self, sample: Sample, now: float) -> float | None:
        version, shown_at = self._shown.get(sample.column, (None, float("-inf")))
        if sample.version == version:
            return None
        if sample.has_ended:
            return 0  # an end is news at once
        pace = next(seconds for limit, seconds in self._paces if sample.num_chars <= limit)
        return max(0.0, shown_at + pace - now)


class FramePace:
    """How far the frames of one tab stand apart: the farther, the later they come out.

    A server that has too much to do shows each tab less often, and so keeps up with the streams.
    """

    def __init__(self) -> None:
        self.seconds = _FRAME_SECONDS
        self._lateness_seconds = 0.0

    def note(self, lateness_seconds: float) -> None:
        """Takes in how long the last frame took to make, with what it had to wait for its turn."""
        # Half of it is the past: one slow frame is no load.
        self._lateness_seconds = (self._lateness_seconds + lateness_seconds) / 2
        wanted = self._lateness_seconds / _FRAME_SHARE
        self.seconds = min(max(wanted, _FRAME_SECONDS), _MAX_FRAME_SECONDS)
