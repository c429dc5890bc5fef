"""One call, whatever it came in on: deadline, tenant, span, handler, and what its failure says.

Rules: only `RouterError`s leave here; anything else is logged with an incident number, which is
all that the caller learns of it.
"""

import asyncio
import secrets
import time
from dataclasses import dataclass
from typing import Any, Literal

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


async def answer(
    router: Router,
    handler: Handler,
    request: Message,
    response: Message,
    caller: Caller,
    *,
    size: int,
    timeout_seconds: float | None,
) -> None:
    """Runs one call of `size` bytes and fills `response`. Raises RouterError and nothing else.

    None for the time-out: the router's own limit, which also bounds a longer one. A steady call
    has none, and must not be cancelled while the engine is `storing` what it brought.
    """
    begun = time.perf_counter()
    outcome = "ok"
    try:
        with tracing.server_span(
            handler.service, handler.method, caller.traceparent, _attributes(caller)
        ):
            if handler.large and size > limits.FRAME_BYTES_MAX:
                raise _too_large(handler, size)
            authorise(caller.peer, getattr(request, "tenant", ""))
            await _run(router, handler, request, response, timeout_seconds)
    except RouterError as e:
        outcome = e.reason
        raise
    except asyncio.CancelledError:
        outcome = "CANCELLED"
        raise
    finally:
        metrics.called(handler.name, caller.transport, outcome, time.perf_counter() - begun)


async def _run(
    router: Router,
    handler: Handler,
    request: Any,
    response: Message,
    timeout_seconds: float | None,
) -> None:
    seconds = limits.DEADLINE_SECONDS_MAX
    if timeout_seconds is not None and timeout_seconds < seconds:
        seconds = timeout_seconds
    deadline = asyncio.get_running_loop().time() + seconds
    try:
        if handler.steady:
            await handler.run(router.engine, request, response, deadline)
            return
        async with asyncio.timeout_at(deadline):
            if handler.large:
                async with router.admission.large_answers:
                    await handler.run(router.engine, request, response, deadline)
            else:
                await handler.run(router.engine, request, response, deadline)
    except RouterError:
        raise
    except TimeoutError:
        raise DeadlineExceeded(
            f"{handler.method} was not done after {seconds:.3g} s. {unanswered(handler.method)}"
        ) from None
    except Exception as e:  # noqa: BLE001  # the caller gets a number, the log the rest
        raise incident(e, handler.method) from None


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


def _attributes(caller: Caller) -> dict[str, str]:
    return {names.TRANSPORT: caller.transport}
