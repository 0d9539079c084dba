"""The requests that are open now, and how the process takes leave of them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from types import TracebackType

from controller.protocol.errors import DrainingError

RETRY_AFTER_SECONDS = 5.0  # about what a restart takes


class OpenRequest:
    """``with`` it: one request that is being answered; ``arrival`` on the monotonic clock."""

    __slots__ = ("_in_flight", "arrival", "model", "task")

    def __init__(self, in_flight: InFlight, model: str, arrival: float) -> None:
        self._in_flight = in_flight
        self.model = model
        self.arrival = arrival
        self.task = asyncio.current_task()

    def __enter__(self) -> None:
        self._in_flight.note_begin(self)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._in_flight.note_end(self)


class InFlight:
    """Counts open requests; once a drain has begun it takes no new ones."""

    def __init__(self) -> None:
        self._open: set[OpenRequest] = set()
        self._none_open = asyncio.Event()
        self._none_open.set()
        self.is_draining = False
        self.is_cut_off = False  # the drain's patience is over: open requests end with an error

    def track(self, model: str, arrival: float) -> OpenRequest:
        """Counts a request, made in the task that answers it, while the block runs.

        Raises:
            DrainingError: the process is shutting down.
        """
        if self.is_draining:
            raise DrainingError(
                "The controller is shutting down and takes no new requests; try again shortly",
                retry_after_seconds=RETRY_AFTER_SECONDS,
            )
        return OpenRequest(self, model, arrival)

    def note_begin(self, request: OpenRequest) -> None:
        """A request is open from now."""
        self._open.add(request)
        self._none_open.clear()

    def note_end(self, request: OpenRequest) -> None:
        """It is not any more."""
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
