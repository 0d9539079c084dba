"""The next token is drawn from what the request allows."""

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.engine.draw import CANDIDATES, Draw
from worker.engine.protocol import SamplingParams
from worker.engine.sampler import Sampler, SamplingDefaults
from worker.engine.sampling_batch import LEAST_LOGPROB, SamplingBatch

# Probabilities 0.5, 0.25, 0.15, 0.1, shuffled.
LOGITS = torch.tensor([0.15, 0.5, 0.1, 0.25]).log()


def sampler(*, defaults=None, prompt=(), ends=frozenset(), **asked):
    defaults = defaults or SamplingDefaults()
    params = SamplingParams(**{"seed": 0, **asked})
    return Sampler(params, defaults, prompt, end_token_ids=ends)


def drawn(count=2_000, **asked):
    one, batch = sampler(**asked), SamplingBatch()
    tokens = [batch.sample([one], LOGITS[None])[0] for _ in range(count)]
    return {token: tokens.count(token) / count for token in set(tokens)}


@pytest.mark.parametrize("temperature", [0, 0.001])
def test_without_temperature_the_likeliest_token_is_taken(temperature):
    assert drawn(9, temperature=temperature) == {1: 1.0}


def test_at_temperature_1_tokens_are_as_frequent_as_they_are_likely():
    found = drawn(temperature=1)
    for token, probability in enumerate([0.15, 0.5, 0.1, 0.25]):
        assert found[token] == pytest.approx(probability, abs=0.04)


def test_a_low_temperature_prefers_the_likely():
    assert drawn(temperature=0.5)[1] == pytest.approx(
        0.25 / (0.25 + 0.0625 + 0.0225 + 0.01), abs=0.04
    )


def test_top_k_keeps_the_likeliest():
    assert drawn(400, temperature=1, top_k=2).keys() == {1, 3}
    assert drawn(99, temperature=1, top_k=1) == {1: 1.0}


@pytest.mark.parametrize("off", [0, -1, 4, 100])
def test_top_k_can_be_off(off):
    assert drawn(400, temperature=1, top_k=off).keys() == {0, 1, 2, 3}


def test_top_p_keeps_tokens_until_their_sum_reaches_it():
    assert drawn(400, temperature=1, top_p=0.49).keys() == {1}
    assert drawn(400, temperature=1, top_p=0.7).keys() == {1, 3}
    assert drawn(400, temperature=1, top_p=0.85).keys() == {1, 3, 0}
    assert drawn(400, temperature=1, top_p=1e-9).keys() == {1}


def test_min_p_keeps_what_is_not_much_less_likely_than_the_likeliest():
    assert drawn(400, temperature=1, min_p=0.49).keys() == {1, 3}
    assert drawn(400, temperature=1, min_p=0.25).keys() == {0, 1, 3}
    assert drawn(99, temperature=1, min_p=1.0).keys() == {1}


def test_what_a_request_leaves_open_is_the_checkpoints():
    defaults = SamplingDefaults(temperature=1.0, top_k=2)
    assert drawn(400, defaults=defaults).keys() == {1, 3}
    assert drawn(400, defaults=defaults, top_k=0).keys() == {0, 1, 2, 3}
    assert drawn(99, defaults=defaults, temperature=0) == {1: 1.0}
    assert drawn(400, defaults=SamplingDefaults(temperature=1.0, min_p=0.4)).keys() == {1, 3}


def test_a_repetition_penalty_makes_what_was_there_less_likely():
    defaults = SamplingDefaults(repetition_penalty=3.0)
    assert drawn(1, defaults=defaults) == {1: 1.0}
    # An image's placeholder may be no token of the vocabulary.
    assert drawn(1, defaults=defaults, prompt=[1, 32_000]) == {3: 1.0}
    assert drawn(1, repetition_penalty=3.0, prompt=[1]) == {3: 1.0}
    assert drawn(1, defaults=defaults, repetition_penalty=1.0, prompt=[1]) == {1: 1.0}


def greedy_tokens(count, **asked):
    one, batch = sampler(**asked), SamplingBatch()
    return [int(batch.sample([one], LOGITS[None])[0]) for _ in range(count)]


def test_a_presence_penalty_counts_a_token_once_and_a_frequency_penalty_each_time():
    # ln 0.5 - ln 0.25 = 0.69, ln 0.25 - ln 0.15 = 0.51, ln 0.15 - ln 0.1 = 0.41
    assert greedy_tokens(6, presence_penalty=1.0) == [1, 3, 1, 1, 1, 1]
    assert greedy_tokens(6, frequency_penalty=0.7) == [1, 3, 1, 0, 3, 1]
    # The prompt does not count, and less than nothing is a reward.
    assert greedy_tokens(3, presence_penalty=1.0, prompt=[1]) == [1, 3, 1]
    assert greedy_tokens(6, frequency_penalty=-2.0) == [1] * 6


def test_a_logit_bias_forbids_and_demands():
    assert drawn(400, temperature=1, logit_bias=((1, -100.0), (3, -100.0))).keys() == {0, 2}
    assert drawn(99, temperature=1, logit_bias=((2, 100.0),)) == {2: 1.0}


def test_ends_do_not_come_before_the_least_length():
    tokens = greedy_tokens(5, ends=frozenset({1, 4_000}), min_tokens=3)
    assert tokens == [3, 3, 3, 1, 1]
    assert greedy_tokens(2, stop_token_ids=frozenset({1}), min_tokens=1) == [3, 1]


@pytest.mark.parametrize("seed", [0, -1, 2**63, 2**70])
def test_any_integer_is_a_seed(seed):
    asked = {"temperature": 1, "seed": seed}
    tokens = [[sampler(**asked).uniform() for _ in range(2)] for _ in range(2)]
    assert tokens[0] == tokens[1]
    assert sampler(**asked).uniform() != sampler(**{**asked, "seed": seed + 1}).uniform()


def test_each_choice_of_a_request_draws_its_own_numbers():
    first, second = ([sampler(choice=choice).uniform()] for choice in (0, 1))
    assert first != second


def test_without_a_seed_every_answer_is_another():
    assert sampler(seed=None).uniform() != sampler(seed=None).uniform()


def test_logprobs_are_the_models_own_whatever_the_request_makes_of_them():
    asked = {"temperature": 0.1, "logit_bias": ((1, -100.0),), "presence_penalty": 2.0}
    one, batch = sampler(**asked, logprobs=2), SamplingBatch()
    (token,) = batch.sample([one], LOGITS[None])
    assert token == 3
    assert token.logprob == pytest.approx(float(LOGITS[3]), abs=1e-5)
    assert [each for each, _ in token.likeliest] == [1, 3]
    assert token.likeliest[0][1] == pytest.approx(float(LOGITS[1]), abs=1e-5)


def test_each_row_is_told_as_many_logprobs_as_it_asked_for():
    rows = [sampler(logprobs=3), sampler(), sampler(logprobs=0)]
    tokens = SamplingBatch().sample(rows, LOGITS.repeat(3, 1))
    assert [len(token.likeliest) for token in tokens] == [3, 0, 0]
    assert [token.logprob is None for token in tokens] == [False, True, False]


def test_what_cannot_come_has_a_logprob_that_json_can_say():
    logits = torch.tensor([[1.0, float("-inf")]])
    (token,) = SamplingBatch().sample([sampler(logprobs=2)], logits)
    assert token.likeliest[1] == (1, LEAST_LOGPROB)


def test_half_precision_logits_are_drawn_in_float32():
    (token,) = SamplingBatch().sample([sampler(temperature=1)], LOGITS[None].to(torch.bfloat16))
    assert 0 <= token < 4


def test_logits_are_left_as_they_were():
    logits = LOGITS[None].clone()
    SamplingBatch().sample([sampler(temperature=1, presence_penalty=1, top_k=2)], logits)
    assert torch.equal(logits, LOGITS[None])


# Against transformers' own.

LENGTH = 300  # more than CANDIDATES, so that both ways of ranking are taken
SETTINGS = st.fixed_dictionaries(
    {
        "temperature": st.sampled_from([0.2, 0.7, 1.0, 1.5]),
        "top_k": st.sampled_from([0, 1, 5, 40, 290]),
        "top_p": st.sampled_from([0.05, 0.5, 0.9, 0.999, 1.0]),
        "min_p": st.sampled_from([0.0, 0.01, 0.3]),
        "repetition_penalty": st.sampled_from([1.0, 1.3, 0.8]),
        "min_tokens": st.sampled_from([0, 2]),
        "logit_bias": st.sampled_from([(), ((3, 5.0), (290, -100.0))]),
    }
)
SCALES = st.sampled_from([0.1, 1.0, 3.0])
PROMPT = [5, 7, 7, 299]
ENDS = frozenset({11, 12})


def theirs(scores, asked, said):
    """What transformers' processors make of scores, in the order of its ``generate``."""
    ids = torch.tensor([PROMPT + said])
    found = scores[None].clone()
    bias = {(token_id,): value for token_id, value in asked["logit_bias"]}
    processors = [transformers.SequenceBiasLogitsProcessor(bias)] if bias else []
    processors += [
        transformers.RepetitionPenaltyLogitsProcessor(asked["repetition_penalty"]),
        transformers.MinNewTokensLengthLogitsProcessor(
            len(PROMPT), asked["min_tokens"], sorted(ENDS)
        ),
        transformers.TemperatureLogitsWarper(asked["temperature"]),
    ]
    if asked["top_k"]:
        processors.append(transformers.TopKLogitsWarper(asked["top_k"]))
    if asked["top_p"] < 1:
        processors.append(transformers.TopPLogitsWarper(asked["top_p"]))
    if asked["min_p"]:
        processors.append(transformers.MinPLogitsWarper(asked["min_p"]))
    for processor in processors:
        found = processor(ids, found)
    return found.softmax(dim=-1)[0]


class SpiedDraw:
    """Keeps what was drawn from."""

    def __init__(self, monkeypatch):
        self.last = None
        original = Draw.probabilities

        def probabilities(draw, scores):
            self.last = original(draw, scores).clone()
            return self.last

        monkeypatch.setattr(Draw, "probabilities", probabilities)


def test_what_is_drawn_from_is_what_transformers_draws_from(monkeypatch):
    spied = SpiedDraw(monkeypatch)
    assert LENGTH > CANDIDATES

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.tuples(SETTINGS, SCALES), min_size=1, max_size=5), st.integers(0, 1_000))
    def check(rows, seed):
        scales = torch.tensor([scale for _, scale in rows])[:, None]
        draws = torch.Generator().manual_seed(seed)
        samplers = [sampler(prompt=PROMPT, ends=ENDS, **asked) for asked, _ in rows]
        said, batch = [[] for _ in rows], SamplingBatch()
        for _ in range(3):
            logits = torch.randn(len(rows), LENGTH, generator=draws) * scales * 3
            tokens = batch.sample(samplers, logits)
            ours = spied.last / spied.last.sum(dim=-1, keepdim=True)
            for row, (asked, _) in enumerate(rows):
                expected = theirs(logits[row], asked, said[row])
                torch.testing.assert_close(ours[row], expected, atol=2e-5, rtol=2e-3)
                assert expected[tokens[row]] > 0
                said[row].append(int(tokens[row]))

    check()


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(SETTINGS, st.integers(0, 3), st.integers(1, 6), st.booleans()),
        min_size=2,
        max_size=6,
    ),
    st.integers(0, 1_000),
)
def test_a_rows_tokens_do_not_depend_on_the_rows_beside_it(rows, seed):
    """Rows join and leave; each has logits of its own, in whatever company."""

    def logits(row, place):
        draws = torch.Generator().manual_seed(seed + 100 * row + place)
        return torch.randn(LENGTH, generator=draws) * 2

    def made(row):
        asked, _, _, is_greedy = rows[row]
        asked = {**asked, "presence_penalty": 0.5 if row % 2 else 0.0, "seed": seed + row}
        if is_greedy:
            asked["temperature"] = 0
        return sampler(prompt=PROMPT, ends=ENDS, **asked)

    alone = {}
    for row, (_, _, length, _) in enumerate(rows):
        one, batch = made(row), SamplingBatch()
        alone[row] = [int(batch.sample([one], logits(row, i)[None])[0]) for i in range(length)]
    together = {row: [] for row in range(len(rows))}
    batch, samplers = SamplingBatch(), {row: made(row) for row in together}
    for step in range(12):
        present = [
            row
            for row, (_, joins, length, _) in enumerate(rows)
            if joins <= step and len(together[row]) < length
        ]
        if present:
            batched = torch.stack([logits(row, len(together[row])) for row in present])
            tokens = batch.sample([samplers[row] for row in present], batched)
            for row, token in zip(present, tokens, strict=True):
                together[row].append(int(token))
    assert together == alone
