"""An operation: what one method of the saver does, once for the sync and the async half.

It is a generator: it yields calls, is sent the answers, and returns the result. It may also yield
the turn of a caller that waits for another (`gathering`), and is sent what that brings; or AWAITED,
and is sent nothing as soon as somebody waits for it: a coroutine may never be awaited.
Whoever drives it does the IO. All up to the first yield happens when the saver is called, so
values are serialised, and the order of a run's calls is fixed, before anything is awaited.
"""

from collections.abc import Callable, Generator
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

import msgspec
from google.protobuf.message import Message

from checkpoint_router.client.gathering import Turn

T = TypeVar("T")
M = TypeVar("M", bound=Message)
P = ParamSpec("P")


class Call(msgspec.Struct, frozen=True, gc=False):
    """One call to a router."""

    name: str
    request: Message | bytes
    waited_seconds: float = 0.0
    """Of its caller's time, over already."""
    meanwhile: Callable[[], None] | None = None
    """What to do once while the call is on its way: the router works then, and this process has
    nothing else to do for it."""


class Awaited:
    """That somebody waits for the operation."""


AWAITED: Final = Awaited()

Step = Call | Turn | Awaited

Operation = Generator[Step, Any, T]
"""Yields what it needs, is sent that, returns T."""


def call(
    name: str,
    request: M,
    fill: Callable[Concatenate[M, P], None],
    *given: P.args,
    **named: P.kwargs,
) -> Call:
    """The call whose request `fill` writes into an empty one."""
    fill(request, *given, **named)
    return Call(name, request)
