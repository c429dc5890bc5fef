"""Spans: below the agent's, without payload, and none where nobody asked for any."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from checkpoint_router.core.errors import InvalidArgument, Stale
from checkpoint_router.telemetry import export, names, tracing

NOWHERE = "http://127.0.0.1:1"

BEGINS = """
import sys
import checkpoint_router.server.serve
from checkpoint_router.telemetry import export
export.start("1")(0.1)
from opentelemetry import metrics, trace
providers = (trace.get_tracer_provider(), metrics.get_meter_provider())
real = [type(p).__name__ for p in providers if type(p).__module__.startswith("opentelemetry.sdk")]
print(*real, *(["SDK loaded"] if "opentelemetry.sdk" in sys.modules else []), sep=", ")
"""


def begun_by_a_router(environment: dict[str, str]) -> str:
    """What of the SDK a router process begins with where `environment` is set."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("OTEL_")}
    done = subprocess.run(
        [sys.executable, "-c", BEGINS],
        env={**kept, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.strip()


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """What was recorded, under an SDK that is configured for this test alone."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    # The API lets a process set its provider once only.
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    tracing.enabled.cache_clear()
    yield exporter
    tracing.enabled.cache_clear()
    provider.shutdown()


PARENT = f"00-{0xABC:032x}-{0xDEF:016x}-01"


def test_without_an_sdk_no_span_is_made() -> None:
    assert not tracing.enabled()
    none = tracing.server_span(names.SERVICE, "Put", PARENT, {})
    assert none is tracing.server_span(names.ADMIN_SERVICE, "GetThread", "", {})
    with none:
        assert not trace.get_current_span().is_recording()


def test_the_routers_span_is_the_child_of_the_agents(spans: InMemorySpanExporter) -> None:
    with tracing.server_span(names.SERVICE, "Put", PARENT, {names.TRANSPORT: "stream"}):
        assert trace.get_current_span().is_recording()
    (router,) = spans.get_finished_spans()
    assert router.kind is SpanKind.SERVER
    assert router.name == "checkpoint_router.v1.CheckpointService/Put"
    assert router.context is not None
    assert router.parent is not None
    assert (router.context.trace_id, router.parent.span_id) == (0xABC, 0xDEF)
    assert router.attributes is not None
    assert router.attributes[names.OUTCOME] == "ok"


@pytest.mark.parametrize("carried", ["", "rubbish", "00-0-0-00", "\ud800"])
def test_a_call_without_a_usable_parent_begins_a_trace(
    spans: InMemorySpanExporter, carried: str
) -> None:
    with (
        tracing.server_span(names.SERVICE, "Other", PARENT, {}),
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


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_SERVICE_NAME": "checkpoints"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": NOWHERE, "OTEL_SDK_DISABLED": "true"},
        {
            "OTEL_EXPORTER_OTLP_ENDPOINT": NOWHERE,
            "OTEL_TRACES_EXPORTER": "none",
            "OTEL_METRICS_EXPORTER": "none",
        },
    ],
)
def test_where_no_export_is_asked_for_not_even_the_sdk_is_loaded(
    environment: dict[str, str],
) -> None:
    assert begun_by_a_router(environment) == ""


@pytest.mark.parametrize(
    ("signal", "provider"), [("TRACES", "TracerProvider"), ("METRICS", "MeterProvider")]
)
def test_each_signal_can_be_asked_for_alone(signal: str, provider: str) -> None:
    where = {f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT": NOWHERE}
    assert begun_by_a_router(where) == f"{provider}, SDK loaded"


def test_a_protocol_that_is_not_spoken_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", NOWHERE)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    with pytest.raises(InvalidArgument, match="sends grpc only"):
        export.start("1")


def test_a_value_that_the_sdk_cannot_read_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", NOWHERE)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "soon")
    with pytest.raises(InvalidArgument, match=r"OTEL_… variable is wrong: .*'soon'"):
        export.start("1")
