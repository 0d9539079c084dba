"""What an answer cost is told as it was."""

from controller.protocol.chat import Metrics
from worker.engine.timing import Timing


def test_decoding_is_measured_without_the_prompt():
    timing = Timing(arrived=10.0, started=11.0)
    for now in (13.0, 13.5, 14.0):
        timing.mark_token(now)
    assert timing.metrics(now=20.0) == Metrics(
        queue_time_ms=1000.0,
        time_to_first_token_ms=3000.0,
        generation_time_ms=1000.0,
        mean_itl_ms=500.0,
        tokens_per_second=2.0,
    )


def test_one_token_has_no_pace():
    timing = Timing(arrived=10.0, started=10.0)
    timing.mark_token(10.5)
    metrics = timing.metrics(now=11.0)
    assert metrics.time_to_first_token_ms == 500.0
    assert metrics.tokens_per_second is None
    assert metrics.mean_itl_ms is None


def test_a_request_that_never_ran_has_only_waited():
    assert Timing(arrived=10.0).metrics(now=12.0) == Metrics(queue_time_ms=2000.0)
