"""Every span, attribute and metric name, once. Changing one is a breaking change for dashboards.

No name here may carry a payload; metrics carry neither thread nor tenant.
"""

from typing import Final

PROGRAM: Final = "checkpoint-router"
"""The service that spans and metrics come from, unless OTEL_SERVICE_NAME says otherwise."""
SCOPE: Final = "checkpoint_router"
"""Instrumentation scope of all spans and metrics."""

# Spans. A call's span is named `<service>/<method>`, as OpenTelemetry's rpc convention has it.
SERVICE: Final = "checkpoint_router.v1.CheckpointService"
ADMIN_SERVICE: Final = "checkpoint_router.v1.AdminService"

# Attributes of OpenTelemetry's conventions.
RPC_SYSTEM: Final = "rpc.system"
RPC_SERVICE: Final = "rpc.service"
RPC_METHOD: Final = "rpc.method"

# Attributes of ours.
CALL: Final = "checkpoint_router.call"
OUTCOME: Final = "checkpoint_router.outcome"
"""`ok`, or the reason of the error."""
TRANSPORT: Final = "checkpoint_router.transport"
"""`unary` or `stream`."""

# Metrics. Seconds and bytes; Prometheus sees `checkpoint_router_…`.
CALL_SECONDS: Final = "checkpoint_router.call.duration"
STREAMS: Final = "checkpoint_router.streams"
BYTES_IN_FLIGHT: Final = "checkpoint_router.request.in_flight"
REFUSED: Final = "checkpoint_router.refused"
"""Calls and streams that were refused because a limit was reached."""
