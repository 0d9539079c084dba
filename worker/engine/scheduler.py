"""Who runs next, and who may wait: first come first served with bounds. No I/O, clock or torch."""

from __future__ import annotations

from collections import deque
from enum import Enum

from controller.protocol.errors import BadRequestError, QueueFullError

# Before anything has been answered there is nothing to estimate a wait from.
FIRST_GUESS_SECONDS = 2.0
# Recent answers that the estimate of a wait is taken from.
REMEMBERED_ANSWERS = 16
# How many later requests may start before one that waits for memory; then all wait for it.
MAX_OVERTAKEN = 4


class Phase(Enum):
    """Where an accepted request is on its way to its end."""

    PREPARING = "preparing"  # its prompt and pixels are being made
    WAITING = "waiting"  # could run, has no place to
    RUNNING = "running"
    ENDED = "ended"


class Ticket:
    """A request's place; made by `Scheduler.admit`, ended exactly once by `Scheduler.end`."""

    __slots__ = ("arrived", "length", "overtaken", "phase", "started")

    def __init__(self, arrived: float) -> None:
        self.arrived = arrived  # seconds, on the scheduler's caller's clock
        self.started: float | None = None
        self.phase = Phase.PREPARING
        self.length = 0  # tokens that it may come to hold, prompt and answer; once it is ready
        self.overtaken = 0  # requests that came later and started first, while it was ready


class Scheduler:
    """Admits up to ``capacity + max_waiting`` requests and runs up to ``capacity`` of them.

    Order is by arrival among the requests whose preparation is done, so that one huge image does
    not hold up those behind it. A request that is too long for the memory that is left lets
    shorter ones pass, but only `MAX_OVERTAKEN` of them. It is used by one thread and never blocks.

    Args:
        capacity: requests that may run at once.
        max_waiting: requests that may wait besides them.
        kv_tokens: what the cache may hold. All rows of a batch take as much of it as the longest,
            so that it is to be no less than rows times length. None is no limit.
    """

    def __init__(self, *, capacity: int, max_waiting: int, kv_tokens: int | None = None) -> None:
        if capacity < 1 or max_waiting < 0:
            raise ValueError(f"capacity {capacity} and max_waiting {max_waiting} make no queue")
        self.capacity = capacity
        self.max_waiting = max_waiting
        self.kv_tokens = kv_tokens
        self._line: list[Ticket] = []  # preparing and waiting, by arrival
        self._running: set[Ticket] = set()
        self._durations: deque[float] = deque(maxlen=REMEMBERED_ANSWERS)

    @property
    def running(self) -> int:
        """Requests that run now."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Requests that were accepted and do not run yet."""
        return len(self._line)

    def check_room(self, places: int = 1) -> None:
        """Refuses when a request would be refused.

        Args:
            places: how many it needs.

        Raises:
            QueueFullError: with the seconds until the work ahead should be done.
            BadRequestError: there are never so many places.
        """
        most = self.capacity + self.max_waiting
        if places > most:
            raise BadRequestError(
                f"n: {places} answers are asked for at once, and this worker takes {most} in all; "
                f"ask for fewer, or start it with a larger --max-queue",
                param="n",
            )
        if self.running + self.waiting + places <= most:
            return
        raise QueueFullError(
            f"This worker runs {self.running} and has {self.waiting} waiting, which is its limit; "
            f"retry later, raise --max-queue, or start another worker of this model",
            retry_after_seconds=self.expected_wait_seconds(),
        )

    def admit(self, now: float) -> Ticket:
        """A place for a request that has just arrived.

        Raises:
            QueueFullError: there is none.
        """
        self.check_room()
        ticket = Ticket(now)
        self._line.append(ticket)
        return ticket

    def mark_ready(self, ticket: Ticket, length: int = 0) -> None:
        """The request is prepared and may run.

        Args:
            ticket: its place.
            length: tokens that its prompt and its answer may have together.
        """
        if ticket.phase is not Phase.PREPARING:
            raise ValueError(f"a request that is {ticket.phase.value} cannot become ready")
        if self.kv_tokens is not None and length > self.kv_tokens:
            raise ValueError(f"{length} tokens never fit into a cache of {self.kv_tokens}")
        ticket.phase, ticket.length = Phase.WAITING, length

    def start_next(self, now: float) -> Ticket | None:
        """Moves the first request that may run to a free place; None if there is no such pair."""
        if self.running >= self.capacity:
            return None
        passed: list[Ticket] = []
        for ticket in self._line:
            if ticket.phase is not Phase.WAITING:
                continue
            if self._fits(ticket):
                for other in passed:
                    other.overtaken += 1
                self._line.remove(ticket)
                self._running.add(ticket)
                ticket.phase, ticket.started = Phase.RUNNING, now
                return ticket
            if ticket.overtaken >= MAX_OVERTAKEN:
                return None
            passed.append(ticket)
        return None

    def _fits(self, ticket: Ticket) -> bool:
        if self.kv_tokens is None:
            return True
        longest = max(ticket.length, *(other.length for other in self._running), 0)
        return (self.running + 1) * longest <= self.kv_tokens

    def end(self, ticket: Ticket, now: float) -> None:
        """Gives the request's place to others, whichever phase it is in."""
        if ticket.phase is Phase.ENDED:
            raise ValueError("a request ends once")
        if ticket.phase is Phase.RUNNING:
            self._running.remove(ticket)
            if ticket.started is not None:
                self._durations.append(now - ticket.started)
        else:
            self._line.remove(ticket)
        ticket.phase = Phase.ENDED

    def expected_wait_seconds(self) -> float:
        """How long the work that is accepted now should take, judged by recent answers."""
        if not self._durations:
            return FIRST_GUESS_SECONDS
        mean = sum(self._durations) / len(self._durations)
        return mean * (self.running + self.waiting) / self.capacity
