"""What the controller counts, for Prometheus.

Names and meanings are vLLM's with ``paragone_controller_`` in place of ``vllm:`` (a colon is
reserved for recording rules): ``num_requests_running``, ``num_requests_waiting``,
``time_to_first_token_seconds``, ``e2e_request_latency_seconds``, ``request_queue_time_seconds``,
``request_success_total``. Our own: ``requests_total`` by status,
``request_aborted_total`` by reason, ``relay_attempts_failed_total``, ``worker_up``,
``worker_heartbeat_age_seconds``, ``oldest_request_age_seconds``, ``event_loop_lag_seconds``.
Seconds throughout; times are those that a client of this controller sees.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from controller.inflight import InFlight
from controller.lines import Lines
from controller.registry import Registry
from controller.tallies import Tallies, Tally

_PREFIX = "paragone_controller"
_FIRST_TOKEN_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_LATENCY_BUCKETS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320)
_LAG_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)


@dataclass(frozen=True, slots=True)
class ModelMetrics:
    """What is counted of one model with each answer, looked up once."""

    first_token: Tally
    latency: Tally  # of answers that were relayed to their end
    queue: Tally


class Metrics:
    """The counters of one controller, in a registry of their own.

    Args:
        registry: the workers, read when metrics are asked for.
        in_flight: the open requests, likewise.
        lines: those of them that wait, likewise.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        registry: Registry,
        in_flight: InFlight,
        lines: Lines,
        *,
        clock: Callable[[], float],
    ) -> None:
        self._collectors = CollectorRegistry()
        self._requests = self._counter("requests", "Requests answered", ["model_name", "status"])
        self._requests_of: dict[tuple[str, int | None], Counter] = {}
        self.aborted = self._counter(
            "request_aborted", "Answers that did not reach their end", ["model_name", "reason"]
        )
        self.failed_attempts = self._counter(
            "relay_attempts_failed", "Workers that could not serve a request", ["reason"]
        )
        self._first_token = Tallies(
            f"{_PREFIX}_time_to_first_token_seconds",
            "From arrival to the first bytes of the answer",
            _FIRST_TOKEN_BUCKETS,
        )
        self._latency = Tallies(
            f"{_PREFIX}_e2e_request_latency_seconds",
            "From arrival to the end of the answer",
            _LATENCY_BUCKETS,
            counted_as=(f"{_PREFIX}_request_success", "Answers relayed to their end"),
        )
        self._queue = Tallies(
            f"{_PREFIX}_request_queue_time_seconds",
            "How long requests waited here for a worker with room; those that did not are not in",
            _LATENCY_BUCKETS,
        )
        for tallies in (self._first_token, self._latency, self._queue):
            self._collectors.register(tallies)
        self.loop_lag = Histogram(
            f"{_PREFIX}_event_loop_lag_seconds",
            "How late a timer of this process fires",
            buckets=_LAG_BUCKETS,
            registry=self._collectors,
        )
        self._of_model: dict[str, ModelMetrics] = {}
        self._collectors.register(_Snapshot(registry, in_flight, lines, clock))

    def of_model(self, model: str) -> ModelMetrics:
        """The counters of a model that has answered: a label's lookup costs as much as all else."""
        found = self._of_model.get(model)
        if found is None:
            found = self._of_model[model] = ModelMetrics(
                self._first_token.of(model), self._latency.of(model), self._queue.of(model)
            )
        return found

    def count_request(self, model: str, status: int | None) -> None:
        """A request was answered; ``model`` is a live one's name, or empty."""
        counter = self._requests_of.get((model, status))
        if counter is None:
            counter = self._requests.labels(model, str(status))
            self._requests_of[model, status] = counter
        counter.inc()

    def render(self) -> bytes:
        """All of it, in Prometheus' text format."""
        return generate_latest(self._collectors)

    def _counter(self, name: str, text: str, labels: list[str]) -> Counter:
        return Counter(f"{_PREFIX}_{name}", text, labels, registry=self._collectors)


class _Snapshot(Collector):
    """Gauges that are read off the state when asked for, so that nobody has to keep them true."""

    def __init__(
        self, registry: Registry, in_flight: InFlight, lines: Lines, clock: Callable[[], float]
    ) -> None:
        self._registry = registry
        self._in_flight = in_flight
        self._lines = lines
        self._clock = clock

    def describe(self) -> Iterable[Metric]:
        """Nothing: the names are this module's own and cannot clash."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """The state of this moment."""
        now = self._clock()
        running = GaugeMetricFamily(
            f"{_PREFIX}_num_requests_running", "Requests with a worker", labels=["model_name"]
        )
        waiting = GaugeMetricFamily(
            f"{_PREFIX}_num_requests_waiting",
            "Requests that wait here until a worker has room",
            labels=["model_name"],
        )
        oldest = GaugeMetricFamily(
            f"{_PREFIX}_oldest_request_age_seconds",
            "Age of the oldest request in flight",
            labels=["model_name"],
        )
        arrivals: dict[str, list[float]] = {e.id: [] for e in self._registry.models().data}
        for request in self._in_flight:
            arrivals.setdefault(request.model, []).append(request.arrival)
        for model, times in arrivals.items():
            queued = self._lines.waiting(model)
            waiting.add_metric([model], queued)
            running.add_metric([model], len(times) - queued)
            oldest.add_metric([model], now - min(times, default=now))
        up = GaugeMetricFamily(
            f"{_PREFIX}_worker_up",
            "Whether a worker is in the rotation",
            labels=["worker_id", "address"],
        )
        age = GaugeMetricFamily(
            f"{_PREFIX}_worker_heartbeat_age_seconds",
            "Time since a worker was heard of",
            labels=["worker_id", "address"],
        )
        for record in self._registry.workers():
            labels = [record.worker_id, record.address]
            up.add_metric(labels, float(record.is_live(now) and record.breaker.lets_pass))
            age.add_metric(labels, now - record.lease.renewed_at)
        return running, waiting, oldest, up, age
