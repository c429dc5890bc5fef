"""Spans for calls, and the context that ties an agent's span to the router's.

Context travels as a W3C `traceparent`: in the metadata of a unary call, in a field of a call on
the stream. Until somebody configures an SDK, `enabled` is False and every function here is a few
comparisons.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
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


def enabled() -> bool:
    """Whether spans go anywhere."""
    return not isinstance(trace.get_tracer_provider(), _SILENT)


def traceparent() -> str:
    """The current span, for a message; empty if there is none."""
    if not enabled():
        return ""
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier)
    return carrier.get(TRACEPARENT, "")


def server_span(
    service: str, method: str, parent: str, attributes: Mapping[str, str]
) -> AbstractContextManager[None]:
    """A span around one call in the router, below the span that `parent` names, if it does."""
    if not enabled():
        return _NO_SPAN
    context = _PROPAGATOR.extract({TRACEPARENT: parent}) if parent else context_api.Context()
    return _span(SpanKind.SERVER, service, method, context, attributes)


def client_span(
    service: str, method: str, attributes: Mapping[str, str]
) -> AbstractContextManager[None]:
    """A span around one call in the agent, below the agent's current one."""
    if not enabled():
        return _NO_SPAN
    return _span(SpanKind.CLIENT, service, method, None, attributes)


@contextmanager
def _span(
    kind: SpanKind,
    service: str,
    method: str,
    context: context_api.Context | None,
    attributes: Mapping[str, str],
) -> Iterator[None]:
    named = {
        names.RPC_SYSTEM: "grpc",
        names.RPC_SERVICE: service,
        names.RPC_METHOD: method,
        **attributes,
    }
    tracer = trace.get_tracer(names.SCOPE)
    with tracer.start_as_current_span(
        f"{service}/{method}",
        context=context,
        kind=kind,
        attributes=named,
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
