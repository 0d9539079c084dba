"""A span for each relayed request, where somebody wants them: OpenTelemetry, an optional extra.

Without it trace context passes through as it came. Names follow OpenTelemetry's conventions for
generative AI, which are still in development: ``gen_ai.operation.name``, ``gen_ai.request.model``.
What is asked and answered is in no span.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from controller.chassis.openapi import CHAT_COMPLETIONS, COMPLETIONS
from controller.reply import Reply

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

_OPERATIONS = {CHAT_COMPLETIONS: "chat", COMPLETIONS: "text_completion"}
_CONTEXT = (b"traceparent", b"tracestate")


class TracingError(Exception):
    """Spans cannot be made or sent; the message says what is missing."""


class Tracing:
    """Makes spans.

    Args:
        provider: where they go.
    """

    def __init__(self, provider: TracerProvider) -> None:
        # Part of the extra's packages: not needed where nothing is traced.
        from opentelemetry import trace  # noqa: PLC0415
        from opentelemetry.trace.propagation.tracecontext import (  # noqa: PLC0415
            TraceContextTextMapPropagator,
        )

        self._trace = trace
        self._provider = provider
        self._tracer = provider.get_tracer("paragone.controller")
        self._propagator = TraceContextTextMapPropagator()

    @contextmanager
    def span(
        self, headers: Sequence[tuple[bytes, bytes]], path: str, model: str, reply: Reply
    ) -> Iterator[Mapping[str, str]]:
        """A span while the block runs; what became of the request is read off its reply.

        Args:
            headers: the client's; their trace context is the span's parent.
            path: what was asked for.
            model: by name.
            reply: the client's side of the answer.

        Yields:
            The trace context's headers for the worker.
        """
        carrier = {k.decode(): v.decode("latin-1") for k, v in headers if k in _CONTEXT}
        operation = _OPERATIONS.get(path, path.rpartition("/")[2])
        span = self._tracer.start_span(
            f"{operation} {model}",
            context=self._propagator.extract(carrier),
            kind=self._trace.SpanKind.SERVER,
            attributes={
                "gen_ai.operation.name": operation,
                "gen_ai.request.model": model,
                "http.request.method": "POST",
                "url.path": path,
            },
        )
        onward: dict[str, str] = {}
        self._propagator.inject(onward, self._trace.set_span_in_context(span))
        error: str | None = None
        try:
            yield onward
        except BaseException as exc:
            error = getattr(exc, "code", None) or type(exc).__name__
            raise
        finally:
            error = error or reply.error_code
            if reply.status is not None:
                span.set_attribute("http.response.status_code", reply.status)
            if reply.worker_id is not None:
                span.set_attribute("paragone.worker_id", reply.worker_id)
            if error is not None:
                span.set_attribute("error.type", error)
                span.set_status(self._trace.StatusCode.ERROR)
            span.end()

    def close(self) -> None:
        """Sends what is left. Blocks."""
        self._provider.shutdown()


def otlp_tracing(endpoint: str) -> Tracing:
    """Tracing that sends its spans to a collector, in batches from a thread of its own.

    Raises:
        TracingError: the extra is not installed.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
            OTLPSpanExporter,
        )
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ModuleNotFoundError as exc:
        raise TracingError(
            f"--otlp-endpoint needs the package {exc.name}: pip install 'paragone[otel]'"
        ) from exc
    provider = TracerProvider(resource=Resource.create({"service.name": "paragone-controller"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    return Tracing(provider)
