"""Who of a model's workers gets the next request: a table of policies.

Pure: no I/O, no clock; chance comes from the generator that is passed in. Each choice looks once
at each worker of the model and at nobody else.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Protocol, TypeVar

from controller.routing import DEFAULT_ANSWER_TOKENS, RoutingHints


class Candidate(Protocol):
    """What a policy may know of a worker."""

    @property
    def address(self) -> str:
        """Stays the same when the worker is restarted."""

    @property
    def queue_length(self) -> int:
        """Requests it has now, running or waiting."""

    @property
    def in_flight(self) -> int:
        """Those of them that came through this controller."""

    @property
    def in_flight_tokens(self) -> int:
        """The estimated tokens of the latter."""

    @property
    def capacity(self) -> int:
        """Requests that it runs at once."""

    @property
    def tokens_per_second(self) -> float | None:
        """Its measured speed; None while unknown."""


C = TypeVar("C", bound=Candidate)


class DispatchPolicy(Protocol):
    """Chooses one of the candidates, which are never none."""

    def __call__(self, candidates: Sequence[C], hints: RoutingHints, rng: random.Random, /) -> C:
        """The worker that gets the request."""


class DispatchMethod(StrEnum):
    """Names of the policies, as ``--dispatch-method`` takes them."""

    SHORTEST_QUEUE = "shortest_queue"  # fewest requests for its speed; LLaVA's
    LOTTERY = "lottery"  # by chance, in proportion to speed; LLaVA's
    LEAST_WORK = "least_work"  # the one that would come to it first
    AFFINITY = "affinity"  # back to the worker whose caches know the image or conversation


def shortest_queue(candidates: Sequence[C], _hints: RoutingHints, rng: random.Random) -> C:
    """Fewest requests for its speed; as LLaVA's controller, but with requests counted live."""
    return _lowest(candidates, _speeds(candidates), lambda c: c.queue_length, rng)


def lottery(candidates: Sequence[C], _hints: RoutingHints, rng: random.Random) -> C:
    """By chance, in proportion to speed; as LLaVA's controller."""
    return rng.choices(candidates, _speeds(candidates))[0]


def least_work(candidates: Sequence[C], _hints: RoutingHints, rng: random.Random) -> C:
    """The worker that would come to it first: the tokens ahead of it, over its speed.

    Requests that did not come through here count as answers of ordinary length. Of several idle
    workers the fastest is taken: the first token of the answer itself counts too.
    """

    def tokens(candidate: C) -> float:
        foreign = candidate.queue_length - candidate.in_flight
        return candidate.in_flight_tokens + foreign * DEFAULT_ANSWER_TOKENS + 1

    return _lowest(candidates, _speeds(candidates), tokens, rng)


def affinity(candidates: Sequence[C], hints: RoutingHints, rng: random.Random) -> C:
    """The worker that the image or conversation belongs to, while it keeps up.

    Rendezvous hashing by address: two controllers agree without talking, and when a worker comes
    or goes, only its own share moves. A worker that is a whole batch behind the idlest one is
    passed over for the next in order. Without a key it is `least_work`.
    """
    key = hints.affinity_key
    if key is None:
        return least_work(candidates, hints, rng)
    fewest = min(candidate.queue_length for candidate in candidates)
    keeping_up = [c for c in candidates if c.queue_length - fewest <= c.capacity]
    return max(keeping_up, key=lambda c: hashlib.blake2b(c.address.encode(), key=key).digest())


POLICIES: dict[DispatchMethod, DispatchPolicy] = {
    DispatchMethod.SHORTEST_QUEUE: shortest_queue,
    DispatchMethod.LOTTERY: lottery,
    DispatchMethod.LEAST_WORK: least_work,
    DispatchMethod.AFFINITY: affinity,
}


def _speeds(candidates: Sequence[C]) -> list[float]:
    """Speeds; a worker that has not been measured counts as an average one."""
    measured = [c.tokens_per_second for c in candidates if c.tokens_per_second]
    average = sum(measured) / len(measured) if measured else 1.0
    return [c.tokens_per_second or average for c in candidates]


def _lowest(
    candidates: Sequence[C], speeds: Sequence[float], work: Callable[[C], float], rng: random.Random
) -> C:
    """The candidate with the least work for its speed; equals are chosen among by chance."""
    costs = [work(c) / speed for c, speed in zip(candidates, speeds, strict=True)]
    least = min(costs)
    return rng.choice([c for c, cost in zip(candidates, costs, strict=True) if cost == least])
