"""Unary methods: the calls of the table for grpcurl, operators and other languages.

Messages are parsed here rather than by grpc, so that bytes are counted before they are work and
rubbish is answered with a status that says so.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError

from checkpoint_router.core.errors import InvalidArgument, RouterError
from checkpoint_router.server.admission import Admission
from checkpoint_router.server.calls import Caller, Router, answer, checked_answer_size, incident
from checkpoint_router.server.handlers import Handler
from checkpoint_router.server.statuses import Context, abort
from checkpoint_router.telemetry import tracing

Method = Callable[[bytes, Context], Awaitable[bytes]]


def method_of(router: Router, handler: Handler) -> Method:
    """The unary method that runs `handler`."""

    async def method(raw: bytes, context: Context) -> bytes:
        try:
            router.admission.take_bytes(len(raw))
            try:
                work = _answer(router, handler, raw, context)
                packed = await (_to_its_end(work) if handler.steady else work)
            finally:
                router.admission.give_bytes(len(raw))
            if handler.large:
                _begin_to_send(router.admission, context, len(packed))
            return packed
        except RouterError as e:
            # Else what was made of the answer stays as long as its caller does not read this.
            return await abort(context, e.with_traceback(None))
        except Exception as e:  # noqa: BLE001  # the caller gets a number, the log the rest
            return await abort(context, incident(e, handler.method))

    return method


async def _to_its_end(work: Coroutine[Any, Any, bytes]) -> bytes:
    task = asyncio.ensure_future(work)
    # Where the caller has gone, nobody else looks at what it raised.
    task.add_done_callback(lambda t: t.cancelled() or t.exception())
    return await asyncio.shield(task)


async def _answer(router: Router, handler: Handler, raw: bytes, context: Context) -> bytes:
    try:
        request = handler.request.FromString(raw)
    except DecodeError:
        raise InvalidArgument(
            f"the bytes are no {handler.request.__name__}. Compare the client's protocol with "
            f"the router's."
        ) from None
    response = handler.response()
    caller = Caller(
        peer=context.peer(),
        transport="unary",
        traceparent=_traceparent(context) if tracing.enabled() else "",
    )
    await answer(
        router,
        handler,
        request,
        response,
        caller,
        size=len(raw),
        timeout_seconds=context.time_remaining(),
    )
    packed = response.SerializeToString()
    checked_answer_size(len(packed), handler.method)
    if handler.large:
        router.admission.room_for_answer(len(packed))
    return packed


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Sending:
    """See `admission.Reader`."""

    peer: str
    unread_bytes: int


def _begin_to_send(admission: Admission, context: Context, size: int) -> None:
    """Counts an answer that gRPC is about to be given, until gRPC has sent it."""
    reader = _Sending(peer=context.peer(), unread_bytes=size)

    def sent(_: object) -> None:
        admission.sent(reader)
        admission.give_answer(size)

    admission.take_answer(size)
    admission.sending(reader)
    context.add_done_callback(sent)  # type: ignore[arg-type]  # its stub names a class


def _traceparent(context: Context) -> str:
    for key, value in context.invocation_metadata() or ():
        if key == tracing.TRACEPARENT:
            return value if isinstance(value, str) else value.decode("ascii", "replace")
    return ""
