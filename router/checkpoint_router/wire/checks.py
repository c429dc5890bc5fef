"""The checks that every message meets: each names the field, what it has, and what it may have."""

import json
import re
from collections.abc import Sequence
from typing import Final

from checkpoint_router.core import limits
from checkpoint_router.core.errors import InvalidArgument, LimitExceeded
from checkpoint_router.core.ids import HASH_BYTES, EventId, SegmentId, checked_id, checked_segment
from checkpoint_router.v1 import types_pb2 as pb

_PLAIN_JSON: Final = re.compile(
    r""""[^"\\\x00-\x1f]*"|-?(?:0|[1-9][0-9]{0,15})|null|true|false|\{\}|\[\]"""
)
"""What most metadata is, recognised at a third of a parser's cost."""


def checked_name(what: str, value: str, *, empty: bool = False) -> str:
    """`value` if it may be an id; the usual case without a call of the whole check."""
    if 0 < len(value) <= limits.ID_BYTES_MAX and value.isascii() and "\x00" not in value:
        return value
    return value if empty and not value else checked_id(what, value)


def are_plain(names: Sequence[str]) -> bool:
    """Whether these are surely names, or empty: what most are, looked at together."""
    together = "".join(names)
    return len(together) <= limits.ID_BYTES_MAX and together.isascii() and "\x00" not in together


def checked_hash(what: str, value: bytes) -> bytes:
    """`value` if it has the size of a blob's name."""
    if len(value) != HASH_BYTES:
        raise invalid(what, f"has {len(value)} bytes; the hash of a blob has {HASH_BYTES}.")
    return value


def checked_size(what: str, size: int, limit: int, unit: str = "bytes") -> int:
    """`size` if it is within `limit`."""
    if size > limit:
        raise LimitExceeded(
            f"{what} has {size} {unit}; the limit is {limit}. Nothing was written.",
            field=what,
            size=str(size),
            limit=str(limit),
        )
    return size


def checked_path(path: str) -> str:
    """`path` if it is short enough for a task path."""
    if len(path) * 4 > limits.TASK_PATH_BYTES_MAX:
        checked_size("task_path", len(path.encode()), limits.TASK_PATH_BYTES_MAX)
    return path


def checked_integer(what: str, value: int) -> int:
    """`value` if storages can keep it."""
    if not 0 <= value <= limits.INTEGER_MAX:
        raise invalid(what, f"is {value}; it may be 0 to {limits.INTEGER_MAX}.")
    return value


def checked_event_id(message: pb.EventId, what: str = "event.id") -> EventId:
    """The event id in `message`."""
    index = message.index
    if not 0 < index <= limits.INDEX_MAX:
        raise invalid(f"{what}.index", f"is {index}; indices go from 1 to {limits.INDEX_MAX}.")
    return EventId(checked_segment(message.segment), index)


def optional_segment(value: bytes) -> SegmentId | None:
    """`value` as a segment id; None if it is empty."""
    return checked_segment(value) if value else None


def checked_request_id(value: bytes) -> bytes:
    """`value` if it can name one call of a mutation."""
    if not value:
        raise invalid(
            "request_id",
            "is empty. Give 16 random bytes, and the same ones when you repeat the call.",
        )
    checked_size("request_id", len(value), limits.REQUEST_ID_BYTES_MAX)
    return value


def checked_json(what: str, text: str) -> str:
    """`text` if it is JSON."""
    if _PLAIN_JSON.fullmatch(text):
        return text
    try:
        json.loads(text)
    except (ValueError, RecursionError) as e:
        raise invalid(what, f"is not JSON that can be read: {e}") from None
    return text


def invalid(what: str, why: str) -> InvalidArgument:
    """The error for a field that has what no call may have."""
    return InvalidArgument(f"{what} {why}", field=what)
