"""One worker as the controller knows it: its lease, its load, its breaker. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import TracebackType

from controller.breaker import Breaker, BreakerState
from controller.protocol.fleet import RegisterRequest, WorkerState, WorkerStatus
from controller.protocol.legacy_templates import LegacyTemplate

LEASE_BEATS = 3  # heartbeats that may be missed before a worker counts as gone
LATE_BEATS = 2  # and before it is avoided while others are punctual
SPEED_HALF_LIFE_SECONDS = 600.0  # a worker that has become slower is known as such in minutes
# A worker is given the requests that it runs, and as many again to prepare meanwhile. What waits
# beyond that waits here, where it can still go to whoever is free first.
REQUESTS_PER_PLACE = 2


@dataclass(frozen=True, slots=True)
class Lease:
    """The time a worker is believed in; seconds on the registry's monotonic clock."""

    renewed_at: float
    seconds: float

    @property
    def ends_at(self) -> float:
        """When the worker will have missed too many beats."""
        return self.renewed_at + self.seconds

    def is_over(self, now: float) -> bool:
        """Whether the worker has missed too many beats."""
        return now >= self.ends_at


class Wire(Enum):
    """What a worker speaks."""

    OPENAI = "openai"  # chat completions, server-sent events
    LEGACY = "legacy"  # LLaVA's and FastChat's: prompts, NUL-framed cumulative text


@dataclass(frozen=True, slots=True)
class Reach:
    """How requests get to a worker; known to whoever entered it here, told to nobody."""

    wire: Wire = Wire.OPENAI
    speaks_legacy_too: bool = False  # our own workers do, other OpenAI-compatible servers do not
    authorization: str | None = None  # a header that goes with requests to it
    template: LegacyTemplate | None = None  # a FastChat worker's own
    takes_any_number: bool = False  # it queues by itself and says nothing of its capacity
    # By model, where the server is a controller: those that a request passes from it on.
    ways: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


OUR_OWN = Reach(speaks_legacy_too=True)


@dataclass(slots=True, eq=False)
class WorkerRecord:
    """One worker process: what it last said of itself, and what this controller has with it."""

    worker_id: str
    address: str
    version: str
    status: WorkerStatus
    heartbeat_seconds: float  # how often it means to beat
    lease: Lease
    reach: Reach = OUR_OWN
    is_drained: bool = False  # asked to leave; its later heartbeats do not bring it back
    breaker: Breaker = field(default_factory=Breaker)
    in_flight: int = 0  # requests of this controller
    in_flight_tokens: int = 0  # their estimated cost, see `routing.RoutingHints.tokens`
    foreign: int = 0  # requests that others had with it at its last beat
    # Its best measured speed, all streams together, slowly forgotten; None before its first
    # answer. The best, as a worker that runs few streams at a time measures less than it can do,
    # would be given less for it, and would measure less again.
    tokens_per_second: float | None = None

    @property
    def state(self) -> WorkerState:
        """The worker's own word, unless it was asked to leave."""
        return WorkerState.DRAINING if self.is_drained else self.status.state

    @property
    def suspicion(self) -> str | None:
        """Why it is avoided, or None."""
        return self.breaker.reason if self.breaker.state is BreakerState.OPEN else None

    @property
    def model_names(self) -> list[str]:
        """The models that it serves, or will once it is ready."""
        return [card.name for card in self.status.models]

    @property
    def has_room(self) -> bool:
        """Whether another request should be given to it, and not wait here."""
        return self.reach.takes_any_number or self.in_flight < REQUESTS_PER_PLACE * self.capacity

    @property
    def queue_length(self) -> int:
        """Requests it has now: ours, counted here and now, and others', as of its last beat.

        Counting our own is what keeps a stale report from drawing a whole interval's arrivals.
        """
        return self.in_flight + self.foreign

    @property
    def capacity(self) -> int:
        """Requests that it runs at once."""
        return self.status.load.capacity

    def is_live(self, now: float) -> bool:
        """Whether it serves: ready, not asked to leave, and heard of lately."""
        if self.is_drained or self.status.state is not WorkerState.READY:
            return False
        return not self.lease.is_over(now)

    @property
    def late_after_seconds(self) -> float:
        """How long it may be silent before something must be wrong with it."""
        return LATE_BEATS * self.heartbeat_seconds

    def is_punctual(self, now: float) -> bool:
        """Whether its last heartbeats came when they were due."""
        return now - self.lease.renewed_at < self.late_after_seconds

    def beat(self, message: RegisterRequest, now: float) -> None:
        """Takes over what the worker says of itself."""
        since_last = now - self.lease.renewed_at
        self.version = message.version
        self.status = message.status
        self.heartbeat_seconds = message.heartbeat_seconds
        self.lease = Lease(now, LEASE_BEATS * message.heartbeat_seconds)
        self.breaker.hear(now)
        load = message.status.load
        if load.tokens_per_second:
            forgotten = 0.5 ** (since_last / SPEED_HALF_LIFE_SECONDS)
            remembered = (self.tokens_per_second or 0.0) * forgotten
            self.tokens_per_second = max(load.tokens_per_second, remembered)
        self.foreign = max(0, load.running + load.waiting - self.in_flight)

    def carrying(self, tokens: int) -> Carrying:
        """Counts a request as in flight for as long as the block runs."""
        return Carrying(self, tokens)


class Carrying:
    """``with`` it: a worker has one request more while the block runs.

    Not a generator: this is on every request's way, and a generator costs five times as much.

    Args:
        record: the worker.
        tokens: the request's estimated cost.
    """

    __slots__ = ("_record", "_tokens")

    def __init__(self, record: WorkerRecord, tokens: int) -> None:
        self._record = record
        self._tokens = tokens

    def __enter__(self) -> None:
        self._record.in_flight += 1
        self._record.in_flight_tokens += self._tokens

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._record.in_flight -= 1
        self._record.in_flight_tokens -= self._tokens
