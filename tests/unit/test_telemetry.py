"""Spans: tied together across the wire, without payload, and none where nobody listens."""

from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from checkpoint_router.core.errors import Stale
from checkpoint_router.telemetry import names, tracing


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """What was recorded, under an SDK that is configured for this test alone."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    # The API lets a process set its provider once only.
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    yield exporter
    provider.shutdown()


def test_without_an_sdk_nothing_is_made() -> None:
    assert not tracing.enabled()
    assert tracing.traceparent() == ""
    with (
        tracing.client_span(names.SERVICE, "Put", {}),
        tracing.server_span(names.SERVICE, "Put", "00-" + "1" * 32 + "-" + "2" * 16 + "-01", {}),
    ):
        assert not trace.get_current_span().get_span_context().is_valid


def test_the_routers_span_is_the_child_of_the_agents(spans: InMemorySpanExporter) -> None:
    with tracing.client_span(names.SERVICE, "Put", {}):
        carried = tracing.traceparent()
    with tracing.server_span(names.SERVICE, "Put", carried, {names.TRANSPORT: "stream"}):
        pass
    agent, router = spans.get_finished_spans()
    assert (agent.kind, router.kind) == (SpanKind.CLIENT, SpanKind.SERVER)
    assert agent.name == router.name == "checkpoint_router.v1.CheckpointService/Put"
    above, below = agent.context, router.context
    assert above is not None
    assert below is not None
    assert router.parent is not None
    assert router.parent.span_id == above.span_id
    assert below.trace_id == above.trace_id
    assert router.attributes is not None
    assert router.attributes[names.OUTCOME] == "ok"


@pytest.mark.parametrize("carried", ["", "rubbish", "00-0-0-00", "\ud800"])
def test_a_call_without_a_usable_parent_begins_a_trace(
    spans: InMemorySpanExporter, carried: str
) -> None:
    with (
        tracing.client_span(names.SERVICE, "Other", {}),
        tracing.server_span(names.SERVICE, "Put", carried, {}),
    ):
        pass
    assert spans.get_finished_spans()[0].parent is None


def test_a_failed_call_carries_the_reason_and_no_text(spans: InMemorySpanExporter) -> None:
    with pytest.raises(Stale), tracing.server_span(names.SERVICE, "GetTuple", "", {}):
        raise Stale("thread 'secret' lacks an event", thread="secret")
    (span,) = spans.get_finished_spans()
    assert span.attributes is not None
    assert span.attributes[names.OUTCOME] == "STALE"
    assert span.status.status_code is StatusCode.ERROR
    assert not span.events
    assert "secret" not in span.to_json()
