"""The requests that are open now, and how the process takes leave of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from controller.protocol.errors import DrainingError

RETRY_AFTER_SECONDS = 5.0  # about what a restart takes


@dataclass(frozen=True, slots=True, eq=False)
class OpenRequest:
    """One request that is being answered; ``arrival`` on the monotonic clock."""

    model: str
    arrival: float
    task: asyncio.Task[object] | None


class InFlight:
    """Counts open requests; once a drain has begun it takes no new ones.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, *, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._open: set[OpenRequest] = set()
        self._none_open = asyncio.Event()
        self._none_open.set()
        self.is_draining = False
        self.is_cut_off = False  # the drain's patience is over: open requests end with an error

    @contextmanager
    def track(self, model: str) -> Iterator[OpenRequest]:
        """Counts a request, made in the task that answers it, while the block runs.

        Raises:
            DrainingError: the process is shutting down.
        """
        if self.is_draining:
            raise DrainingError(
                "The controller is shutting down and takes no new requests; try again shortly",
                retry_after_seconds=RETRY_AFTER_SECONDS,
            )
        request = OpenRequest(model, self._clock(), asyncio.current_task())
        self._open.add(request)
        self._none_open.clear()
        try:
            yield request
        finally:
            self._open.remove(request)
            if not self._open:
                self._none_open.set()

    def __iter__(self) -> Iterator[OpenRequest]:
        return iter(self._open)

    async def drain(self, patience_seconds: float) -> None:
        """Refuses new requests and waits for the open ones; cuts off those that take too long."""
        self.is_draining = True
        try:
            async with asyncio.timeout(patience_seconds):
                await self._none_open.wait()
        except TimeoutError:
            self.is_cut_off = True
            for request in tuple(self._open):
                if request.task is not None:
                    request.task.cancel()
