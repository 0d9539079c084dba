"""When a worker that failed is asked again."""

from __future__ import annotations

import pytest

from controller.breaker import ERRORS_IN_A_ROW, LONGEST_PAUSE_SECONDS, Breaker, BreakerState


def opened(failures: int) -> tuple[Breaker, float]:
    """A breaker after so many failures in a row, and the time of the last."""
    breaker, now = Breaker(), 0.0
    for _ in range(failures):
        now += 100
        breaker.hear(now)
        breaker.fail("refused", now)
    return breaker, now


def test_a_failure_opens_it_and_being_heard_of_makes_room_for_one_probe() -> None:
    breaker, now = opened(1)
    assert breaker.state is BreakerState.OPEN
    assert not breaker.lets_pass
    breaker.hear(now)
    assert breaker.state is BreakerState.HALF_OPEN
    assert breaker.lets_pass
    with breaker.probe():
        assert not breaker.lets_pass
    assert breaker.lets_pass


def test_a_probe_that_answers_closes_it_for_all() -> None:
    breaker, now = opened(3)
    breaker.hear(now + 50)
    with breaker.probe():
        breaker.succeed()
        assert breaker.lets_pass
    assert breaker.state is BreakerState.CLOSED
    assert breaker.reason is None
    breaker.fail("again", now)
    breaker.hear(now)
    assert breaker.state is BreakerState.HALF_OPEN  # the count began anew


@pytest.mark.parametrize(("failures", "pause"), [(2, 1), (3, 2), (4, 4), (30, 30)])
def test_each_failed_probe_doubles_the_pause_up_to_a_bound(failures: int, pause: float) -> None:
    breaker, now = opened(failures)
    breaker.hear(now + pause - 0.01)
    assert breaker.state is BreakerState.OPEN
    breaker.hear(now + pause)
    assert breaker.state is BreakerState.HALF_OPEN
    assert pause <= LONGEST_PAUSE_SECONDS


def test_requests_that_fail_together_count_once() -> None:
    breaker = Breaker()
    for _ in range(64):
        breaker.fail("reset", 1.0)
    breaker.hear(1.0)
    assert breaker.state is BreakerState.HALF_OPEN


def test_a_second_request_is_not_the_probe_and_does_not_end_it() -> None:
    breaker, now = opened(1)
    breaker.hear(now)
    with breaker.probe():
        with breaker.probe():
            pass
        assert breaker.is_probing


def test_one_error_may_be_the_requests_fault_and_several_in_a_row_are_the_workers() -> None:
    breaker = Breaker()
    assert [breaker.stumble("it answered 500", 0.0) for _ in range(ERRORS_IN_A_ROW)] == (
        [False] * (ERRORS_IN_A_ROW - 1) + [True]
    )
    assert breaker.state is BreakerState.OPEN
    assert breaker.reason == "it answered 500"


def test_an_answer_between_them_makes_errors_single_ones() -> None:
    breaker = Breaker()
    for _ in range(5):
        assert not breaker.stumble("it answered 500", 0.0)
        breaker.succeed()
    assert breaker.state is BreakerState.CLOSED


def test_a_probe_that_is_answered_with_an_error_has_failed() -> None:
    breaker, now = opened(1)
    breaker.hear(now)
    with breaker.probe():
        assert breaker.stumble("it answered 500", now)
    assert breaker.state is BreakerState.OPEN
    assert breaker.pause_until > now
