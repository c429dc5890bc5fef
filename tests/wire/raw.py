"""A client without manners: sends what a test says, byte for byte, unary or on a raw stream.

Rules: every wait ends with the RPC's own deadline; what a test opens it closes.
"""

import queue
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Final, Self

import grpc
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]  # ships no stubs

from checkpoint_router.core.answers import NewBlob, ReadAnswer
from checkpoint_router.core.clock import Ranges
from checkpoint_router.core.digests import blob_hash
from checkpoint_router.core.errors import RouterError
from checkpoint_router.core.ids import EventId, SegmentId, ThreadKey
from checkpoint_router.core.limits import MESSAGE_BYTES_MAX
from checkpoint_router.core.records import (
    Blob,
    ChannelEntry,
    Checkpoint,
    Event,
    Header,
    Typed,
)
from checkpoint_router.v1 import checkpoint_service_pb2 as calls
from checkpoint_router.wire import answers, requests
from checkpoint_router.wire.blobs import fill_blobs
from checkpoint_router.wire.errors import error_of, error_of_code
from checkpoint_router.wire.status import error_of_status

from .structured import fill_event

SERVICE: Final = "/checkpoint_router.v1.CheckpointService/"
SECONDS: Final = 60.0
"""For each RPC. Shorter: a busy machine fails the tests. Longer: a hanging router holds them up."""

OPTIONS: Final = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    # A connection of its own for each channel: one must not hang because another does.
    ("grpc.use_local_subchannel_pool", 1),
)


def error_in(failure: grpc.RpcError) -> RouterError:
    """The error that ended an RPC, from its rich status if it has one."""
    trailers: Any = failure.trailing_metadata() or ()
    for key, value in trailers:
        if key == "grpc-status-details-bin":
            return error_of_status(Status.FromString(value))
    return error_of_code(failure.code().value[0], failure.details() or "")


class Stream:
    """One Connect, as bytes."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address, options=OPTIONS)
        self._frames: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        connect: Any = self._channel.stream_stream(f"{SERVICE}Connect")
        self._rpc = connect(iter(self._frames.get, None), timeout=SECONDS)
        self.went_away = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._frames.put(None)
        self._rpc.cancel()
        self._channel.close()

    def send(self, frame: bytes) -> None:
        """Sends these bytes as one frame."""
        self._frames.put(frame)

    def call(self, *each: calls.Call) -> None:
        """Sends these calls in one frame."""
        self.send(calls.ConnectRequest(calls=each).SerializeToString())

    def finish(self) -> None:
        """Says that no more frames come."""
        self._frames.put(None)

    def results(self) -> Iterator[calls.CallResult]:
        """What comes back, until the stream ends. Raises the RouterError that ended it."""
        try:
            for raw in self._rpc:
                frame = calls.ConnectResponse.FromString(raw)
                self.went_away |= frame.going_away
                yield from frame.results
        except grpc.RpcError as e:
            raise error_in(e) from None

    def next(self) -> calls.CallResult:
        """The next result."""
        return next(self.results())

    def frame(self) -> calls.ConnectResponse:
        """The next frame, whatever it says."""
        return calls.ConnectResponse.FromString(next(self._rpc))


def call_of(name: str, request: Any, call_id: int = 1, timeout_ms: int = 0) -> calls.Call:
    """A call that carries `request` in the field `name`."""
    call = calls.Call(call_id=call_id, timeout_ms=timeout_ms)
    getattr(call, name).CopyFrom(request)
    return call


def ask_on_stream(address: str, name: str, request: Any) -> Any:
    """Makes one call on a stream of its own. Raises the RouterError that it gets."""
    with Stream(address) as stream:
        stream.call(call_of(name, request))
        result = stream.next()
    if result.HasField("error"):
        raise error_of(result.error)
    return getattr(result, name)


def ask_unary(address: str, name: str, request: Any) -> Any:
    """Makes one unary call. Raises the RouterError that it gets."""
    method = "".join(part.capitalize() for part in name.split("_"))
    raw = ask_raw(address, method, request.SerializeToString())
    return getattr(calls, f"{method}Response").FromString(raw)


def ask_raw(address: str, method: str, request: bytes) -> bytes:
    """Makes one unary call of these bytes. Raises the RouterError that it gets."""
    with grpc.insecure_channel(address, options=OPTIONS) as channel:
        unary: Any = channel.unary_unary(f"{SERVICE}{method}")
        try:
            answer: bytes = unary(request, timeout=SECONDS)
        except grpc.RpcError as e:
            raise error_in(e) from None
    return answer


def read(address: str, thread: ThreadKey) -> ReadAnswer:
    """The newest checkpoint of the root namespace."""
    request = calls.GetTupleRequest()
    requests.fill_get_tuple(request, thread, "", None, None)
    return answers.read_answer_of(ask_unary(address, "get_tuple", request))


def blob(data: bytes) -> NewBlob:
    """A value named by its content."""
    return NewBlob(hash=blob_hash("msgpack", data), value=Typed("msgpack", data))


def first_event(
    seen: ReadAnswer,
    segment: bytes,
    *named: bytes,
    checkpoint_id: str = "c1",
    index: int = 1,
    after: Ranges = (),
) -> Event:
    """A checkpoint, made from a read, whose channels name these blobs."""
    return Event(
        id=EventId(SegmentId(segment), index),
        ns="",
        checkpoint_id=checkpoint_id,
        gen=seen.clock.gen,
        term=seen.clock.term,
        hlc=seen.clock.hlc + index,
        after=after,
        header=Header(token=seen.token),
        content=Checkpoint(
            parent_id=None,
            body=Typed("msgpack", b"\x80"),
            manifest=tuple(ChannelEntry(f"c{n}", "1", Blob(name)) for n, name in enumerate(named)),
            metadata=(),
        ),
    )


def put_request(thread: ThreadKey, event: Event, *blobs: NewBlob) -> calls.PutRequest:
    """A put of that event with those blobs."""
    request = calls.PutRequest()
    requests.fill_thread(request, thread)
    fill_event(request.event, event)
    fill_blobs(request.blobs, blobs)
    return request


def waiting_put(thread: ThreadKey, seen: ReadAnswer, segment: bytes) -> calls.PutRequest:
    """A put that rests on an event which nobody will ever send: the router waits, then says so."""
    return put_request(thread, first_event(seen, segment, index=2, after=((1, 1),)))
