"""Whether a worker that failed may be asked again: a circuit breaker. Pure; time is passed in.

::

    CLOSED ──a request failed──> OPEN ──heard of, and the pause is over──> HALF_OPEN
      ^                           ^                                          │   │
      └────────the probe answered─┼──────────────────────────────────────────┘   │
                                  └────────────────the probe failed──────────────┘
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum

ERRORS_IN_A_ROW = 3  # answers that make a worker one that fails: one may be the request's fault
FIRST_PAUSE_SECONDS = 1.0  # after the second failure in a row; doubled with each further one
LONGEST_PAUSE_SECONDS = 30.0


class BreakerState(Enum):
    """What may pass."""

    CLOSED = "closed"  # every request
    OPEN = "open"  # none while others can serve: it failed and was not heard of since
    HALF_OPEN = "half_open"  # one at a time, the probe, whose outcome decides


@dataclass(slots=True, eq=False)
class Breaker:
    """One worker's breaker.

    After the first failure being heard of is enough for a probe: connections are lost for many
    reasons. A worker that says it is well and fails again is probed ever more rarely.
    """

    state: BreakerState = BreakerState.CLOSED
    reason: str | None = None  # the last failure, until a probe has answered
    failures: int = 0  # in a row; requests that failed together count once
    errors: int = 0  # answers in a row that were the worker's own errors
    is_probing: bool = False
    pause_until: float = 0.0

    @property
    def lets_pass(self) -> bool:
        """Whether a request may be given to the worker while others could take it."""
        if self.state is BreakerState.CLOSED:
            return True
        return self.state is BreakerState.HALF_OPEN and not self.is_probing

    def fail(self, reason: str, now: float) -> None:
        """A request failed in a way that is the worker's fault."""
        self.reason = reason
        self.errors = 0
        if self.state is not BreakerState.OPEN:
            self.failures += 1
            self.state = BreakerState.OPEN
            self.pause_until = now + _pause_seconds(self.failures)

    def stumble(self, reason: str, now: float) -> bool:
        """A request was answered with an error of the worker's own; whether that fails it.

        A worker that can only answer so answers faster than all others, and would be given most of
        what comes.
        """
        self.errors += 1
        if self.state is BreakerState.CLOSED and self.errors < ERRORS_IN_A_ROW:
            return False
        self.fail(reason, now)
        return True

    def hear(self, now: float) -> None:
        """The worker was heard of: it lives, whether it can answer a probe will show."""
        if self.state is BreakerState.OPEN and now >= self.pause_until:
            self.state = BreakerState.HALF_OPEN

    def succeed(self) -> None:
        """A request was answered."""
        if self.state is not BreakerState.CLOSED:
            self.state, self.reason = BreakerState.CLOSED, None
        self.failures = self.errors = 0

    @contextmanager
    def probe(self) -> Iterator[None]:
        """Marks the request inside the block as the probe, if one is due."""
        if self.state is not BreakerState.HALF_OPEN or self.is_probing:
            yield
            return
        self.is_probing = True
        try:
            yield
        finally:
            self.is_probing = False


def _pause_seconds(failures: int) -> float:
    if failures < 2:
        return 0.0
    return min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(failures - 2, 16))
