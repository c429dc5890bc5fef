"""The stream: out of order, within limits, and no client's trouble but its own."""

import asyncio
import time
from asyncio import CancelledError
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from checkpoint_router.core import limits
from checkpoint_router.core.errors import DeadlineExceeded
from checkpoint_router.core.ids import ThreadKey
from checkpoint_router.core.records import Kind
from checkpoint_router.engine.engine import Engine
from checkpoint_router.server.admission import Admission
from checkpoint_router.server.calls import Router
from checkpoint_router.server.stream import Connection
from checkpoint_router.storage.memory import MemoryStorage
from checkpoint_router.storage.open import storage_from_url
from checkpoint_router.storage.port import Append, Appended, Known, ThreadImage
from checkpoint_router.testing import RunningRouter, running_router
from checkpoint_router.v1 import checkpoint_service_pb2 as calls
from checkpoint_router.wire import requests
from checkpoint_router.wire.blobs import fill_blobs
from tests.saver.proxy import Proxy

from .raw import (
    OPTIONS,
    SECONDS,
    SERVICE,
    Stream,
    ask_unary,
    blob,
    call_of,
    first_event,
    put_request,
    read,
    waiting_put,
)

MEMORY_MIB_MAX = 500
"""Of a router whose client asks for 2 GiB and reads nothing."""


def get(thread: str = "t", call_id: int = 1) -> calls.Call:
    return call_of("get_tuple", calls.GetTupleRequest(tenant="acme", thread_id=thread), call_id)


def peak_mib(pid: int) -> int:
    """The most memory that the process ever had."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) // 1024


def test_a_call_that_waits_does_not_hold_up_the_next_one(
    router: RunningRouter, thread: ThreadKey, segment: bytes
) -> None:
    waits = waiting_put(thread, read(router.address, thread), segment)
    with Stream(router.address) as stream:
        stream.call(call_of("put", waits, 1), get(call_id=2))
        assert stream.next().call_id == 2
        late = stream.next()
        assert (late.call_id, late.error.reason) == (1, "STALE")


def test_many_calls_in_a_frame_are_each_answered_once(router: RunningRouter) -> None:
    with Stream(router.address) as stream:
        for first in range(1, 641, 64):
            stream.call(*(get(call_id=n) for n in range(first, first + 64)))
        stream.finish()
        ids = [result.call_id for result in stream.results()]
    assert sorted(ids) == list(range(1, 641))


def test_a_cancelled_call_gets_no_answer_and_the_stream_ends_well(
    router: RunningRouter, thread: ThreadKey, segment: bytes
) -> None:
    waits = waiting_put(thread, read(router.address, thread), segment)
    with Stream(router.address) as stream:
        stream.call(call_of("put", waits, 1))
        stream.send(
            calls.ConnectRequest(calls=[get(call_id=2)], cancelled=[1, 77]).SerializeToString()
        )
        stream.finish()
        assert [result.call_id for result in stream.results()] == [2]


def test_a_call_ends_at_its_own_time_limit(
    router: RunningRouter, thread: ThreadKey, segment: bytes
) -> None:
    waits = waiting_put(thread, read(router.address, thread), segment)
    with Stream(router.address) as stream:
        stream.call(call_of("put", waits, 1, timeout_ms=1))
        assert stream.next().error.reason in {"DEADLINE_EXCEEDED", "STALE"}


@pytest.fixture
def impatient_router() -> Iterator[RunningRouter]:
    """A router that soon gives up on a client that does not read."""
    with running_router(env={"CHECKPOINT_ROUTER_STREAM_STALL_SECONDS": "1"}) as router:
        yield router


@pytest.fixture
def small_router() -> Iterator[RunningRouter]:
    """A router that can hold few bytes."""
    with running_router(env={"CHECKPOINT_ROUTER_BYTES_IN_FLIGHT_MAX": str(limits.MIB)}) as router:
        yield router


def put_large(address: str, thread: ThreadKey, segment: bytes) -> None:
    """A checkpoint of which each read is as large as a value can be."""
    value = blob(bytes(limits.BLOB_BYTES_MAX))
    blobs = calls.PutBlobsRequest()
    requests.fill_put_blobs(blobs, thread, 1, [value])
    ask_unary(address, "put_blobs", blobs)
    seen = read(address, thread)
    ask_unary(address, "put", put_request(thread, first_event(seen, segment, value.hash)))


def test_a_client_that_never_reads_costs_little_memory_and_in_the_end_its_stream(
    impatient_router: RunningRouter, thread: ThreadKey, segment: bytes
) -> None:
    address = impatient_router.address
    put_large(address, thread, segment)
    with Stream(address) as idle, Stream(address) as well_behaved:
        for first in range(1, 129, 64):
            idle.call(*(get(thread.thread, n) for n in range(first, first + 64)))
        call_id = 0
        while "stream stalled" not in impatient_router.log_text():
            call_id += 1
            well_behaved.call(get("other", call_id))
            assert well_behaved.next().get_tuple.token
        with pytest.raises(DeadlineExceeded, match="did not read its answers"):
            list(idle.results())
    assert peak_mib(impatient_router.pid) < MEMORY_MIB_MAX
    assert "Traceback" not in impatient_router.log_text()


@contextmanager
def unread_on_streams(address: str, thread: ThreadKey) -> Iterator[None]:
    """Streams on connections of their own that ask for 128 MiB each, and read nothing."""
    with ExitStack() as streams:
        for _ in range(12):
            stream = streams.enter_context(Stream(address))
            stream.call(*(get(thread.thread, n) for n in range(8)))
        yield


@contextmanager
def unread_unary(address: str, thread: ThreadKey) -> Iterator[None]:
    """Unary calls that ask for 1 GiB, of whose answers nothing comes through."""
    request = get(thread.thread).get_tuple.SerializeToString()
    with Proxy(address) as proxy:
        target = proxy.target.removeprefix("router://")
        with grpc.insecure_channel(target, options=OPTIONS) as channel:
            grpc.channel_ready_future(channel).result(SECONDS)
            proxy.hold_answers()
            ask: Any = channel.unary_unary(f"{SERVICE}GetTuple")
            asked = [ask.future(request, timeout=SECONDS) for _ in range(64)]
            yield
            for each in asked:
                each.cancel()


@pytest.mark.parametrize("unread", [unread_on_streams, unread_unary])
def test_many_who_do_not_read_cost_little_memory_and_make_room_for_who_does(
    thread: ThreadKey, segment: bytes, unread: Callable[[str, ThreadKey], Any]
) -> None:
    env = {
        "CHECKPOINT_ROUTER_BYTES_IN_FLIGHT_MAX": str(64 * limits.MIB),
        # After a twelfth of it they may be disconnected, which must be before it.
        "CHECKPOINT_ROUTER_STREAM_STALL_SECONDS": "24",
    }
    with running_router(env=env) as router:
        put_large(router.address, thread, segment)
        with unread(router.address, thread), Stream(router.address) as reads:
            call_id = answered = 0
            while not answered:
                call_id += 1
                # Not for the large one at once: while its answer is on its way, the others may be
                # refused for it, ask no more, and leave room for everybody.
                made_room = "disconnected a client" in router.log_text()
                reads.call(get(thread.thread if made_room else "other", call_id))
                result = reads.next()
                assert result.error.reason in {"", "OVERLOADED"}
                answered = bool(result.get_tuple.blobs)
                time.sleep(int(result.error.metadata.get("retry_after_ms", 0)) / 1000)
        assert peak_mib(router.pid) < MEMORY_MIB_MAX
        # What gRPC logs of an answer whose connection ended is none of ours.
        assert "unexpected error" not in router.log_text()


def test_more_bytes_than_a_router_may_hold_are_refused_with_a_time_to_come_back(
    small_router: RunningRouter, thread: ThreadKey, segment: bytes
) -> None:
    seen = read(small_router.address, thread)
    waits = waiting_put(thread, seen, segment)
    fill_blobs(waits.blobs, [blob(bytes(600_000))])
    with Stream(small_router.address) as stream:
        stream.call(call_of("put", waits, 1))
        stream.call(call_of("put", waits, 2))
        refused = stream.next()
        assert (refused.call_id, refused.error.reason) == (2, "OVERLOADED")
        assert int(refused.error.metadata["retry_after_ms"]) > 0
        assert stream.next().call_id == 1
        stream.call(get(call_id=3))
        assert stream.next().get_tuple.token


async def test_a_tenant_with_too_many_streams_is_refused_and_another_is_not(
    router: RunningRouter,
) -> None:
    limit = limits.STREAMS_PER_TENANT_MAX
    # Two connections: one may not carry more streams than a tenant may have.
    options = OPTIONS
    async with (
        grpc.aio.insecure_channel(router.address, options=options) as one,
        grpc.aio.insecure_channel(router.address, options=options) as two,
    ):
        open_: list[Any] = []
        for n in range(limit + 2):
            channel = one if n % 2 else two
            stream: Any = channel.stream_stream(f"{SERVICE}Connect")(timeout=SECONDS)
            tenant = "crowd" if n <= limit else "alone"
            request = calls.GetTupleRequest(tenant=tenant, thread_id="t")
            frame = calls.ConnectRequest(calls=[call_of("get_tuple", request)])
            await stream.write(frame.SerializeToString())
            open_.append(stream)
        reasons = []
        for stream in open_:
            answer = calls.ConnectResponse.FromString(await stream.read())
            reasons.append(answer.results[0].error.reason)
        for stream in open_:
            stream.cancel()
    assert sorted(reasons) == [""] * (limit + 1) + ["OVERLOADED"]
    assert reasons[-1] == ""


class Flood:
    """Stands in for a client whose frames come faster than any socket brings them, and who reads
    nothing: what a real transport would slow down on its own."""

    def __init__(self, frames: list[bytes]) -> None:
        self.frames = deque(frames)
        self.reads_on = asyncio.Event()

    def peer(self) -> str:
        return "flood"

    async def read(self) -> Any:
        return self.frames.popleft() if self.frames else grpc.aio.EOF

    async def write(self, frame: bytes) -> None:
        await self.reads_on.wait()


class SlowAnswers(MemoryStorage):
    """Stands in for a storage that takes an event in at once and says so late."""

    def __init__(self) -> None:
        super().__init__()
        self.has_it, self.say_so = asyncio.Event(), asyncio.Event()
        self.images = 0

    async def image(self, thread: ThreadKey, known: Known | None = None) -> ThreadImage:
        self.images += 1
        return await super().image(thread, known)

    async def append(self, append: Append) -> Appended:
        answer = await super().append(append)
        self.has_it.set()
        await self.say_so.wait()
        return answer


class Leaving(Flood):
    """A client that sends a put, and gives it up when the storage has it."""

    def __init__(self, put: calls.Call, has_it: asyncio.Event, *, cancels: bool) -> None:
        frames = [calls.ConnectRequest(calls=[put])]
        if cancels:
            frames.append(calls.ConnectRequest(cancelled=[put.call_id]))
        super().__init__([frame.SerializeToString() for frame in frames])
        self._has_it = has_it
        self.reads_on.set()

    async def read(self) -> Any:
        if len(self.frames) < 2 and self.read_before:
            await self._has_it.wait()
        self.read_before = True
        return await super().read()

    read_before = False


@pytest.mark.parametrize("cancels", [True, False], ids=["cancelled", "gone"])
async def test_a_put_that_is_given_up_while_it_is_stored_is_known_without_reading_it_back(
    thread: ThreadKey, segment: bytes, cancels: bool
) -> None:
    storage = SlowAnswers()
    engine = Engine(storage, now_ms=lambda: 1, version="test")
    await engine.open()
    seen = await engine.get_tuple(thread, "", None, None, deadline=float("inf"))
    put = call_of("put", put_request(thread, first_event(seen, segment)), 1)
    client: Any = Leaving(put, storage.has_it, cancels=cancels)
    admission = Admission()
    connection = Connection(Router(engine=engine, admission=admission), client, stall_seconds=9)
    stream = asyncio.create_task(connection.run())
    async with asyncio.timeout(SECONDS):
        await storage.has_it.wait()
        if not cancels:
            stream.cancel()
            await asyncio.wait([stream])
        while client.frames:
            await asyncio.sleep(0)
        before = storage.images
        storage.say_so.set()
        await asyncio.wait([stream])
        while not (await engine.get_tuple(thread, "", None, None, deadline=float("inf"))).tuple:
            await asyncio.sleep(0)
    assert storage.images == before
    assert admission._unread == 0


class SaysNoMore(Flood):
    """A client that ends its half of the stream while it is sent an answer."""

    def __init__(self, frames: list[bytes]) -> None:
        super().__init__(frames)
        self._is_sent = asyncio.Event()

    async def read(self) -> Any:
        if not self.frames:
            await self._is_sent.wait()
        return await super().read()

    async def write(self, frame: bytes) -> None:
        self._is_sent.set()
        await super().write(frame)


class Gone(SaysNoMore):
    """A client that has left when its answer comes."""

    async def write(self, frame: bytes) -> None:
        await super().write(frame)
        raise grpc.aio.InternalError


@pytest.mark.parametrize(
    ("client_of", "ends"), [(SaysNoMore, DeadlineExceeded), (Gone, CancelledError)]
)
async def test_an_answer_that_its_call_sends_itself_ends_the_stream_if_nobody_reads_it(
    thread: ThreadKey, segment: bytes, client_of: type[Flood], ends: type[BaseException]
) -> None:
    storage = SlowAnswers()
    engine = Engine(storage, now_ms=lambda: 1, version="test")
    await engine.open()
    seen = await engine.get_tuple(thread, "", None, None, deadline=float("inf"))
    put = call_of("put", put_request(thread, first_event(seen, segment)), 1)
    client: Any = client_of([calls.ConnectRequest(calls=[put]).SerializeToString()])
    admission = Admission()
    connection = Connection(Router(engine=engine, admission=admission), client, stall_seconds=0.1)
    stream = asyncio.create_task(connection.run())
    async with asyncio.timeout(SECONDS):
        await storage.has_it.wait()
        storage.say_so.set()
        if ends is DeadlineExceeded:
            await connection.stalled.wait()
        client.reads_on.set()
        with pytest.raises(ends):
            await stream
    assert (admission._unread, admission._sending) == (0, {})


async def left_of_a_flood(engine: Engine, frames: list[bytes]) -> int:
    """Frames that a router leaves unread when a client sends these and reads nothing."""
    flood: Any = Flood(frames)
    router = Router(engine=engine, admission=Admission())
    connection = Connection(router, flood, stall_seconds=2)
    stream = asyncio.create_task(connection.run())
    async with asyncio.timeout(SECONDS):
        await connection.stalled.wait()
    flood.reads_on.set()
    with pytest.raises(DeadlineExceeded):
        await stream
    assert (router.admission._unread, router.admission._sending) == (0, {})
    return len(flood.frames)


@pytest.fixture
async def engine() -> Engine:
    """An engine in this process."""
    made = Engine(storage_from_url("memory:"), now_ms=lambda: 1, version="test")
    await made.open()
    return made


async def test_a_call_that_is_cancelled_in_its_own_frame_gives_back_what_it_took(
    engine: Engine, thread: ThreadKey, segment: bytes
) -> None:
    seen = await engine.get_tuple(thread, "", None, None, deadline=float("inf"))
    waits = call_of("put", waiting_put(thread, seen, segment), 1)
    frame = calls.ConnectRequest(calls=[waits], cancelled=[1]).SerializeToString()
    client: Any = Flood([frame])
    admission = Admission()
    connection = Connection(Router(engine=engine, admission=admission), client, stall_seconds=9)
    async with asyncio.timeout(SECONDS):
        await connection.run()
        await admission.idle()


async def test_a_stream_is_not_read_on_while_its_calls_wait(
    engine: Engine, thread: ThreadKey, segment: bytes
) -> None:
    seen = await engine.get_tuple(thread, "", None, None, deadline=float("inf"))
    waits = waiting_put(thread, seen, segment)
    per_frame = limits.FRAME_CALLS_MAX
    frames = [
        calls.ConnectRequest(
            calls=[call_of("put", waits, n) for n in range(first, first + per_frame)]
        ).SerializeToString()
        for first in range(0, 100 * per_frame, per_frame)
    ]
    # The calls of a few frames give up and make room for those of the next before the stream ends.
    assert await left_of_a_flood(engine, frames) > 75


async def test_a_stream_is_not_read_on_while_its_answers_are_not_read(
    engine: Engine, thread: ThreadKey, segment: bytes
) -> None:
    seen = await engine.get_tuple(thread, "", None, None, deadline=float("inf"))
    request = put_request(thread, first_event(seen, segment))
    request.event.checkpoint.body.data = bytes(limits.MIB)
    _, event, _, digest, blobs = requests.put_of(request, Kind.CHECKPOINT)
    await engine.put(thread, event, digest, blobs, deadline=float("inf"))
    question = calls.GetTupleRequest(tenant=thread.tenant, thread_id=thread.thread)
    frames = [
        calls.ConnectRequest(calls=[call_of("get_tuple", question, n)]).SerializeToString()
        for n in range(400)
    ]
    assert await left_of_a_flood(engine, frames) > 300
