"""How many requests may be tried again: so that trying again never becomes the load. Pure."""

from __future__ import annotations

from collections.abc import Callable

RESERVE = 100.0  # the requests that one lost worker had, so that all of them can move at once
PER_REQUEST = 0.2  # with each request a fifth of a retry is earned: at most 20 % more load
PER_SECOND = 10.0  # and a few each second, for fleets with little traffic


class RetryBudget:
    """A bucket of retries that fills with requests and with time.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, *, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._left = RESERVE
        self._filled_at = clock()

    def earn(self) -> None:
        """A request came in."""
        self._left = min(RESERVE, self._left + PER_REQUEST)

    def spend(self) -> bool:
        """Takes one retry; whether there was one."""
        now = self._clock()
        # A clock that stands or goes back earns nothing.
        self._left = min(RESERVE, self._left + max(0.0, now - self._filled_at) * PER_SECOND)
        self._filled_at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
