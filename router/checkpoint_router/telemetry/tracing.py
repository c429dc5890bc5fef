"""The span around one call in the router, below the agent's.

The agent's span is named by a W3C `traceparent`: in the metadata of a unary call, in a field of a
call on the stream. Until an SDK is configured, `enabled` is False and no span is made.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import Final

from opentelemetry import context as context_api
from opentelemetry import trace
from opentelemetry.trace import ProxyTracerProvider, Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from checkpoint_router.core.errors import RouterError
from checkpoint_router.telemetry import names

TRACEPARENT: Final = "traceparent"

_PROPAGATOR: Final = TraceContextTextMapPropagator()
_NO_SPAN: Final = nullcontext()
_SILENT: Final = (ProxyTracerProvider, trace.NoOpTracerProvider)


@cache
def enabled() -> bool:
    """Whether spans go anywhere. Looked at once: what sets the provider of a router does so before
    its first call, and the look costs each call as much as its checks."""
    return not isinstance(trace.get_tracer_provider(), _SILENT)


def server_span(
    service: str, method: str, parent: str, attributes: Mapping[str, str]
) -> AbstractContextManager[None]:
    """A span around one call in the router, below the span that `parent` names, if it does."""
    return _span(service, method, parent, attributes) if enabled() else _NO_SPAN


@contextmanager
def _span(service: str, method: str, parent: str, attributes: Mapping[str, str]) -> Iterator[None]:
    named = {names.RPC_SYSTEM: "grpc", names.RPC_SERVICE: service, names.RPC_METHOD: method}
    with trace.get_tracer(names.SCOPE).start_as_current_span(
        f"{service}/{method}",
        context=_PROPAGATOR.extract({TRACEPARENT: parent}, context_api.Context()),
        kind=SpanKind.SERVER,
        attributes={**named, **attributes},
        # A message may quote a thread's id; the reason is enough.
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        try:
            yield
        except BaseException as e:
            _failed(span, e)
            raise
        span.set_attribute(names.OUTCOME, "ok")


def _failed(span: Span, error: BaseException) -> None:
    reason = error.reason if isinstance(error, RouterError) else type(error).__name__
    span.set_attribute(names.OUTCOME, reason)
    span.set_status(Status(StatusCode.ERROR, reason))
