"""Connect: many calls on one stream, each answered when it is ready.

Owner: one `Connection` for each open stream; its calls are tasks of it and end with it. Rules:

* Reading stops while as many calls as allowed are under way, or while answers wait that the
  client does not read: the transport's flow control then slows the client, and memory stays.
* What waits to be read is counted over all streams (`admission`), each byte until it was sent.
* What is ready when the loop comes round goes out in one frame. There is no timer that waits for
  more. The answer of a call that had to wait, while no other is under way, goes out at once.
* A client that does not read loses its calls and answers: one frame stays until it reads on and
  learns why, or its connection ends, at the latest when others need the memory. (gRPC ends no
  stream while a message waits to be sent.)
* A frame that cannot be understood ends this stream with a status that says why, and no other.
* When the router stops: `going_away` is sent, nothing more is read, calls under way are answered.
"""

import asyncio
import sys
from collections import deque
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message

from checkpoint_router.core import limits
from checkpoint_router.core.errors import (
    DeadlineExceeded,
    InvalidArgument,
    RouterError,
    Unavailable,
)
from checkpoint_router.server.admission import authorise
from checkpoint_router.server.calls import Caller, Router, answer, checked_answer_size, incident
from checkpoint_router.server.handlers import CALLS, Handler
from checkpoint_router.server.statuses import Context, abort
from checkpoint_router.telemetry.logging import logger
from checkpoint_router.v1 import checkpoint_service_pb2 as calls
from checkpoint_router.wire.errors import fill_error
from checkpoint_router.wire.frames import GOING_AWAY, call_id_of, frame_of, parts_of

_log = logger("stream")

_HURRY_CALLS = 8
"""Calls under way from which on a stream lets them get on before it reads the next frame."""


class Connection:
    """One open stream."""

    def __init__(self, router: Router, context: Context, *, stall_seconds: float) -> None:
        self._router = router
        self._context = context
        self._stall_seconds = stall_seconds
        self._caller = Caller(peer=context.peer(), transport="stream")
        self._tenant: str | None = None
        self._under_way: dict[int, asyncio.Task[None]] = {}
        self._ready: deque[bytes] = deque()
        self._ready_bytes = 0
        self._sending_bytes = 0
        self._large = asyncio.Semaphore(limits.LARGE_ANSWERS_PER_STREAM_MAX)
        self._reading = True
        self._taking = False
        """A frame is being taken: more of its calls may have an answer at once."""
        self._leaving = False
        self._said_so = False
        self._dropped = False
        self._gone = False
        self._reader: asyncio.Task[None] | None = None
        self._writing_until: float | None = None
        self._stall_timer: asyncio.TimerHandle | None = None
        self.stalled = asyncio.Event()
        """Set when the client has left an answer unread for too long."""
        self._writer_rests: asyncio.Future[None] | None = None
        """Done when the writer has to look again."""
        self._reader_wakes = asyncio.Event()

    @property
    def peer(self) -> str:
        """See `admission.Reader`."""
        return self._caller.peer

    @property
    def unread_bytes(self) -> int:
        """See `admission.Reader`."""
        return self._ready_bytes + self._sending_bytes

    def leave(self) -> None:
        """Says that the router is about to stop, and ends when the calls under way are answered."""
        self._leaving = True
        self._wake()

    async def run(self) -> None:
        """Serves the stream to its end. Raises RouterError, naming what was wrong."""
        self._reader = reader = asyncio.create_task(self._read())
        try:
            await self._write(reader)
        finally:
            reader.add_done_callback(_seen)
            self._drop()
            if self._stall_timer is not None:
                self._stall_timer.cancel()
            if self._tenant is not None:
                self._router.admission.give_tenant(self._tenant)

    # Reading ----------------------------------------------------------------------------------

    async def _read(self) -> None:
        try:
            while not self._leaving:
                if self._full():
                    await self._answers_read()
                    continue
                raw: Any = await self._context.read()
                if raw is grpc.aio.EOF or self._leaving:
                    return
                self._take(raw)
                if len(self._under_way) >= _HURRY_CALLS:
                    # Answers first: what is read ahead of them only waits, and takes memory.
                    await asyncio.sleep(0)
                    await asyncio.sleep(0)
        finally:
            self._reading = False
            self._wake()

    def _full(self) -> bool:
        return (
            len(self._under_way) >= limits.CALLS_PER_STREAM_MAX
            or self._ready_bytes >= limits.STREAM_ANSWER_BYTES_MAX
        )

    async def _answers_read(self) -> None:
        self._reader_wakes.clear()
        await self._reader_wakes.wait()

    def _take(self, raw: bytes) -> None:
        parts, cancelled = parts_of(raw)
        self._taking = True
        begun = set()
        for part in parts:
            call_id = call_id_of(part)
            if call_id in self._under_way or call_id in begun:
                raise InvalidArgument(
                    f"call {call_id} is under way already. Give each call of a stream its own id.",
                    field="call_id",
                )
            begun.add(call_id)
            self._begin(call_id, part)
        self._taking = False
        for call_id in cancelled:
            self._cancel(call_id)

    def _begin(self, call_id: int, part: bytes) -> None:
        try:
            self._router.admission.take_bytes(len(part))
        except RouterError as e:
            self._offer(_refusal(call_id, e))
            self._wake()
            return
        task = _begun(self._serve(call_id, part))
        if not task.done():
            self._under_way[call_id] = task

    def _cancel(self, call_id: int) -> None:
        # Not now: a task that is cancelled before it has begun never comes to its end.
        asyncio.get_running_loop().call_soon(self._cancel_begun, call_id)

    def _cancel_begun(self, call_id: int) -> None:
        # What the storage takes in, the engine must learn: such a call goes to its end.
        task = self._under_way.get(call_id)
        if task is not None and task not in self._router.engine.storing:
            task.cancel()

    # One call -----------------------------------------------------------------------------------

    async def _serve(self, call_id: int, part: bytes) -> None:
        result, packed = calls.CallResult(call_id=call_id), b""
        try:
            # Parsed in the step that checks it: bytes that unfold into much do not gather.
            call, handler, request = _request_of(call_id, part)
            if self._tenant is None:
                self._pin(request.tenant)
            caller, traceparent, timeout_ms = self._caller, call.traceparent, call.timeout_ms
            if traceparent:
                caller = replace(caller, traceparent=traceparent)
            seconds = timeout_ms / 1000 if timeout_ms else None
            response: Message = getattr(result, handler.name)
            response.SetInParent()
            work = answer(
                self._router, handler, request, response, caller,
                size=len(part), timeout_seconds=seconds,
            )  # fmt: skip
            if handler.large:
                packed = await self._large_answer(work, result, handler.method)
            else:
                await work
                packed = result.SerializeToString()
        except RouterError as e:
            packed = _refusal(call_id, e)
        except Exception as e:  # noqa: BLE001  # nothing that a call does may end its stream
            packed = _refusal(call_id, incident(e, "a call"))
        finally:
            self._router.admission.give_bytes(len(part))
            self._under_way.pop(call_id, None)  # absent: it never had to wait
            if not packed:
                self._wake()
        self._offer(packed)
        if not (self._under_way or self._taking or self._leaving or self._dropped) and (
            self._writing_until is None
        ):
            # The writer would come a turn of the loop later, and find nothing more.
            await self._send(self._frame())
            if self._wanted():
                self._wake()
        else:
            self._wake()

    async def _large_answer(
        self, work: Coroutine[Any, Any, None], result: calls.CallResult, what: str
    ) -> bytes:
        try:
            async with self._large:
                while self._ready_bytes >= limits.STREAM_ANSWER_BYTES_MAX:
                    await self._answers_read()
                await work
                packed = result.SerializeToString()
                checked_answer_size(len(packed), what)
                self._router.admission.room_for_answer(len(packed))
                return packed
        finally:
            work.close()

    def _pin(self, tenant: str) -> None:
        # A stream counts for the tenant of its first call.
        if tenant:
            authorise(self._caller.peer, tenant)
            self._router.admission.take_tenant(tenant)
            self._tenant = tenant

    def _offer(self, packed: bytes) -> None:
        if self._dropped:
            return  # of a call that had to go to its end
        self._ready.append(packed)
        self._ready_bytes += len(packed)
        self._router.admission.take_answer(len(packed))

    # Writing ------------------------------------------------------------------------------------

    async def _write(self, reader: asyncio.Task[None]) -> None:
        while True:
            if self._writing_until is not None:
                await self._rest()  # a call sends its answer itself
            elif self._gone:
                raise asyncio.CancelledError
            elif self.stalled.is_set():
                raise DeadlineExceeded(
                    f"the client did not read its answers for {self._stall_seconds:.3g} s. Read "
                    f"the stream while calls are under way."
                )
            elif self._leaving and not self._said_so:
                self._said_so = True
                reader.cancel()
                await self._send(GOING_AWAY)
            elif self._ready:
                await self._send(self._frame())
            elif self._under_way or (self._reading and not self._leaving):
                await self._rest()
            else:
                if reader.done() and not reader.cancelled():
                    reader.result()  # raises what ended the reading
                return

    def _wanted(self) -> bool:
        """Whether the writer would find something."""
        ends = self._leaving or self._dropped or self._gone or not self._reading
        return ends or bool(self._ready)

    async def _rest(self) -> None:
        self._writer_rests = asyncio.get_running_loop().create_future()
        await self._writer_rests

    def _frame(self) -> bytes:
        parts = [self._ready.popleft()]
        size = len(parts[0])
        while (
            self._ready
            and len(parts) < limits.FRAME_CALLS_MAX
            and size + len(self._ready[0]) <= limits.FRAME_BYTES_MAX
        ):
            parts.append(self._ready.popleft())
            size += len(parts[-1])
        self._ready_bytes -= size
        self._sending_bytes = size
        return frame_of(parts)

    async def _send(self, frame: bytes) -> None:
        loop = asyncio.get_running_loop()
        self._writing_until = loop.time() + self._stall_seconds
        if self._stall_timer is None:
            self._stall_timer = loop.call_at(self._writing_until, self._look, loop)
        admission = self._router.admission
        admission.sending(self)
        try:
            await self._context.write(frame)
        except grpc.aio.BaseError:
            # The connection went. gRPC cancels the stream for that too, now or a moment later.
            self._gone = True
        finally:
            admission.sent(self)
            admission.give_answer(self._sending_bytes)
            self._sending_bytes = 0
            self._writing_until = None
            self._reader_wakes.set()

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        # One timer that looks now and then, since one for each frame would cost more than all
        # else that is done for it.
        until = self._writing_until
        self._stall_timer = None
        if until is not None and loop.time() < until:
            self._stall_timer = loop.call_at(until, self._look, loop)
        elif until is not None:
            _log.warning("stream stalled", peer=self._caller.peer, seconds=self._stall_seconds)
            self.stalled.set()
            self._drop()

    def _drop(self) -> None:
        self._dropped = True
        if self._reader is not None:
            self._reader.cancel()
        for call_id in self._under_way:
            self._cancel(call_id)
        self._ready.clear()
        self._router.admission.give_answer(self._ready_bytes)
        self._ready_bytes = 0

    def _wake(self) -> None:
        rests = self._writer_rests
        if rests is not None and not rests.done():
            rests.set_result(None)
        self._reader_wakes.set()


def _begun(call: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """A task for `call`, which has gone as far as it can without waiting where Python can do that:
    a turn of the loop less, and what a frame brought reaches the storage together."""
    if sys.version_info >= (3, 12):
        return asyncio.Task(call, loop=asyncio.get_running_loop(), eager_start=True)
    return asyncio.create_task(call)


def _request_of(call_id: int, part: bytes) -> tuple[calls.Call, Handler, Any]:
    try:
        call = calls.Call.FromString(part)
    except DecodeError:
        raise InvalidArgument(
            f"call {call_id} cannot be parsed. Compare the client's protocol with the router's.",
            field="frame.calls",
        ) from None
    name = call.WhichOneof("request")
    if name is None:
        raise InvalidArgument(
            "the call carries no request that this router knows. Upgrade the router, or use an "
            "older client.",
            field="request",
        )
    return call, CALLS[name], getattr(call, name)


def _refusal(call_id: int, error: RouterError) -> bytes:
    result = calls.CallResult(call_id=call_id)
    fill_error(result.error, error)
    return result.SerializeToString()


def _seen(reader: asyncio.Task[None]) -> None:
    # A stream that ends for another reason need not say also why its reading ended.
    if not reader.cancelled():
        reader.exception()


class Streams:
    """All open streams of the router."""

    def __init__(self, router: Router, *, stall_seconds: float) -> None:
        self._router = router
        self._stall_seconds = stall_seconds
        self._open: set[Connection] = set()
        self._leaving = False

    async def connect(self, _: object, context: Context) -> None:
        """The handler of Connect."""
        try:
            if self._leaving:
                raise Unavailable("this router is about to stop. Nothing was written.")
            with self._router.admission.stream():
                connection = Connection(self._router, context, stall_seconds=self._stall_seconds)
                self._open.add(connection)
                try:
                    await connection.run()
                finally:
                    self._open.discard(connection)
        except RouterError as e:
            _log.info("stream ended", peer=context.peer(), reason=e.reason, message=e.message)
            await abort(context, e)

    def leave(self) -> None:
        """Tells every client to go, and takes no more of them."""
        self._leaving = True
        for connection in self._open:
            connection.leave()
