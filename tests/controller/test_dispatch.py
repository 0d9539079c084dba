"""The policies' rules, and how they share out work."""

from __future__ import annotations

import random
import statistics
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.dispatch import (
    POLICIES,
    DispatchMethod,
    affinity,
    least_work,
    lottery,
    shortest_queue,
)
from controller.registry import Registry
from controller.routing import DEFAULT_ANSWER_TOKENS, RoutingHints
from tests.controller.cost_model import (
    Policy,
    SimulatedRequest,
    SimulatedWorker,
    answer_percentile,
    first_token_percentile,
    round_robin,
    simulate,
)


@dataclass(eq=False)
class Worker:
    """What a policy sees of one."""

    address: str = "http://a"
    queue_length: int = 0
    in_flight: int = 0
    in_flight_tokens: int = 0
    capacity: int = 4
    tokens_per_second: float | None = None


HINTS = RoutingHints(model="demo", tokens=100)


def rng() -> random.Random:
    return random.Random(7)


WORKERS = st.builds(
    Worker,
    address=st.integers(1, 9).map(lambda n: f"http://host:{n}"),
    queue_length=st.integers(0, 50),
    in_flight=st.just(0),
    in_flight_tokens=st.integers(0, 10_000),
    capacity=st.integers(1, 64),
    tokens_per_second=st.none() | st.floats(0.0, 1e5),
)
ANY_HINTS = st.builds(
    RoutingHints,
    model=st.just("demo"),
    tokens=st.integers(1, 10_000),
    distinct=st.none() | st.text(),
)


@pytest.mark.parametrize("method", DispatchMethod)
@given(candidates=st.lists(WORKERS, min_size=1, max_size=8), hints=ANY_HINTS, seed=st.integers())
def test_every_policy_chooses_one_of_the_candidates(
    method: DispatchMethod, candidates: list[Worker], hints: RoutingHints, seed: int
) -> None:
    # Speeds of zero, as LLaVA's workers may register, are among them.
    assert POLICIES[method](candidates, hints, random.Random(seed)) in candidates


def test_the_table_holds_every_method() -> None:
    assert set(POLICIES) == set(DispatchMethod)


def test_shortest_queue_takes_the_one_with_fewer_requests() -> None:
    busy, idle = Worker(queue_length=3), Worker(queue_length=1)
    assert shortest_queue([busy, idle], HINTS, rng()) is idle


def test_shortest_queue_counts_a_request_less_on_a_faster_worker() -> None:
    slow = Worker(queue_length=2, tokens_per_second=10)
    fast = Worker(queue_length=4, tokens_per_second=30)
    assert shortest_queue([slow, fast], HINTS, rng()) is fast


def test_equally_loaded_workers_are_chosen_equally_often() -> None:
    workers = [Worker(), Worker()]
    chance = rng()
    chosen = Counter(id(shortest_queue(workers, HINTS, chance)) for _ in range(1000))
    assert all(450 < count < 550 for count in chosen.values())
    assert len(chosen) == 2


def test_lottery_draws_in_proportion_to_speed() -> None:
    slow, fast = Worker(tokens_per_second=10), Worker(tokens_per_second=30)
    chance = rng()
    wins = sum(lottery([slow, fast], HINTS, chance) is fast for _ in range(4000))
    assert 2900 < wins < 3100


def test_least_work_takes_the_one_with_less_work_ahead() -> None:
    # One long answer is more work than three short ones.
    long = Worker(queue_length=1, in_flight=1, in_flight_tokens=1000)
    short = Worker(queue_length=3, in_flight=3, in_flight_tokens=90)
    assert least_work([long, short], HINTS, rng()) is short


def test_least_work_prefers_the_faster_of_two_idle_workers() -> None:
    slow, fast = Worker(tokens_per_second=10), Worker(tokens_per_second=30)
    assert least_work([slow, fast], HINTS, rng()) is fast


def test_least_work_counts_the_requests_of_others() -> None:
    elsewhere = Worker(queue_length=2)
    ours = Worker(queue_length=1, in_flight=1, in_flight_tokens=DEFAULT_ANSWER_TOKENS)
    assert least_work([elsewhere, ours], HINTS, rng()) is ours


def test_an_unmeasured_worker_counts_as_an_average_one() -> None:
    new = Worker(in_flight_tokens=10)
    slow = Worker(tokens_per_second=10, in_flight_tokens=10)
    fast = Worker(tokens_per_second=30, in_flight_tokens=10)
    assert least_work([slow, new], HINTS, random.Random(1)) in (slow, new)
    assert least_work([fast, new, slow], HINTS, rng()) is fast


KEYED = [RoutingHints(model="demo", distinct=f"image {n}") for n in range(200)]


def test_affinity_returns_the_same_image_to_the_same_worker() -> None:
    workers = [Worker(address=f"http://host:{n}") for n in range(4)]
    for hints in KEYED:
        first = affinity(workers, hints, random.Random(1))
        assert affinity(list(reversed(workers)), hints, random.Random(2)) is first


def test_affinity_spreads_images_over_workers() -> None:
    workers = [Worker(address=f"http://host:{n}") for n in range(4)]
    shares = Counter(affinity(workers, hints, rng()).address for hints in KEYED)
    assert len(shares) == 4
    assert min(shares.values()) > 25


def test_when_a_worker_goes_only_its_own_images_move() -> None:
    workers = [Worker(address=f"http://host:{n}") for n in range(4)]
    for hints in KEYED:
        home = affinity(workers, hints, rng())
        remaining = [worker for worker in workers if worker is not workers[0]]
        if home is not workers[0]:
            assert affinity(remaining, hints, rng()) is home


def test_affinity_passes_over_a_worker_a_whole_batch_behind_the_idlest() -> None:
    workers = [Worker(address=f"http://host:{n}") for n in range(2)]
    home = affinity(workers, KEYED[0], rng())
    home.queue_length = home.capacity
    assert affinity(workers, KEYED[0], rng()) is home
    home.queue_length = home.capacity + 1
    assert affinity(workers, KEYED[0], rng()) is not home


def served(policy: Policy, *, rate: float, seed: int = 1) -> list[SimulatedRequest]:
    """Requests that two workers of speed 1 and 3 have answered.

    At 2.5 a second a half of them is just what the slow one can take, at 4.5 it is twice that.
    """
    workers = [SimulatedWorker("slow", speed=1), SimulatedWorker("fast", speed=3)]
    requests = simulate(policy, workers, rate=rate, seconds=200, seed=seed)
    assert all(request.produced == request.answer_tokens for request in requests)
    return requests


@pytest.mark.parametrize("rate", [2.5, 3.5, 4.5])
@pytest.mark.parametrize("method", DispatchMethod)
def test_every_policy_keeps_first_tokens_far_sooner_than_round_robin(
    method: DispatchMethod, rate: float
) -> None:
    turns = first_token_percentile(served(round_robin(), rate=rate), 99)
    assert first_token_percentile(served(POLICIES[method], rate=rate), 99) < 0.2 * turns


def test_least_work_ends_the_longest_answers_sooner_than_a_lottery() -> None:
    def p99(policy: Policy) -> float:
        found = [answer_percentile(served(policy, rate=3.5, seed=seed), 99) for seed in range(3)]
        return statistics.mean(found)

    assert p99(least_work) < 0.8 * p99(lottery)


@pytest.mark.parametrize("method", DispatchMethod)
def test_no_policy_herds_while_reports_are_stale(method: DispatchMethod) -> None:
    # A burst within one heartbeat: whoever looked idle in the last report looks so all along.
    workers = [SimulatedWorker("a", speed=1), SimulatedWorker("b", speed=1)]
    registry = Registry(clock=lambda: 0.0, wall_clock=lambda: 0.0)
    for worker in workers:
        registry.heartbeat(worker.registration(0.0))
    chance = rng()
    with ExitStack() as open_requests:
        for hints in KEYED[:100]:
            record = POLICIES[method](registry.rotation("demo"), hints, chance)
            open_requests.enter_context(record.carrying(hints.tokens))
        shares = [record.in_flight for record in registry.workers()]
    assert min(shares) >= 30


def test_affinity_without_a_key_is_least_work() -> None:
    slow, fast = Worker(tokens_per_second=10), Worker(tokens_per_second=30)
    assert affinity([slow, fast], HINTS, rng()) is fast
