"""How many requests may be tried again."""

from __future__ import annotations

import pytest

from controller.retry_budget import PER_SECOND, RESERVE, RetryBudget
from tests.controller.test_registry import Clock


def spent(budget: RetryBudget) -> int:
    count = 0
    while budget.spend():
        count += 1
    return count


def test_all_requests_of_one_lost_worker_may_move_at_once() -> None:
    assert spent(RetryBudget(clock=Clock())) == RESERVE


def test_in_the_long_run_a_fifth_of_the_requests_may_be_tried_again() -> None:
    budget = RetryBudget(clock=Clock())
    spent(budget)
    for _ in range(100):
        budget.earn()
    assert spent(budget) == pytest.approx(20, abs=1)


def test_time_earns_retries_too_and_a_clock_that_goes_back_none() -> None:
    clock = Clock()
    budget = RetryBudget(clock=clock)
    spent(budget)
    clock.now += 2
    assert spent(budget) == 2 * PER_SECOND
    clock.now -= 1000
    assert spent(budget) == 0
    clock.now += 1
    assert spent(budget) == PER_SECOND
