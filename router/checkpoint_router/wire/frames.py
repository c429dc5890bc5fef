"""Frames of the stream, put together from parts that are bytes already, and taken apart again.

A `Call` or `CallResult` is serialised once, where it was made. A frame is a message with one
repeated field of them, and its bytes are those parts, each behind the field's tag and its length:
joining them costs a copy, where adding messages to a message would cost two and a parse.

A router takes frames apart before anything is parsed, so that calls are counted and weighed
first: a frame of nothing but empty calls would take thirty times its bytes.
"""

from collections.abc import Iterable
from typing import Final

from checkpoint_router.core import limits
from checkpoint_router.core.errors import InvalidArgument, LimitExceeded
from checkpoint_router.v1 import checkpoint_service_pb2 as calls

_TAG: Final = b"\x0a"
"""Field 1, length-delimited: `calls` of a ConnectRequest, `results` of a ConnectResponse."""

_CALL_FIELDS_MAX: Final = 64
"""Of a call, before its id is found. Calls of ours have four, and the id comes first."""


def frame_of(parts: Iterable[bytes]) -> bytes:
    """The bytes of a ConnectRequest with these serialised calls, or of a ConnectResponse with
    these serialised results."""
    out: list[bytes] = []
    for part in parts:
        out += (_TAG, varint(len(part)), part)
    return b"".join(out)


def varint(number: int) -> bytes:
    """`number` as protobuf writes it: seven bits a byte, the lowest first."""
    if number < 0x80:
        return bytes((number,))
    if number < 0x4000:
        return bytes((number & 0x7F | 0x80, number >> 7))
    return bytes((number & 0x7F | 0x80,)) + varint(number >> 7)


GOING_AWAY: Final = calls.ConnectResponse(going_away=True).SerializeToString()
"""A frame without results: the router is about to stop."""


def parts_of(frame: bytes) -> tuple[list[bytes], list[int]]:
    """The serialised calls of a ConnectRequest, and the ids of cancelled calls.

    Raises InvalidArgument for bytes that are none, LimitExceeded for too many of either.
    """
    parts: list[bytes] = []
    cancelled: list[int] = []
    try:
        at, end = 0, len(frame)
        while at < end:
            key, at = _varint(frame, at)
            if key == 0x0A:
                size, at = _varint(frame, at)
                stop = _within(at + size, end)
                parts.append(frame[at:stop])
                at = stop
                if len(parts) > limits.FRAME_CALLS_MAX:
                    raise _too_many("calls", limits.FRAME_CALLS_MAX)
            elif key == 0x10:
                call_id, at = _varint(frame, at)
                cancelled.append(call_id)
            elif key == 0x12:
                size, at = _varint(frame, at)
                stop = _within(at + size, end)
                while at < stop and len(cancelled) <= limits.FRAME_CANCELLED_MAX:
                    call_id, at = _varint(frame, at)
                    cancelled.append(call_id)
            else:
                at = _skipped(frame, key, at)
            if len(cancelled) > limits.FRAME_CANCELLED_MAX:
                raise _too_many("cancelled calls", limits.FRAME_CANCELLED_MAX)
    except (IndexError, ValueError):
        raise InvalidArgument(
            f"a frame of {len(frame)} bytes is no ConnectRequest. Compare the client's protocol "
            f"with the router's.",
            field="frame",
        ) from None
    return parts, cancelled


def call_id_of(part: bytes) -> int:
    """The id of a serialised call, without parsing the rest. 0 if it has none."""
    try:
        at = 0
        for _ in range(_CALL_FIELDS_MAX):
            if at >= len(part):
                return 0
            key, at = _varint(part, at)
            if key == 0x08:
                return _varint(part, at)[0]
            at = _skipped(part, key, at)
    except (IndexError, ValueError):
        pass
    raise InvalidArgument(
        f"{len(part)} bytes in a frame are no Call. Compare the client's protocol with the "
        f"router's.",
        field="frame.calls",
    )


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    value = raw[at]
    if value < 0x80:
        return value, at + 1
    value = shift = 0
    while shift < 64:
        byte = raw[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError("a varint of more than ten bytes")


def _skipped(raw: bytes, key: int, at: int) -> int:
    match key & 7:
        case 0:
            return _varint(raw, at)[1]
        case 1:
            return _within(at + 8, len(raw))
        case 2:
            size, at = _varint(raw, at)
            return _within(at + size, len(raw))
        case 5:
            return _within(at + 4, len(raw))
        case _:
            raise ValueError("a wire type that no field has")


def _within(at: int, end: int) -> int:
    if at > end:
        raise ValueError("cut off")
    return at


def _too_many(what: str, limit: int) -> LimitExceeded:
    return LimitExceeded(
        f"a frame carries more than {limit} {what}. Send them in several frames.", field="frame"
    )
