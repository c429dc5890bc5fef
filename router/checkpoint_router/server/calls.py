"""One call, whatever it came in on: deadline, tenant, span, handler, and what its failure says.

Rules: only `RouterError`s leave here; anything else is logged with an incident number, which is
all that the caller learns of it.
"""

import asyncio
import secrets
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from google.protobuf.message import Message

from checkpoint_router.core import limits
from checkpoint_router.core.errors import DeadlineExceeded, LimitExceeded, RouterError, unanswered
from checkpoint_router.engine.engine import Engine
from checkpoint_router.server.admission import Admission, authorise
from checkpoint_router.server.handlers import Handler
from checkpoint_router.telemetry import metrics, names, tracing
from checkpoint_router.telemetry.logging import logger

Transport = Literal["unary", "stream"]

_log = logger("calls")

_ATTRIBUTES: Final = {one: {names.TRANSPORT: one} for one in get_args(Transport)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who called, and how."""

    peer: str
    transport: Transport
    traceparent: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Router:
    """What every call needs."""

    engine: Engine
    admission: Admission


def answer(
    router: Router,
    handler: Handler,
    request: Any,
    response: Message,
    caller: Caller,
    *,
    size: int,
    timeout_seconds: float | None,
) -> Coroutine[Any, Any, None]:
    """Runs one call of `size` bytes and fills `response`. Raises RouterError and nothing else.

    None for the time-out: the router's own limit, which also bounds a longer one. A steady call
    has none, and must not be cancelled while the engine is `storing` what it brought.
    """
    run = _traced if tracing.enabled() else _answer
    return run(router, handler, request, response, caller, size, timeout_seconds)


async def _traced(
    router: Router,
    handler: Handler,
    request: Any,
    response: Message,
    caller: Caller,
    size: int,
    timeout_seconds: float | None,
) -> None:
    attributes = _ATTRIBUTES[caller.transport]
    with tracing.server_span(handler.service, handler.method, caller.traceparent, attributes):
        await _answer(router, handler, request, response, caller, size, timeout_seconds)


async def _answer(
    router: Router,
    handler: Handler,
    request: Any,
    response: Message,
    caller: Caller,
    size: int,
    timeout_seconds: float | None,
) -> None:
    loop = asyncio.get_running_loop()
    begun = loop.time()
    seconds = limits.DEADLINE_SECONDS_MAX
    if timeout_seconds is not None and timeout_seconds < seconds:
        seconds = timeout_seconds
    outcome = "ok"
    try:
        if handler.large and size > limits.FRAME_BYTES_MAX:
            raise _too_large(handler, size)
        authorise(caller.peer, getattr(request, "tenant", ""))
        if handler.steady:
            await handler.run(router.engine, request, response, begun + seconds)
        else:
            await _bounded(router, handler, request, response, begun + seconds)
    except RouterError as e:
        outcome = e.reason
        raise
    except TimeoutError:
        outcome = DeadlineExceeded.reason
        raise DeadlineExceeded(
            f"{handler.method} was not done after {seconds:.3g} s. {unanswered(handler.method)}"
        ) from None
    except asyncio.CancelledError:
        outcome = "CANCELLED"
        raise
    except Exception as e:  # noqa: BLE001  # the caller gets a number, the log the rest
        outcome = RouterError.reason
        raise incident(e, handler.method) from None
    finally:
        metrics.called(handler.name, caller.transport, outcome, loop.time() - begun)


async def _bounded(
    router: Router, handler: Handler, request: Any, response: Message, deadline: float
) -> None:
    async with asyncio.timeout_at(deadline):
        if handler.large:
            async with router.admission.large_answers:
                router.admission.room_for_answer()
                await handler.run(router.engine, request, response, deadline)
        else:
            await handler.run(router.engine, request, response, deadline)


def incident(error: Exception, what: str) -> RouterError:
    """What a caller learns of an error that nobody foresaw; the log gets the rest."""
    number = secrets.token_hex(6)
    _log.error("unexpected error", incident=number, call=what, exc_info=error)
    return RouterError(
        f"the router failed at {what} in a way that it should not have. {unanswered(what)} The "
        f"router's log has the details under incident {number}.",
        incident=number,
    )


def checked_answer_size(size: int, what: str) -> None:
    """Raises LimitExceeded for an answer that no message can carry."""
    if size > limits.MESSAGE_BYTES_MAX - limits.KIB:
        raise LimitExceeded(
            f"the answer to {what} has {size} bytes; the limit of a message is "
            f"{limits.MESSAGE_BYTES_MAX}. Ask for less at once.",
            size=str(size),
            limit=str(limits.MESSAGE_BYTES_MAX),
        )


def _too_large(handler: Handler, size: int) -> LimitExceeded:
    return LimitExceeded(
        f"a {handler.request.__name__} of {size} bytes is above the limit of "
        f"{limits.FRAME_BYTES_MAX}. Ask for less at once.",
        size=str(size),
        limit=str(limits.FRAME_BYTES_MAX),
    )
