"""Prompts are read at a pace that running streams can bear."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.engine.pacing import (
    FLUENT_SECONDS,
    LEAST_TOKENS,
    MOST_TOKENS,
    SHARE,
    PrefillPacer,
)

SECONDS = st.floats(0, 10)


def settled(cost, step_seconds=0.1):
    """A pacer on a machine where a part of n tokens takes ``cost(n)`` seconds."""
    pacer = PrefillPacer()
    for _ in range(30):
        pacer.decoded(step_seconds)
        part = pacer.budget(is_decoding=True)
        pacer.prefilled(part, cost(part))
    return pacer


def test_nobody_waits_so_as_much_as_possible_is_read():
    assert settled(lambda tokens: tokens / 100).budget(is_decoding=False) == MOST_TOKENS


@pytest.mark.parametrize("overhead", [0.0, 0.1])
def test_a_part_takes_as_long_as_it_may_whatever_a_forward_pass_costs_at_least(overhead):
    part = settled(lambda tokens: overhead + tokens / 2_000).budget(is_decoding=True)
    assert overhead + part / 2_000 == pytest.approx(SHARE * 0.1, rel=0.05)


def test_a_slow_machine_still_reads_parts_that_are_worth_a_pass():
    assert settled(lambda tokens: tokens / 10).budget(is_decoding=True) == LEAST_TOKENS


def test_the_short_end_of_a_prompt_does_not_shrink_the_next_ones_parts():
    pacer = settled(lambda tokens: tokens / 2_000)
    before = pacer.budget(is_decoding=True)
    pacer.prefilled(3, 0.0015)
    assert pacer.budget(is_decoding=True) == before


@given(st.lists(st.tuples(st.integers(1, 5_000), SECONDS, SECONDS), max_size=20), st.booleans())
def test_a_prompt_always_goes_on_and_never_without_bound(measured, is_decoding):
    pacer = PrefillPacer()
    for tokens, reading, decoding in measured:
        pacer.prefilled(tokens, reading)
        pacer.decoded(decoding)
    assert LEAST_TOKENS <= pacer.budget(is_decoding=is_decoding) <= MOST_TOKENS


def test_the_first_part_beside_a_running_stream_is_no_longer_than_later_ones():
    pacer = PrefillPacer()
    pacer.prefilled(300, 0.15)  # before anybody waited
    pacer.decoded(0.1)
    assert pacer.budget(is_decoding=True) == int(SHARE * 0.1 / (0.15 / 300))


def test_streams_that_are_fast_give_prompts_more_of_their_time():
    pacer = settled(lambda tokens: tokens / 4_000, step_seconds=0.01)
    assert pacer.budget(is_decoding=True) == int((FLUENT_SECONDS - 0.01) * 4_000)
