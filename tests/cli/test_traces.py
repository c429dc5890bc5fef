"""What a tracing system gets of an agent's calls: one trace over both processes.

The collector is a real gRPC server of OpenTelemetry's own protocol, inside the test. A whole
tracing system, Jaeger, comes with the files for deployment.
"""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc as metrics_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as traces
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as traces_grpc

from checkpoint_router import __version__
from checkpoint_router.telemetry import names
from checkpoint_router.testing import running_router
from checkpoint_router.v1 import admin_service_pb2 as admin
from checkpoint_router.v1.admin_service_pb2_grpc import AdminServiceStub

from .conftest import SECONDS_MAX, environment

AGENT = """
import asyncio, sys
from langgraph.checkpoint.base import empty_checkpoint
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from checkpoint_router import RouterSaver

provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(provider)
config = {"configurable": {"thread_id": "secret-thread", "checkpoint_ns": ""}}
with RouterSaver(sys.argv[1]) as saver:
    with trace.get_tracer("agent").start_as_current_span("turn"):
        stored = saver.put(config, empty_checkpoint(), {"source": "input", "step": -1}, {})
        asyncio.run(saver.aput_writes(stored, [("answer", "secret-value")], "task"))
    saver.get_tuple(config)
provider.shutdown()
"""


class Collector(traces_grpc.TraceServiceServicer):
    """Keeps what is sent to it."""

    def __init__(self) -> None:
        self.spans: list[tuple[dict[str, str], Any]] = []
        """Each with the attributes of the process that it is from."""
        self.metrics: set[str] = set()
        self.answers = threading.Event()
        """Cleared: it takes everything and never answers."""
        self.answers.set()

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's name
        self.answers.wait(SECONDS_MAX)
        for process in request.resource_spans:
            of = {a.key: a.value.string_value for a in process.resource.attributes}
            self.spans += ((of, span) for scope in process.scope_spans for span in scope.spans)
        return traces.ExportTraceServiceResponse()

    def named(self, name: str) -> list[tuple[dict[str, str], Any]]:
        """The spans of that name."""
        return [found for found in self.spans if found[1].name == name]


class Metrics(metrics_grpc.MetricsServiceServicer):
    """Keeps the names of what is sent to it."""

    def __init__(self, keep: Callable[[str], None]) -> None:
        self._keep = keep

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's name
        for process in request.resource_metrics:
            for scope in process.scope_metrics:
                for metric in scope.metrics:
                    self._keep(metric.name)
        return metrics.ExportMetricsServiceResponse()


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """A collector that the processes of the test are told of."""
    collector = Collector()
    server = grpc.server(ThreadPoolExecutor(4))
    generated: Any = traces_grpc
    generated.add_TraceServiceServicer_to_server(collector, server)
    generated = metrics_grpc
    generated.add_MetricsServiceServicer_to_server(Metrics(collector.metrics.add), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    yield collector
    collector.answers.set()
    server.stop(None).wait()


def run_agent(target: str) -> None:
    """The agent, in a process of its own, to its end."""
    subprocess.run(
        [sys.executable, "-c", AGENT, target], env=environment(), timeout=SECONDS_MAX, check=True
    )


def test_a_call_is_one_trace_over_agent_and_router_and_is_sent_before_the_router_ends(
    collector: Collector,
) -> None:
    with running_router() as router:
        run_agent(router.target)
    ((_, turn),) = collector.named("turn")
    for method in ("Put", "PutWrites"):
        ((of, span),) = collector.named(f"{names.SERVICE}/{method}")
        assert (span.trace_id, span.parent_span_id) == (turn.trace_id, turn.span_id), method
        assert of["service.name"] == "checkpoint-router"
        assert of["service.version"] == __version__
    _, read = collector.named(f"{names.SERVICE}/GetTuple")[-1]
    assert read.parent_span_id == b""
    assert read.trace_id != turn.trace_id
    assert names.CALL_SECONDS in collector.metrics
    assert "secret" not in str(collector.spans)


def test_a_unary_call_names_the_span_above_it_in_its_metadata(collector: Collector) -> None:
    above = (("traceparent", f"00-{0xABC:032x}-{0xDEF:016x}-01"),)
    with running_router() as router, grpc.insecure_channel(router.address) as channel:
        AdminServiceStub(channel).ListThreads(
            admin.ListThreadsRequest(tenant="acme"), metadata=above, timeout=SECONDS_MAX
        )
    ((_, span),) = collector.named(f"{names.ADMIN_SERVICE}/ListThreads")
    assert int.from_bytes(span.trace_id) == 0xABC
    assert int.from_bytes(span.parent_span_id) == 0xDEF


def test_a_router_is_named_as_its_environment_says(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "checkpoints-of-acme")
    with running_router() as router:
        run_agent(router.target)
    assert {of["service.name"] for of, span in collector.spans if span.name != "turn"} == {
        "checkpoints-of-acme"
    }


def test_a_collector_that_never_answers_holds_up_neither_calls_nor_the_end(
    collector: Collector,
) -> None:
    collector.answers.clear()
    # Longer than a router may take to end.
    env = {"OTEL_EXPORTER_OTLP_TIMEOUT": "100000", "CHECKPOINT_ROUTER_DRAIN_SECONDS": "1"}
    with running_router(env=env) as router:
        quiet = AGENT.replace("provider.shutdown()", "import os; os._exit(0)")
        subprocess.run(
            [sys.executable, "-c", quiet, router.target],
            env=environment(),
            timeout=SECONDS_MAX,
            check=True,
        )
        assert router.stop() == 0
        assert '"event": "stopped"' in router.log_text()
