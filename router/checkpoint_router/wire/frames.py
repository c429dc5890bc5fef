"""Frames of the stream, put together from parts that are bytes already.

A `Call` or `CallResult` is serialised once, where it was made. A frame is a message with one
repeated field of them, and its bytes are those parts, each behind the field's tag and its length:
joining them costs a copy, where adding messages to a message would cost two and a parse.
"""

from collections.abc import Iterable
from typing import Final

from checkpoint_router.v1 import checkpoint_service_pb2 as calls

_TAG: Final = b"\x0a"
"""Field 1, length-delimited: `calls` of a ConnectRequest, `results` of a ConnectResponse."""


def frame_of(parts: Iterable[bytes]) -> bytes:
    """The bytes of a ConnectRequest with these serialised calls, or of a ConnectResponse with
    these serialised results."""
    out: list[bytes] = []
    for part in parts:
        out += (_TAG, _length(len(part)), part)
    return b"".join(out)


GOING_AWAY: Final = calls.ConnectResponse(going_away=True).SerializeToString()
"""A frame without results: the router is about to stop."""


def _length(size: int) -> bytes:
    out = bytearray()
    while size > 0x7F:
        out.append(0x80 | (size & 0x7F))
        size >>= 7
    out.append(size)
    return bytes(out)
