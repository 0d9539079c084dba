"""What is counted of this worker's answers, for Prometheus.

The names are vLLM's with our prefix (``vllm:time_to_first_token_seconds`` is here
``paragone_worker_time_to_first_token_seconds``), with the same meaning, so that its dashboards
need one substitution. Base unit: seconds.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from controller.protocol.chat import FinishReason
from controller.protocol.errors import ParagoneError
from controller.protocol.fleet import WorkerState
from worker.engine.protocol import CacheStats, Finished, GenerationEvent
from worker.lifecycle import Lifecycle

_log = logging.getLogger(__name__)

PREFIX = "paragone_worker_"

_REQUEST_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300)
_TOKEN_SECONDS = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2.5)


class Telemetry:
    """Counters and histograms of answers; gauges are read from the lifecycle when asked for.

    Args:
        lifecycle: whose engine is looked at.
        clock: monotonic seconds.
    """

    def __init__(
        self, lifecycle: Lifecycle, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_Gauges(lifecycle))
        self._clock = clock
        self._queue = self._histogram("request_queue_time_seconds", "Time in the queue")
        self._first_token = self._histogram(
            "time_to_first_token_seconds", "From arrival to the first token"
        )
        self._decode = self._histogram(
            "request_decode_time_seconds", "From the first token to the last"
        )
        self._whole = self._histogram("e2e_request_latency_seconds", "From arrival to the end")
        self._per_token = self._histogram(
            "request_time_per_output_token_seconds",
            "Mean time between two tokens of an answer",
            _TOKEN_SECONDS,
        )
        self._prompt_tokens = self._counter("prompt_tokens", "Tokens of prompts")
        self._generation_tokens = self._counter("generation_tokens", "Tokens of answers")
        self._success = self._counter(
            "request_success", "Answers that were finished", "finished_reason"
        )
        self._failure = self._counter("request_failure", "Requests that ended in an error", "code")
        self._aborted = self._counter(
            "request_aborted", "Answers that were cut off by the client or a shutdown"
        )

    async def watch(
        self, model: str, events: AsyncGenerator[GenerationEvent]
    ) -> AsyncGenerator[GenerationEvent]:
        """The same events; what they come to is counted."""
        arrived, is_counted = self._clock(), False
        async with aclosing(events):
            try:
                async for event in events:
                    if isinstance(event, Finished):
                        self._count(model, event, self._clock() - arrived)
                        _log.info("%s", _summary(model, event))
                        is_counted = True
                    yield event
            except ParagoneError as exc:
                self._failure.labels(model, exc.code).inc()
                _log.info("%s: %s: %s", model, exc.code, exc.message)
                raise
            except BaseException:  # the client hung up, or this process does
                if not is_counted:
                    self._aborted.labels(model).inc()
                    _log.info("%s: the client hung up", model)
                raise

    def _count(self, model: str, finished: Finished, seconds: float) -> None:
        metrics, usage = finished.metrics, finished.usage
        self._prompt_tokens.labels(model).inc(usage.prompt_tokens)
        self._generation_tokens.labels(model).inc(usage.completion_tokens)
        if finished.reason is FinishReason.ABORT:
            self._aborted.labels(model).inc()
        else:
            self._success.labels(model, finished.reason.value).inc()
        self._whole.labels(model).observe(seconds)
        for histogram, milliseconds in (
            (self._queue, metrics.queue_time_ms),
            (self._first_token, metrics.time_to_first_token_ms),
            (self._decode, metrics.generation_time_ms),
            (self._per_token, metrics.mean_itl_ms),
        ):
            if milliseconds is not None:
                histogram.labels(model).observe(milliseconds / 1000)

    def _histogram(
        self, name: str, text: str, buckets: tuple[float, ...] = _REQUEST_SECONDS
    ) -> Histogram:
        return Histogram(
            PREFIX + name, text, ["model_name"], buckets=buckets, registry=self.registry
        )

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(PREFIX + name, text, ["model_name", *labels], registry=self.registry)


def _summary(model: str, finished: Finished) -> str:
    usage, metrics = finished.usage, finished.metrics
    first, pace = metrics.time_to_first_token_ms, metrics.tokens_per_second
    return (
        f"{model}: {usage.prompt_tokens} + {usage.completion_tokens} tokens, "
        f"{finished.reason.value}; "
        f"{metrics.queue_time_ms:.0f} ms in the queue"
        + (f", {first:.0f} ms to the first token" if first is not None else "")
        + (f", {pace:.1f} tokens/s" if pace is not None else "")
    )


class _Gauges(Collector):
    """What is so at the moment of asking."""

    def __init__(self, lifecycle: Lifecycle) -> None:
        self._lifecycle = lifecycle

    def collect(self) -> Iterator[Metric]:
        status = self._lifecycle.status()
        names = [card.name for card in status.models]
        load = status.load
        for name, text, value in (
            ("ready", "1 when requests are served", float(status.state is WorkerState.READY)),
            ("num_requests_running", "Requests that run", load.running),
            ("num_requests_waiting", "Requests that were accepted and wait", load.waiting),
            ("requests_capacity", "Requests that run at once", load.capacity),
            ("resident_memory_bytes", "Memory of the process", load.memory_bytes),
            ("device_memory_bytes", "Memory on the device", load.device_memory_bytes),
        ):
            if value is None:
                continue
            family = GaugeMetricFamily(PREFIX + name, text, labels=["model_name"])
            for model in names:
                family.add_metric([model], value)
            yield family
        engine = self._lifecycle.engine
        caches = None if engine is None else engine.stats().caches
        if caches is not None:
            yield from _cache_metrics(caches)


def _cache_metrics(caches: CacheStats) -> Iterator[Metric]:
    """Of all models of this worker together: they share its memory."""
    if caches.kv_tokens is not None:
        yield GaugeMetricFamily(
            PREFIX + "kv_cache_usage_perc",
            "Share of the memory for keys and values that is taken, 1 is all of it",
            caches.kv_used_tokens / caches.kv_tokens,
        )
        yield GaugeMetricFamily(
            PREFIX + "kv_cache_tokens",
            "Tokens that there is memory for keys and values of",
            caches.kv_tokens,
        )
    yield GaugeMetricFamily(
        PREFIX + "image_cache_bytes", "What kept features of images take", caches.image_bytes
    )
    for name, text, value in (
        (
            "prefix_cache_queries",
            "Tokens of prompts that were looked for",
            caches.prefix_queries,
        ),
        ("prefix_cache_hits", "Tokens of prompts that did not have to be read", caches.prefix_hits),
        ("mm_cache_queries", "Images that were looked for", caches.image_queries),
        ("mm_cache_hits", "Images that did not have to be encoded", caches.image_hits),
        ("num_preemptions", "Answers that gave up their memory for others", caches.preemptions),
    ):
        yield CounterMetricFamily(PREFIX + name, text, value)
