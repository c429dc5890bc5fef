"""Errors as a call of a frame carries them: `RouterError` to `CallError` and back.

The reason names the class; the gRPC code is for those who know no reasons. An error from a newer
router, whose reason is unknown here, becomes the nearest class of its code.
"""

from typing import Final

import grpc

from checkpoint_router.core.errors import (
    DataLoss,
    DeadlineExceeded,
    DigestMismatch,
    InvalidArgument,
    LimitExceeded,
    Overloaded,
    Refused,
    RouterError,
    Stale,
    ThreadDeleted,
    TokenInvalid,
    Unavailable,
    by_reason,
)
from checkpoint_router.v1 import checkpoint_service_pb2 as calls

RETRY_AFTER_MS: Final = "retry_after_ms"
"""Attribute of a retryable error: how long to wait before the next try."""

MESSAGE_CHARACTERS_MAX: Final = 2000
"""Of an error's text, and of each of its attributes."""

_CODES: Final[dict[type[RouterError], grpc.StatusCode]] = {
    InvalidArgument: grpc.StatusCode.INVALID_ARGUMENT,
    TokenInvalid: grpc.StatusCode.INVALID_ARGUMENT,
    LimitExceeded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Stale: grpc.StatusCode.FAILED_PRECONDITION,
    ThreadDeleted: grpc.StatusCode.FAILED_PRECONDITION,
    Refused: grpc.StatusCode.FAILED_PRECONDITION,
    DigestMismatch: grpc.StatusCode.ALREADY_EXISTS,
    DataLoss: grpc.StatusCode.DATA_LOSS,
    Unavailable: grpc.StatusCode.UNAVAILABLE,
    DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
    RouterError: grpc.StatusCode.INTERNAL,
}
"""A class that is not here has the code of its nearest base."""

_CLASSES: Final[dict[int, type[RouterError]]] = {
    grpc.StatusCode.INVALID_ARGUMENT.value[0]: InvalidArgument,
    grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]: LimitExceeded,
    grpc.StatusCode.FAILED_PRECONDITION.value[0]: Refused,
    grpc.StatusCode.UNIMPLEMENTED.value[0]: Refused,
    grpc.StatusCode.DATA_LOSS.value[0]: DataLoss,
    grpc.StatusCode.UNAVAILABLE.value[0]: Unavailable,
    grpc.StatusCode.CANCELLED.value[0]: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED.value[0]: DeadlineExceeded,
}
"""For statuses without a reason of ours: from the transport, or from something in between."""


def code_of(error: RouterError) -> grpc.StatusCode:
    """The gRPC code of `error`."""
    for cls in type(error).__mro__:
        if cls in _CODES:
            return _CODES[cls]
    raise AssertionError("every RouterError has the root as its base")


def fill_error(message: calls.CallError, error: RouterError) -> None:
    """Writes `error` into `message`, its text cut to what a reader can use."""
    message.code = code_of(error).value[0]
    message.message = encodable(error.message)
    message.reason = error.reason
    for name, value in error.attributes.items():
        message.metadata[name] = encodable(value)


def error_of(message: calls.CallError) -> RouterError:
    """The error in `message`: the class that its reason names."""
    attributes = {name: value for name, value in message.metadata.items() if name.isidentifier()}
    cls = by_reason().get(message.reason)
    if cls is None:
        return error_of_code(message.code, message.message, **attributes)
    return rebuilt(cls, message.message, attributes)


def error_of_code(code: int, text: str, **attributes: str) -> RouterError:
    """The nearest error for a gRPC status that names no reason of ours."""
    return rebuilt(_CLASSES.get(code, RouterError), text, attributes)


def rebuilt(cls: type[RouterError], text: str, attributes: dict[str, str]) -> RouterError:
    """An error of `cls` as its sender made it."""
    attributes.pop("message", None)  # the name of the constructor's own argument
    return cls(text, **attributes)


def encodable(text: str) -> str:
    """`text` cut to the limit, and without what has no UTF-8 form."""
    return text[:MESSAGE_CHARACTERS_MAX].encode("utf-8", "replace").decode()
