"""Admission and order: bounds hold, each request ends once, nobody is forgotten."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from controller.protocol.errors import QueueFullError
from worker.engine.scheduler import FIRST_GUESS_SECONDS, Phase, Scheduler


def test_requests_run_in_the_order_of_their_arrival():
    scheduler = Scheduler(capacity=1, max_waiting=2)
    first, second = scheduler.admit(0), scheduler.admit(1)
    scheduler.mark_ready(second)
    scheduler.mark_ready(first)
    assert scheduler.start_next(2) is first
    assert scheduler.start_next(2) is None
    scheduler.end(first, 3)
    assert scheduler.start_next(3) is second


def test_a_request_whose_image_takes_long_does_not_hold_up_the_next():
    scheduler = Scheduler(capacity=1, max_waiting=2)
    slow, quick = scheduler.admit(0), scheduler.admit(1)
    scheduler.mark_ready(quick)
    assert scheduler.start_next(2) is quick
    assert slow.phase is Phase.PREPARING


def test_a_full_queue_refuses():
    scheduler = Scheduler(capacity=1, max_waiting=1)
    scheduler.admit(0)
    scheduler.admit(0)
    with pytest.raises(QueueFullError) as caught:
        scheduler.admit(0)
    assert caught.value.retry_after_seconds == FIRST_GUESS_SECONDS
    assert "--max-queue" in caught.value.message


def test_a_worker_without_a_queue_takes_one_request():
    scheduler = Scheduler(capacity=1, max_waiting=0)
    ticket = scheduler.admit(0)
    with pytest.raises(QueueFullError):
        scheduler.check_room()
    scheduler.end(ticket, 1)
    scheduler.check_room()


def test_the_wait_is_judged_by_recent_answers_and_the_work_ahead():
    scheduler = Scheduler(capacity=1, max_waiting=2)
    for seconds in (4.0, 6.0):
        ticket = scheduler.admit(0)
        scheduler.mark_ready(ticket)
        scheduler.start_next(0)
        scheduler.end(ticket, seconds)
    for _ in range(3):
        scheduler.admit(0)
    with pytest.raises(QueueFullError) as caught:
        scheduler.admit(0)
    assert caught.value.retry_after_seconds == pytest.approx(15)
    assert caught.value.headers() == {"retry-after": "15"}


def test_a_request_that_waits_gives_its_place_up():
    scheduler = Scheduler(capacity=1, max_waiting=1)
    running, waiting = scheduler.admit(0), scheduler.admit(0)
    scheduler.mark_ready(running)
    scheduler.start_next(0)
    scheduler.end(waiting, 1)
    assert (scheduler.running, scheduler.waiting) == (1, 0)


def test_a_request_ends_once():
    scheduler = Scheduler(capacity=1, max_waiting=1)
    ticket = scheduler.admit(0)
    scheduler.end(ticket, 1)
    with pytest.raises(ValueError, match="once"):
        scheduler.end(ticket, 2)


class AnyOrder(RuleBasedStateMachine):
    """Arrivals, preparations, starts and ends in any order."""

    def __init__(self):
        super().__init__()
        self.scheduler = Scheduler(capacity=2, max_waiting=3)
        self.alive = []
        self.now = 0.0

    def tick(self):
        self.now += 1
        return self.now

    @rule()
    def arrive(self):
        if len(self.alive) < 5:
            self.alive.append(self.scheduler.admit(self.tick()))
        else:
            with pytest.raises(QueueFullError):
                self.scheduler.admit(self.tick())

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def prepare(self, data):
        ticket = data.draw(st.sampled_from(self.alive))
        if ticket.phase is Phase.PREPARING:
            self.scheduler.mark_ready(ticket)

    @rule()
    def start(self):
        ready = [t for t in self.alive if t.phase is Phase.WAITING]
        has_place = self.scheduler.running < 2
        started = self.scheduler.start_next(self.tick())
        assert started is (ready[0] if ready and has_place else None)

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def end(self, data):
        ticket = data.draw(st.sampled_from(self.alive))
        self.scheduler.end(ticket, self.tick())
        self.alive.remove(ticket)

    @invariant()
    def counts_are_true(self):
        running = [t for t in self.alive if t.phase is Phase.RUNNING]
        assert self.scheduler.running == len(running) <= 2
        assert self.scheduler.waiting == len(self.alive) - len(running)


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)
