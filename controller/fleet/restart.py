"""When a process that exited is started again: a rule, without a clock and without processes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

# What every process of ours exits with when it cannot even begin: its settings are wrong, or its
# port is taken.
EXIT_USAGE = 2


class ProcessState(Enum):
    """Where a supervised process is in its life."""

    PENDING = "pending"  # waits for a machine that has what it needs
    STARTING = "starting"  # runs, does not yet serve
    READY = "ready"  # serves
    WAITING = "waiting"  # exited; starts again after a pause
    GIVEN_UP = "given up"  # exited too often before it ever served, or cannot start at all
    STOPPED = "stopped"  # exited because it was asked to


@dataclass(frozen=True, slots=True)
class RestartRule:
    """The numbers of the rule; see `configs` and ``docs/configuration.md``.

    Args:
        first_delay_seconds: pause before the first restart.
        factor: growth of the pause from restart to restart.
        longest_delay_seconds: upper bound of the pause.
        stable_seconds: a run that lasts so long after it became ready resets the pause.
        max_failed_starts: starts in a row, of one that never became ready, after which it stays
            down.
    """

    first_delay_seconds: float
    factor: float
    longest_delay_seconds: float
    stable_seconds: float
    max_failed_starts: int


@dataclass(frozen=True, slots=True)
class Restart:
    """Start it again after a pause."""

    delay_seconds: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Leave it down."""

    reason: str


class RestartRecord:
    """What one process has done so far.

    A process that had been ready is always started again: something that served once can serve
    again, and the growing pause bounds what it costs. One that exits again and again before it was
    ever ready will not get there by itself; nor will one that refuses to start the first time.

    Args:
        rule: the numbers.
    """

    def __init__(self, rule: RestartRule) -> None:
        self._rule = rule
        self._ready_since: float | None = None
        self._was_ever_ready = False
        self._restarts = 0  # since the last stable run
        self._failed_starts = 0  # before it was ready for the first time

    @property
    def is_ready(self) -> bool:
        """Whether the current run has become ready."""
        return self._ready_since is not None

    def became_ready(self, now: float) -> None:
        """The current run serves."""
        self._ready_since = now
        self._was_ever_ready = True

    def exited(self, status: int, now: float) -> Restart | GiveUp:
        """The current run is over, unasked.

        Args:
            status: its exit status; negative for a signal, as in `subprocess`.
            now: seconds on the clock of `became_ready`.
        """
        ready_since, self._ready_since = self._ready_since, None
        if not self._was_ever_ready:
            if status == EXIT_USAGE:
                return GiveUp("it refused to start, and another try would end alike")
            self._failed_starts += 1
            if self._failed_starts >= self._rule.max_failed_starts:
                return GiveUp(f"{self._failed_starts} starts in a row ended before it was ready")
        elif ready_since is not None and now - ready_since >= self._rule.stable_seconds:
            self._restarts = 0
        # The exponent is bounded, as factor ** 10_000 is an OverflowError.
        growth = self._rule.factor ** min(self._restarts, 64)
        self._restarts += 1
        delay = min(self._rule.first_delay_seconds * growth, self._rule.longest_delay_seconds)
        return Restart(delay)
