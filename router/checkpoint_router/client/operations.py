"""An operation: what one method of the saver does, once for the sync and the async half.

It is a generator: it yields calls (name, request), is sent the answers, and returns the result.
Whoever drives it does the IO. All up to the first yield happens when the saver is called, so
values are serialised, and the order of a run's calls is fixed, before anything is awaited.
"""

from collections.abc import Callable, Generator
from typing import Any, Concatenate, Generic, NamedTuple, ParamSpec, TypeVar

from google.protobuf.message import Message

T = TypeVar("T")
M = TypeVar("M", bound=Message)
P = ParamSpec("P")


class Call(NamedTuple):
    """One call to a router."""

    name: str
    request: Message


class Done(NamedTuple, Generic[T]):
    """The end of an operation."""

    result: T


Operation = Generator[Call, Any, T]
"""Yields calls, is sent their answers, returns T."""


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


def begin(operation: Operation[T]) -> Call | Done[T]:
    """The first call of an operation, or its end."""
    return _after(operation.send, None)


def answered(operation: Operation[T], answer: Any) -> Call | Done[T]:
    """What follows on an answer."""
    return _after(operation.send, answer)


def failed(operation: Operation[T], error: BaseException) -> Call | Done[T]:
    """What follows on a call that raised: the operation decides what that means."""
    return _after(operation.throw, error)


def _after(resume: Callable[[Any], Call], value: Any) -> Call | Done[Any]:
    try:
        return resume(value)
    except StopIteration as end:
        return Done(end.value)
