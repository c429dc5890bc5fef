"""Sends the router's spans and metrics where OpenTelemetry's own variables say. Router only.

`OTEL_EXPORTER_OTLP_ENDPOINT`, or one signal's own, asks for OTLP over gRPC; batches, sampling,
headers and certificates are for the SDK to read. Rules: where nothing is asked for, the SDK is
not even loaded; a collector that is away costs the router log lines, never a call.
"""

import os
import threading
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from opentelemetry import metrics, trace

from checkpoint_router.core.errors import InvalidArgument
from checkpoint_router.telemetry import names

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource

_PROTOCOL: Final = "OTEL_EXPORTER_OTLP_PROTOCOL"


def start(version: str) -> Callable[[float], None]:
    """Begins to export what the environment asks for, if anything. What it hands back sends the
    rest at the end, and takes at most so many seconds. Raises InvalidArgument."""
    exports = {"TRACES": _export_traces, "METRICS": _export_metrics}
    asked = [export for signal, export in exports.items() if _asked(signal)]
    try:
        endings = [export(_resource(version)) for export in asked]
    except ValueError as e:
        raise InvalidArgument(
            f"an OTEL_… variable is wrong: {e}. Correct it, or unset it.", field="environment"
        ) from None

    def stop(seconds: float) -> None:
        # The SDK waits half a minute for a collector that is away, and cannot be told otherwise.
        workers = [threading.Thread(target=end, daemon=True) for end in endings]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(seconds / len(workers))

    return stop


def _asked(signal: str) -> bool:
    said = os.environ.get
    if said("OTEL_SDK_DISABLED") == "true" or said(f"OTEL_{signal}_EXPORTER", "otlp") != "otlp":
        return False
    if not (said("OTEL_EXPORTER_OTLP_ENDPOINT") or said(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT")):
        return False
    protocol = said(_PROTOCOL) or "grpc"
    if protocol != "grpc":
        raise InvalidArgument(
            f"{_PROTOCOL} asks for {protocol}, and a router sends grpc only. Unset it, and name "
            f"the collector's gRPC port (usually 4317).",
            field=_PROTOCOL,
        )
    return True


# The SDK takes a third of a second to load, so it is imported where it is wanted.


def _resource(version: str) -> "Resource":
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource

    known = {"service.name": names.PROGRAM, "service.version": version}
    ours = Resource({**known, "service.instance.id": str(uuid.uuid4())})
    return Resource.create(ours.merge(OTELResourceDetector().detect()).attributes)


def _export_traces(resource: "Resource") -> Callable[[], None]:
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    return provider.shutdown


def _export_metrics(resource: "Resource") -> Callable[[], None]:
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

    reader = PeriodicExportingMetricReader(OTLPMetricExporter())
    provider = MeterProvider([reader], resource=resource, shutdown_on_exit=False)
    metrics.set_meter_provider(provider)
    return provider.shutdown
