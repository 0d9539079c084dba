"""When a process is started again: the rule alone, on a clock that the tests hold."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from controller.fleet.restart import EXIT_USAGE, GiveUp, Restart, RestartRecord, RestartRule

RULE = RestartRule(
    first_delay_seconds=0.5,
    factor=2.0,
    longest_delay_seconds=3.0,
    stable_seconds=10.0,
    max_failed_starts=3,
)


def killed_when_ready(record: RestartRecord, *, at: float, lived: float) -> Restart | GiveUp:
    record.became_ready(at)
    return record.exited(-9, at + lived)


def test_the_pause_grows_up_to_its_bound():
    record = RestartRecord(RULE)
    decisions = [killed_when_ready(record, at=float(i), lived=0.1) for i in range(5)]
    assert decisions == [Restart(0.5), Restart(1.0), Restart(2.0), Restart(3.0), Restart(3.0)]


def test_a_stable_run_resets_the_pause():
    record = RestartRecord(RULE)
    killed_when_ready(record, at=0, lived=1)
    killed_when_ready(record, at=5, lived=1)
    assert killed_when_ready(record, at=20, lived=10.0) == Restart(0.5)


def test_a_run_just_short_of_stable_does_not_reset_the_pause():
    record = RestartRecord(RULE)
    killed_when_ready(record, at=0, lived=1)
    assert killed_when_ready(record, at=20, lived=9.9) == Restart(1.0)


def test_a_process_that_never_becomes_ready_is_given_up():
    record = RestartRecord(RULE)
    assert record.exited(1, 0) == Restart(0.5)
    assert record.exited(1, 1) == Restart(1.0)
    assert record.exited(1, 2) == GiveUp("3 starts in a row ended before it was ready")


def test_one_that_was_ready_once_is_started_again_however_often_it_is_killed_while_it_loads():
    record = RestartRecord(RULE)
    record.exited(1, 0)
    record.exited(1, 1)
    assert isinstance(killed_when_ready(record, at=2, lived=0.1), Restart)
    for second in range(5, 50):
        assert isinstance(record.exited(-9, second), Restart)
    assert record.exited(-9, 50) == Restart(RULE.longest_delay_seconds)


def test_a_process_that_refuses_to_start_is_given_up_at_once():
    assert isinstance(RestartRecord(RULE).exited(EXIT_USAGE, 0), GiveUp)


def test_the_same_status_after_it_served_is_a_crash_like_any_other():
    record = RestartRecord(RULE)
    record.became_ready(0)
    assert record.exited(EXIT_USAGE, 1) == Restart(0.5)


def test_one_that_had_served_may_refuse_to_start_for_a_while():
    record = RestartRecord(RULE)
    killed_when_ready(record, at=0, lived=1)
    assert record.exited(EXIT_USAGE, 2) == Restart(1.0)


def test_a_new_run_is_not_ready_before_it_says_so():
    record = RestartRecord(RULE)
    record.became_ready(0)
    assert record.is_ready
    record.exited(0, 1)
    assert not record.is_ready


@given(lives=st.lists(st.floats(min_value=0, max_value=1e6), max_size=2000))
def test_a_process_that_serves_is_never_given_up_however_often_it_is_killed(lives):
    record, now = RestartRecord(RULE), 0.0
    for lived in lives:
        decision = killed_when_ready(record, at=now, lived=lived)
        now += lived
        assert isinstance(decision, Restart)
        assert RULE.first_delay_seconds <= decision.delay_seconds <= RULE.longest_delay_seconds


def test_ten_thousand_restarts_overflow_nothing():
    record = RestartRecord(RULE)
    for _ in range(10_000):
        decision = killed_when_ready(record, at=0, lived=0)
    assert decision == Restart(3.0)
