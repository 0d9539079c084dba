"""Trace context, with spans of our own and without."""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from controller.tracing import Tracing, TracingError, otlp_tracing
from tests.controller.conftest import Fleet, question, running_controller
from tests.controller.mock_worker import Fault, Script

pytestmark = pytest.mark.anyio

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SENT = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=x"}


@pytest.fixture
def spans() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@asynccontextmanager
async def traced(spans: InMemorySpanExporter) -> AsyncIterator[Fleet]:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    async with running_controller(tracing=Tracing(provider)) as fleet:
        yield fleet


async def test_a_request_is_a_span_between_the_clients_and_the_workers(
    spans: InMemorySpanExporter,
) -> None:
    async with traced(spans) as fleet:
        worker = await fleet.worker("w-1")
        await fleet.client.post("/v1/chat/completions", json=question(), headers=SENT)
        span = spans.get_finished_spans()[0]
    assert span.name == "chat demo"
    assert f"{span.context.trace_id:032x}" == TRACE
    assert span.parent is not None
    assert f"{span.parent.span_id:016x}" == PARENT
    assert worker.received[0].headers["traceparent"] == f"00-{TRACE}-{span.context.span_id:016x}-01"
    assert worker.received[0].headers["tracestate"] == "vendor=x"
    attributes = dict(span.attributes or {})
    assert attributes["gen_ai.request.model"] == "demo"
    assert attributes["http.response.status_code"] == 200
    assert attributes["paragone.worker_id"] == "w-1"
    assert "What is here?" not in str(attributes)


@pytest.mark.parametrize(
    ("fault", "code"), [(Fault.AT_BYTE_ZERO, "worker_lost"), (Fault.MID_EVENT, "worker_lost")]
)
async def test_a_failure_is_on_the_span(
    spans: InMemorySpanExporter, fault: Fault, code: str
) -> None:
    async with traced(spans) as fleet:
        await fleet.worker(script=Script(fault=fault))
        await fleet.stream()
        await fleet.ask("nobody")
        lost, unknown = spans.get_finished_spans()
    assert lost.status.status_code is StatusCode.ERROR
    assert dict(lost.attributes or {})["error.type"] == code
    assert dict(unknown.attributes or {})["error.type"] == "model_not_found"


async def test_streams_at_the_same_time_have_spans_of_their_own(
    spans: InMemorySpanExporter,
) -> None:
    async with traced(spans) as fleet:
        await fleet.worker(script=Script(word_seconds=0.02))
        await asyncio.gather(*(fleet.stream() for _ in range(5)))
        found = spans.get_finished_spans()
    assert len({span.context.span_id for span in found}) == 5
    assert all(span.parent is None for span in found)


def test_without_the_extra_the_flag_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without_sdk(name: str, *arguments: object, **more: object) -> object:
        if name.startswith(("opentelemetry.exporter", "opentelemetry.sdk")):
            raise ModuleNotFoundError(name="opentelemetry.sdk")
        return real(name, *arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without_sdk)
    with pytest.raises(TracingError, match=r"paragone\[otel\]"):
        otlp_tracing("http://127.0.0.1:4318/v1/traces")
