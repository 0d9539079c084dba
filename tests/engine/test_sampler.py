"""The next token is drawn from what the request allows."""

import pytest
import torch

from worker.engine.protocol import SamplingParams
from worker.engine.sampler import Sampler, SamplingDefaults

# Probabilities 0.5, 0.25, 0.15, 0.1, shuffled.
LOGITS = torch.tensor([0.15, 0.5, 0.1, 0.25]).log()


def drawn(count=2_000, *, defaults=None, prompt=(), **asked):
    sampler = Sampler(
        SamplingParams(**{"seed": 0, **asked}), defaults or SamplingDefaults(), prompt
    )
    tokens = [sampler.sample(LOGITS) for _ in range(count)]
    return {token: tokens.count(token) / count for token in set(tokens)}


@pytest.mark.parametrize("temperature", [0, 0.001])
def test_without_temperature_the_likeliest_token_is_taken(temperature):
    assert drawn(temperature=temperature) == {1: 1.0}


def test_at_temperature_1_tokens_are_as_frequent_as_they_are_likely():
    found = drawn(temperature=1)
    for token, probability in enumerate([0.15, 0.5, 0.1, 0.25]):
        assert found[token] == pytest.approx(probability, abs=0.04)


def test_a_low_temperature_prefers_the_likely():
    assert drawn(temperature=0.5)[1] == pytest.approx(
        0.25 / (0.25 + 0.0625 + 0.0225 + 0.01), abs=0.04
    )


def test_top_k_keeps_the_likeliest():
    assert drawn(temperature=1, top_k=2).keys() == {1, 3}
    assert drawn(temperature=1, top_k=1) == {1: 1.0}


@pytest.mark.parametrize("off", [0, -1, 4, 100])
def test_top_k_can_be_off(off):
    assert drawn(temperature=1, top_k=off).keys() == {0, 1, 2, 3}


def test_top_p_keeps_tokens_until_their_sum_reaches_it():
    assert drawn(temperature=1, top_p=0.49).keys() == {1}
    assert drawn(temperature=1, top_p=0.7).keys() == {1, 3}
    assert drawn(temperature=1, top_p=0.85).keys() == {1, 3, 0}
    assert drawn(temperature=1, top_p=1e-9).keys() == {1}


def test_what_a_request_leaves_open_is_the_checkpoints():
    defaults = SamplingDefaults(temperature=1.0, top_k=2)
    assert drawn(defaults=defaults).keys() == {1, 3}
    assert drawn(defaults=defaults, top_k=0).keys() == {0, 1, 2, 3}
    assert drawn(defaults=defaults, temperature=0) == {1: 1.0}


def test_a_repetition_penalty_makes_what_was_there_less_likely():
    defaults = SamplingDefaults(repetition_penalty=3.0)
    assert drawn(1, defaults=defaults) == {1: 1.0}
    # An image's placeholder may be no token of the vocabulary.
    assert drawn(1, defaults=defaults, prompt=[1, 32_000]) == {3: 1.0}


@pytest.mark.parametrize("seed", [0, -1, 2**63, 2**70])
def test_any_integer_is_a_seed(seed):
    assert drawn(50, temperature=1, seed=seed) == drawn(50, temperature=1, seed=seed)


def test_half_precision_logits_are_drawn_in_float32():
    sampler = Sampler(SamplingParams(temperature=1, seed=0), SamplingDefaults())
    assert 0 <= sampler.sample(LOGITS.to(torch.bfloat16)) < 4
