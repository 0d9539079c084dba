"""How much each API key may use: requests in a time, and requests at the same time."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import limits
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import MovingWindowRateLimiter

from controller.chassis.auth import ApiKey
from controller.protocol.errors import RateLimitError

BUSY_RETRY_SECONDS = 1.0  # nobody knows when one of the key's own requests will end


class Quotas:
    """The limits of all keys, by their owners' names.

    Args:
        keys: those that have limits count; of several with one name the first that has.
    """

    def __init__(self, keys: Sequence[ApiKey]) -> None:
        self._rates: dict[str, Sequence[limits.RateLimitItem]] = {}
        self._most_open: dict[str, int] = {}
        for key in keys:
            if key.rate is not None:
                self._rates.setdefault(key.name, limits.parse_many(key.rate))
            if key.concurrency is not None:
                self._most_open.setdefault(key.name, key.concurrency)
        self._open: Counter[str] = Counter()
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    def bind(self, owner: str) -> bool:
        """Whether anything limits this owner."""
        return owner in self._rates or owner in self._most_open

    @asynccontextmanager
    async def use(self, owner: str) -> AsyncIterator[None]:
        """One request of an owner, for as long as the block runs.

        Raises:
            RateLimitError: it would be one too many; when to come back is in the error.
        """
        most_open = self._most_open.get(owner)
        if most_open is not None and self._open[owner] >= most_open:
            raise RateLimitError(
                f"This API key may have {_requests(most_open)} open at the same time, and has; "
                f"wait until one has ended",
                retry_after_seconds=BUSY_RETRY_SECONDS,
            )
        for rate in self._rates.get(owner, ()):
            if not await self._limiter.hit(rate, owner):
                stats = await self._limiter.get_window_stats(rate, owner)
                # A wall clock that was set back must not make this a matter of years.
                wait = min(stats.reset_time - time.time(), rate.get_expiry())
                raise RateLimitError(
                    f"This API key may send {_requests(rate.amount)} in {_period(rate)}, and has; "
                    f"wait as long as Retry-After says",
                    retry_after_seconds=max(1.0, wait),
                )
        self._open[owner] += 1
        try:
            yield
        finally:
            self._open[owner] -= 1
            if not self._open[owner]:
                del self._open[owner]


def _requests(number: int) -> str:
    return "1 request" if number == 1 else f"{number} requests"


def _period(rate: limits.RateLimitItem) -> str:
    return f"{math.ceil(rate.get_expiry())} s"
