"""Workers in simulated time, with a realistic cost: prefill, batches, a queue, a finite KV cache.

The registry and the policies are the real ones; only time and the models are simulated. What a
worker reports of itself arrives with its heartbeats, once a second, as it does in a fleet.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from controller.protocol.fleet import (
    ModelCard,
    RegisterRequest,
    WorkerLoad,
    WorkerState,
    WorkerStatus,
)
from controller.registry import Registry
from controller.routing import RoutingHints
from controller.worker_record import WorkerRecord

HEARTBEAT_SECONDS = 1.0
RECENT_SECONDS = 10.0  # over which a worker measures its own speed
PROMPT_TOKENS = 640  # an image and a question

# A worker of speed 1, in seconds.
PREFILL_SECONDS_PER_TOKEN = 0.0003
DECODE_STEP_SECONDS = 0.02
BATCH_GROWTH = 0.04  # each further row makes a step longer by this share

# Draws an answer's length, and what its client allows it, in tokens.
Answers = Callable[[random.Random], tuple[int, int]]

Policy = Callable[[Sequence[WorkerRecord], RoutingHints, random.Random], WorkerRecord]


@dataclass(eq=False)
class SimulatedRequest:
    """One request: what it will cost, and when its first and its last token came."""

    arrival: float
    answer_tokens: int
    limit: int  # what it says its answer may cost
    produced: int = 0
    first_token: float | None = None
    finished: float | None = None
    open: ExitStack = field(default_factory=ExitStack)


@dataclass(eq=False)
class SimulatedWorker:
    """Runs one prefill or one decode step at a time, prefills first."""

    name: str
    speed: float
    capacity: int = 8
    kv_tokens: int = 12_000
    waiting: deque[SimulatedRequest] = field(default_factory=deque)
    running: list[SimulatedRequest] = field(default_factory=list)
    recent: deque[tuple[float, float, int]] = field(default_factory=deque)  # end, seconds, tokens
    is_busy: bool = False

    def step(self, now: float) -> float:
        """Does one step; when it ends. Tokens are there at its end."""
        held = sum(PROMPT_TOKENS + request.limit for request in self.running)
        tokens = 0
        if (
            self.waiting
            and len(self.running) < self.capacity
            and held + PROMPT_TOKENS + self.waiting[0].limit <= self.kv_tokens
        ):
            seconds = PROMPT_TOKENS * PREFILL_SECONDS_PER_TOKEN / self.speed
            self.running.append(self.waiting.popleft())
            rows = self.running[-1:]
        else:
            rows = self.running
            growth = 1 + BATCH_GROWTH * (len(rows) - 1)
            seconds = DECODE_STEP_SECONDS * growth / self.speed
        for request in rows:
            request.produced += 1
            tokens += 1
            if request.first_token is None:
                request.first_token = now + seconds
        for request in [r for r in self.running if r.produced >= r.answer_tokens]:
            self.running.remove(request)
            request.finished = now + seconds
            request.open.close()
        self.recent.append((now + seconds, seconds, tokens))
        return now + seconds

    def registration(self, now: float) -> RegisterRequest:
        """What it says of itself."""
        while self.recent and self.recent[0][0] < now - RECENT_SECONDS:
            self.recent.popleft()
        busy = sum(seconds for _, seconds, _ in self.recent)
        tokens = sum(tokens for _, _, tokens in self.recent)
        return RegisterRequest(
            worker_id=self.name,
            address=f"http://{self.name}",
            heartbeat_seconds=HEARTBEAT_SECONDS,
            version="0",
            status=WorkerStatus(
                state=WorkerState.READY,
                models=[ModelCard(name="demo")],
                load=WorkerLoad(
                    running=len(self.running),
                    waiting=len(self.waiting),
                    capacity=self.capacity,
                    tokens_per_second=tokens / busy if busy else None,
                ),
            ),
        )


def exponential_answers(chance: random.Random) -> tuple[int, int]:
    """Answers of 120 tokens on average; clients allow 512 of each."""
    return min(512, 1 + int(chance.expovariate(1 / 120))), 512


def mixed_answers(chance: random.Random) -> tuple[int, int]:
    """Captions and essays: nine of ten clients allow 32 tokens, the others 512; all are used."""
    tokens = 32 if chance.random() < 0.9 else 512
    return tokens, tokens


def simulate(
    policy: Policy,
    workers: Sequence[SimulatedWorker],
    *,
    rate: float,
    seconds: float,
    seed: int,
    answers: Answers = exponential_answers,
) -> list[SimulatedRequest]:
    """Sends requests at ``rate`` a second and lets the workers finish; the requests, in order."""
    chance = random.Random(seed)
    now = 0.0
    registry = Registry(clock=lambda: now, wall_clock=lambda: now)
    by_name = {worker.name: worker for worker in workers}
    requests: list[SimulatedRequest] = []
    order = itertools.count()  # events of the same moment stay in order
    events: list[tuple[float, int, Callable[[], None]]] = []

    def at(moment: float, event: Callable[[], None]) -> None:
        heapq.heappush(events, (moment, next(order), event))

    def beat(worker: SimulatedWorker) -> None:
        registry.heartbeat(worker.registration(now))
        if now < seconds or worker.running or worker.waiting:
            at(now + HEARTBEAT_SECONDS, lambda: beat(worker))

    def work(worker: SimulatedWorker) -> None:
        worker.is_busy = bool(worker.running or worker.waiting)
        if worker.is_busy:
            at(worker.step(now), lambda: work(worker))

    def arrive() -> None:
        answer_tokens, limit = answers(chance)
        request = SimulatedRequest(now, answer_tokens, limit=limit)
        hints = RoutingHints(model="demo", tokens=request.limit + PROMPT_TOKENS // 10)
        record = policy(registry.rotation("demo"), hints, chance)
        request.open.enter_context(record.carrying(hints.tokens))
        requests.append(request)
        worker = by_name[record.worker_id]
        worker.waiting.append(request)
        if not worker.is_busy:
            work(worker)
        following = now + chance.expovariate(rate)
        if following < seconds:
            at(following, arrive)

    for position, worker in enumerate(workers):
        at(position * HEARTBEAT_SECONDS / len(workers), lambda worker=worker: beat(worker))
    at(HEARTBEAT_SECONDS, arrive)
    while events:
        now, _, event = heapq.heappop(events)
        event()
    return requests


def round_robin() -> Policy:
    """What the policies are measured against."""
    turns = itertools.count()
    return lambda candidates, _hints, _rng: candidates[next(turns) % len(candidates)]


def first_token_percentile(requests: Sequence[SimulatedRequest], percent: float) -> float:
    """Seconds from arrival to the first token, at a percentile."""
    waits = [r.first_token - r.arrival for r in requests if r.first_token is not None]
    return _percentile(waits, percent)


def answer_percentile(requests: Sequence[SimulatedRequest], percent: float) -> float:
    """Seconds from arrival to the last token, at a percentile."""
    return _percentile([r.finished - r.arrival for r in requests if r.finished], percent)


def _percentile(waits: list[float], percent: float) -> float:
    return sorted(waits)[min(len(waits) - 1, int(len(waits) * percent / 100))]
