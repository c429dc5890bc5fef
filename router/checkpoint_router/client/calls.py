"""The calls of one half of a saver that are not answered yet, and what to send of them when.

Owner: the link that holds the table; it serialises access (a lock, or its event loop). Nothing
here reads a clock, waits, or does any input or output.

Rules: a call is on one stream at most. When its stream breaks it waits again, before those that
were never sent, and goes out as the very same bytes: the router sees a repeat of what it may have
done already, and answers as it did. A call that was answered or given up is forgotten; an answer
that comes later is dropped. At most CALLS_PER_STREAM_MAX calls are on one stream, and fewer where
a router refused some because it is full: what would be refused waits here, for nothing, instead of
costing the router an answer each time. A call that was refused goes before all of them, whatever
their number: it waits for its turn by itself, and others may wait for it in the router.
"""

import math
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

import msgspec
from google.protobuf.message import Message

from checkpoint_router.core import limits
from checkpoint_router.core.errors import LimitExceeded, Overloaded
from checkpoint_router.v1 import checkpoint_service_pb2 as v1
from checkpoint_router.wire.errors import RETRY_AFTER_MS
from checkpoint_router.wire.frames import frame_of, varint

W = TypeVar("W")
"""What waits for an answer: a lock or a future."""

CANCELS_PER_FRAME_MAX: Final = 1024
"""Ids of given-up calls in one frame."""

WINDOW_MIN: Final = 4
"""Calls that a router is asked to take at once however full it is. Fewer: one that takes long there
holds up all others of its process. More: many processes are refused more often."""

SHRINK: Final = 0.75
"""What a refusal leaves of them. Less: the router waits for calls that wait here. More: savers that
share it come to equal shares later."""

TIMEOUT_MS_MAX: Final = 2**32 - 1

_CALL_OVERHEAD_BYTES: Final = 64
"""At the most: ids, times, tags and lengths of a call that is alone in its frame."""

_REQUESTS: Final = {
    each.name: (varint(each.number << 3 | 2), getattr(v1, each.message_type.name))
    for each in v1.Call.DESCRIPTOR.oneofs_by_name["request"].fields
    if each.message_type
}
"""Name of a call: the tag of its request, and the request's class."""


class Prepared(msgspec.Struct, frozen=True, gc=False):
    """A call but for its id: its request is bytes from here on, so that no retry can differ."""

    name: str
    head: bytes
    """What stands between the call's times and its request."""
    request: bytes

    @classmethod
    def of(cls, name: str, request: Message | bytes, traceparent: str = "") -> "Prepared":
        """Raises TypeError if `request` is not the request of the call `name`, and LimitExceeded
        if it does not fit in a message."""
        if name not in _REQUESTS:
            raise TypeError(f"there is no call {name!r}; there are {', '.join(_REQUESTS)}")
        tag, wanted = _REQUESTS[name]
        if isinstance(request, bytes):
            data = request
        elif type(request) is wanted:
            data = request.SerializeToString()
        else:
            given = request.DESCRIPTOR.full_name
            raise TypeError(f"{name} takes a {wanted.DESCRIPTOR.full_name}, not a {given}")
        if len(data) + _CALL_OVERHEAD_BYTES + len(traceparent) > limits.MESSAGE_BYTES_MAX:
            raise LimitExceeded(
                f"{name} would send {len(data)} bytes in one message; the limit is "
                f"{limits.MESSAGE_BYTES_MAX}. Nothing was sent. Keep large values outside the "
                f"state, or split them over several channels.",
                call=name,
            )
        head = tag + varint(len(data))
        if traceparent:
            text = traceparent.encode()
            head = b"".join((b"\x1a", varint(len(text)), text, head))
        return cls(name, head, data)

    def encoded(self, call_id: int, seconds: float) -> bytes:
        """The bytes of the `Call`. By hand: a request that is put into a message is copied
        first, and a checkpoint may have megabytes."""
        millis = max(1, min(int(seconds * 1000), TIMEOUT_MS_MAX))
        times = (b"\x08", varint(call_id), b"\x10", varint(millis))
        return b"".join((*times, self.head, self.request))


def packed_cancels(call_ids: Iterable[int]) -> bytes:
    """Field `cancelled` of a ConnectRequest; empty for no ids."""
    body = b"".join(map(varint, call_ids))
    return b"\x12" + varint(len(body)) + body if body else b""


def is_full(result: v1.CallResult) -> bool:
    """Whether the answer is that the router holds as much as it may, of anybody's."""
    error = result.error if result.HasField("error") else None
    return (
        error is not None and error.reason == Overloaded.reason and RETRY_AFTER_MS in error.metadata
    )


class _Call(msgspec.Struct, Generic[W]):
    data: bytes
    waiter: W
    ends_at: float
    """By the link's clock."""
    again: bool
    """It was refused before."""
    stream: int = 0
    """The stream that carries it; 0 while it waits for one."""


@dataclass(slots=True)
class _Stream:
    under_way: dict[int, None] = field(default_factory=dict)
    cancelled: list[int] = field(default_factory=list)
    """Given up since they were sent, and the router was not told yet."""


class CallTable(Generic[W]):
    """Every unanswered call of one half, in the order in which they came."""

    def __init__(self) -> None:
        self._calls: dict[int, _Call[W]] = {}
        self._waiting: OrderedDict[int, None] = OrderedDict()
        self._streams: dict[int, _Stream] = {}
        self._last = 0
        self._window: float = limits.CALLS_PER_STREAM_MAX
        """Calls that the router is believed to take at once. Fewer after a refusal, one more after
        as many answers: so savers that share a full router come to equal shares."""
        self.current = 0
        """The stream that takes new calls; 0 where there is none."""

    @property
    def waiting(self) -> int:
        """Calls that are on no stream."""
        return len(self._waiting)

    @property
    def unanswered(self) -> int:
        """Calls on streams, and those that wait for one."""
        return len(self._calls)

    @property
    def silence(self) -> str:
        """Why a call may have had no answer, as far as is known here."""
        narrow = self.current and self._window < limits.CALLS_PER_STREAM_MAX
        return "the router is full, or was: it refused calls of this process" if narrow else ""

    def under_way(self, stream: int) -> int:
        """Calls that `stream` carries."""
        state = self._streams.get(stream)
        return len(state.under_way) if state else 0

    def sendable(self, stream: int) -> bool:
        """Whether `next_frame(stream)` would give one."""
        state = self._streams.get(stream)
        return state is not None and bool(state.cancelled or self._takes(stream, state))

    def open(self) -> int:
        """A new stream, which takes all new calls from now on."""
        self._last += 1
        self._window = limits.CALLS_PER_STREAM_MAX
        self._streams[self._last] = _Stream()
        self.current = self._last
        return self._last

    def admit(
        self,
        call_id: int,
        data: bytes,
        waiter: W,
        ends_at: float = math.inf,
        *,
        again: bool = False,
    ) -> None:
        """Takes a call in; its id was never used before. `again`: an earlier try was refused."""
        assert call_id not in self._calls, "a call id was used twice"
        self._calls[call_id] = _Call(data, waiter, ends_at, again)
        self._waiting[call_id] = None
        if again:
            self._waiting.move_to_end(call_id, last=False)

    def next_frame(self, stream: int) -> bytes | None:
        """The next ConnectRequest for `stream`, its calls now under way; None: nothing to send."""
        state = self._streams.get(stream)
        if state is None:
            return None
        parts: list[bytes] = []
        size = 0
        while len(parts) < limits.FRAME_CALLS_MAX and self._takes(stream, state):
            call_id = next(iter(self._waiting))
            call = self._calls[call_id]
            size += len(call.data)
            if parts and size > limits.FRAME_BYTES_MAX:
                break
            del self._waiting[call_id]
            call.stream = stream
            state.under_way[call_id] = None
            parts.append(call.data)
        if not state.cancelled:
            return frame_of(parts) if parts else None
        told = state.cancelled[:CANCELS_PER_FRAME_MAX]
        del state.cancelled[: len(told)]
        return frame_of(parts) + packed_cancels(told)

    def answered(self, stream: int, call_id: int, *, full: bool = False) -> W | None:
        """Who waits for this answer, which may be that the router is full; None if nobody does any
        more."""
        call = self._calls.get(call_id)
        if call is None or call.stream != stream or not stream:
            return None
        self._forget(call_id, call)
        if full and stream == self.current:
            self._window = max(WINDOW_MIN, self.under_way(stream) * SHRINK)
        elif self._window < limits.CALLS_PER_STREAM_MAX:
            self._window += 1 / self._window
        return call.waiter

    def give_up(self, call_id: int) -> int:
        """Forgets a call whose caller has gone. The stream that shall tell the router, or 0."""
        call = self._calls.get(call_id)
        if call is None:
            return 0
        self._forget(call_id, call)
        if call.stream:
            self._streams[call.stream].cancelled.append(call_id)
        return call.stream

    def ended(self, now: float) -> tuple[list[W], float]:
        """Who waits for a call whose time is over, and when the time of the next one will be."""
        over = [call.waiter for call in self._calls.values() if call.ends_at <= now]
        rest = (call.ends_at for call in self._calls.values() if call.ends_at > now)
        return over, min(rest, default=math.inf)

    def retire(self, stream: int) -> None:
        """`stream` takes no new calls; those under way are still answered on it."""
        if self.current == stream:
            self.current = 0

    def broken(self, stream: int) -> int:
        """`stream` is over: what it carried waits again, in the old order. How many those are."""
        self.retire(stream)
        state = self._streams.pop(stream, None)
        if state is None:
            return 0
        for call_id in reversed(state.under_way):
            self._calls[call_id].stream = 0
            self._waiting[call_id] = None
            self._waiting.move_to_end(call_id, last=False)
        return len(state.under_way)

    def abandon_waiting(self) -> list[W]:
        """Forgets every call that is on no stream; who waited for them."""
        return [self._calls.pop(call_id).waiter for call_id in self._drained()]

    def abandon_all(self) -> list[W]:
        """Forgets every call; who waited for them."""
        for stream in list(self._streams):
            self.broken(stream)
        return self.abandon_waiting()

    def _takes(self, stream: int, state: _Stream) -> bool:
        if stream != self.current or not self._waiting:
            return False
        under_way = len(state.under_way)
        if under_way >= limits.CALLS_PER_STREAM_MAX:
            return False
        return under_way < self._window or self._calls[next(iter(self._waiting))].again

    def _forget(self, call_id: int, call: _Call[W]) -> None:
        del self._calls[call_id]
        if call.stream:
            del self._streams[call.stream].under_way[call_id]
        else:
            del self._waiting[call_id]

    def _drained(self) -> list[int]:
        call_ids = list(self._waiting)
        self._waiting.clear()
        return call_ids
