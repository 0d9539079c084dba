"""Our own histograms say what the client library's say."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from controller.tallies import Tallies

BOUNDS = (0.01, 0.5, 1, 2.5, 60)


@given(
    st.lists(
        st.tuples(st.sampled_from(["a", 'odd "name"\n']), st.sampled_from([0.0, *BOUNDS, 0.3, 1e9]))
    )
)
def test_the_same_observations_give_the_same_lines(seen: list[tuple[str, float]]) -> None:
    theirs, ours = CollectorRegistry(), CollectorRegistry()
    histogram = Histogram("x", "X.", ["model_name"], buckets=BOUNDS, registry=theirs)
    counter = Counter("y", "Y.", ["model_name"], registry=theirs)
    tallies = Tallies("x", "X.", BOUNDS, counted_as=("y", "Y."))
    ours.register(tallies)
    for model, seconds in seen:
        histogram.labels(model).observe(seconds)
        counter.labels(model).inc()
        tallies.of(model).observe(seconds)
    assert lines(ours) == lines(theirs)


def lines(registry: CollectorRegistry) -> list[str]:
    """All but when each began, which nobody asks for."""
    text = generate_latest(registry).decode()
    return [line for line in text.splitlines() if "_created" not in line]
