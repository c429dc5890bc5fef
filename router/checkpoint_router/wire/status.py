"""Errors of unary calls: `RouterError` to `google.rpc.Status` with `ErrorInfo`, and back.

Needs googleapis-common-protos, which the router's extra brings; a saver needs only `wire.errors`.
"""

from typing import Final

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import (  # type: ignore[import-untyped]  # ships no stubs
    ErrorInfo,
    RetryInfo,
)
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]  # ships no stubs

from checkpoint_router.core.errors import DOMAIN, RouterError, by_reason
from checkpoint_router.wire.errors import (
    RETRY_AFTER_MS,
    code_of,
    encodable,
    error_of_code,
    rebuilt,
)

TEXT_BYTES_MAX: Final = 800
"""Of the message of a status. It travels twice in the trailers, for which 8 KiB are common, and
once with three characters for each byte that is not ASCII."""

ATTRIBUTE_BYTES_MAX: Final = 200
"""Of each attribute of a status."""

RETRY_AFTER_MS_DEFAULT: Final = 100


def status_of(error: RouterError) -> Status:
    """The rich status of `error`; with RetryInfo if a retry can help."""
    status = Status(code=code_of(error).value[0], message=_cut(error.message, TEXT_BYTES_MAX))
    info = ErrorInfo(reason=error.reason, domain=DOMAIN)
    for name, value in error.attributes.items():
        info.metadata[name] = _cut(value, ATTRIBUTE_BYTES_MAX)
    _pack(status, info)
    if error.retryable:
        millis = error.attributes.get(RETRY_AFTER_MS, "")
        delay = Duration()
        delay.FromMilliseconds(int(millis) if millis.isdigit() else RETRY_AFTER_MS_DEFAULT)
        _pack(status, RetryInfo(retry_delay=delay))
    return status


def error_of_status(status: Status) -> RouterError:
    """The error in `status`; by its code alone if it is not one of ours."""
    for detail in status.details:
        info = ErrorInfo()
        if detail.Unpack(info) and info.domain == DOMAIN:
            cls = by_reason().get(info.reason)
            if cls is not None:
                return rebuilt(cls, status.message, dict(info.metadata))
    return error_of_code(status.code, status.message)


def _cut(text: str, size: int) -> str:
    return encodable(text).encode()[:size].decode(errors="ignore")


def _pack(status: Status, detail: ErrorInfo | RetryInfo) -> None:
    packed = AnyMessage()
    packed.Pack(detail)
    status.details.append(packed)
