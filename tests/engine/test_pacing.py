"""Prompts are read at a pace that running streams can bear."""

from hypothesis import given
from hypothesis import strategies as st

from worker.engine.pacing import LEAST_TOKENS, MOST_TOKENS, PrefillPacer

SECONDS = st.floats(1e-6, 10)


def test_nobody_waits_so_as_much_as_possible_is_read():
    pacer = PrefillPacer()
    pacer.decoded(0.01)
    pacer.prefilled(100, 1.0)
    assert pacer.budget(is_decoding=False) == MOST_TOKENS


def test_a_prompt_takes_as_long_as_a_decode_step():
    pacer = PrefillPacer()
    pacer.decoded(0.1)
    pacer.prefilled(1_000, 1.0)
    assert pacer.budget(is_decoding=True) == 100


def test_a_slower_machine_reads_less_at_once():
    pacer = PrefillPacer()
    pacer.decoded(0.1)
    pacer.prefilled(1_000, 1.0)
    for _ in range(20):
        pacer.prefilled(1_000, 2.0)
    assert 49 <= pacer.budget(is_decoding=True) <= 51


@given(st.lists(st.tuples(st.integers(1, 5_000), SECONDS, SECONDS), max_size=20), st.booleans())
def test_a_prompt_always_goes_on_and_never_without_bound(measured, is_decoding):
    pacer = PrefillPacer()
    for tokens, reading, decoding in measured:
        pacer.prefilled(tokens, reading)
        pacer.decoded(decoding)
    assert LEAST_TOKENS <= pacer.budget(is_decoding=is_decoding) <= MOST_TOKENS
