"""The caller's span, as the router is told of it."""

from opentelemetry import trace
from opentelemetry.context import get_current


def traceparent() -> str:
    """W3C `traceparent` of the current span; empty where there is none (about a microsecond)."""
    if not get_current():  # a context in which there is nothing, and so no span
        return ""
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return ""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags & 0xFF:02x}"
