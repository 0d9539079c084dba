"""Decides when a streaming column is shown again: often enough to read along, no more.

A browser that is sent every token falls behind its streams, and long answers cost more to draw
than short ones. So each column is sampled at its own pace. Pure: the time is an argument.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

# Seconds between two updates, for answers of up to so many characters; ends with infinity.
Paces = tuple[tuple[float, float], ...]
TEXT_PACES: Paces = ((4_000, 0.11), (16_000, 0.25), (float("inf"), 0.5))
DIFFERENCE_PACES: Paces = ((4_000, 0.3), (float("inf"), 0.8))  # comparing takes time
FIGURE_PACES: Paces = ((float("inf"), 0.5),)  # numbers that change faster cannot be read


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
        """The columns to show now; they count as shown."""
        due = [sample for sample in samples if self._wait(sample, now) == 0]
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
