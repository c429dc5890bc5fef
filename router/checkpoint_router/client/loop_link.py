"""The link of one event loop: a channel and a stream that live on that loop alone.

Owner: `Links`, one for each running loop. Only its loop touches it, so there is no lock.

Rules: two tasks exist while a stream is open, one that reads and one that writes; they carry no
context of the call that happened to start them. Calls made in one turn of the loop ride in one
frame, because the writer takes its turn after them. The loop's end cancels the tasks, and they
let go of the channel; if something cancels them while calls wait, the link opens another stream.

gRPC has one queue of events for the loops of a process. Where several use it, each takes the
wake-ups of others, and what a closed loop left in it becomes an error in the log of the next. So
one loop has it, until it is closed and nothing of its streams is left: `asyncio_half` keeps that.
"""

import asyncio
import contextlib
import copy
import itertools
import math
import random
import threading
import weakref
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, Final

import grpc
import grpc.aio

from checkpoint_router.client.calls import CallTable, Prepared, is_full
from checkpoint_router.client.route import CHANNEL_OPTIONS, CONNECT, End, Route
from checkpoint_router.client.target import Target
from checkpoint_router.core.errors import RouterError
from checkpoint_router.v1 import checkpoint_service_pb2 as v1

_AT_ONCE: Final = 16
"""Answers given to their callers before what these do next is sent."""


class AsyncioHalf:
    """Which loop of this process has gRPC's asyncio half."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owner: weakref.ref[asyncio.AbstractEventLoop] | None = None
        self._opened: weakref.WeakSet[Any] = weakref.WeakSet()

    def belongs_to(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Whether it is the loop's, which it becomes if it is nobody's."""
        with self._lock:
            owner = self._owner() if self._owner else None
            if (owner is None or owner.is_closed()) and not self._opened:
                self._owner, owner = weakref.ref(loop), loop
            return owner is loop

    def opened(self, *parts: object) -> None:
        """Something of gRPC that its queue is kept for as long as it lives."""
        with self._lock:
            self._opened.update(parts)


asyncio_half: Final = AsyncioHalf()


class LoopLink:
    """Carries calls from the tasks of one event loop to a router."""

    def __init__(self, target: Target, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._table: CallTable[asyncio.Future[v1.CallResult | None]] = CallTable()
        self._route = Route(target)
        self._ids = itertools.count(1)
        self._streams: dict[int, _Stream] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._opener: asyncio.Task[None] | None = None
        """The task that was started for the next stream and has not opened it yet."""
        self._closed: RouterError | None = None
        self._alarm: asyncio.TimerHandle | None = None
        """One for all calls: rings when the first of their times is over."""
        self._alarm_at = math.inf

    @property
    def silence(self) -> str:
        """Why a call may have had no answer."""
        failure = self._route.last_failure
        return f"the last stream ended with {failure}" if failure else self._table.silence

    async def acall(
        self,
        prepared: Prepared,
        seconds: float,
        meanwhile: Callable[[], None] | None = None,
        *,
        again: bool = False,
    ) -> v1.CallResult | None:
        """Sends one call and waits for its answer at most so long; None if there was none.
        `meanwhile` is called in between. `again`: an earlier try was refused."""
        if self._closed:
            raise copy.copy(self._closed)
        call_id = next(self._ids)
        waiter: asyncio.Future[v1.CallResult | None] = self.loop.create_future()
        ends_at = self.loop.time() + seconds
        data = prepared.encoded(call_id, seconds)
        self._table.admit(call_id, data, waiter, ends_at, again=again)
        self._press_on()
        if ends_at < self._alarm_at:
            self._set_alarm(ends_at)
        if meanwhile is not None:
            self.loop.call_soon(meanwhile)  # after the writer, which was called before
        result = None
        try:
            result = await waiter
        finally:
            if result is None:
                self._give_up(call_id)
        return result

    def abandon(self, why: RouterError) -> None:
        """Ends the streams; calls under way, and later ones, raise `why`. Waits for nothing."""
        self._closed = self._closed or why
        for waiter in self._table.abandon_all():
            settle(waiter, copy.copy(why))
        for stream in self._streams.values():
            stream.cancel()
        if self._opener:
            self._opener.cancel()
        if self._alarm:
            self._alarm.cancel()

    async def close(self, why: RouterError) -> None:
        """As `abandon`, and waits until the channels are closed."""
        self.abandon(why)
        tasks = self._tasks - {asyncio.current_task()}
        if tasks:
            await asyncio.wait(tasks)

    def _set_alarm(self, ends_at: float) -> None:
        if self._alarm:
            self._alarm.cancel()
        # Not in the context of the call that happens to be the first: a run keeps much there.
        self._alarm_at = ends_at
        self._alarm = self.loop.call_at(ends_at, self._ring, context=Context())

    def _ring(self) -> None:
        """Ends the calls whose time is over."""
        ended, next_at = self._table.ended(self.loop.time())
        self._alarm, self._alarm_at = None, math.inf
        for waiter in ended:
            settle(waiter, None)
        if next_at < math.inf:
            self._set_alarm(next_at)

    def _press_on(self) -> None:
        """Sees to it that what waits is sent."""
        if self._table.current:
            if self._table.sendable(self._table.current):
                self._streams[self._table.current].signal()
        elif self._table.waiting and not self._opener and not self._closed:
            self._opener = self._start(self._work())

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        context = Context()
        task = self.loop.create_task(work, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard, context=context)
        return task

    def _give_up(self, call_id: int) -> None:
        number = self._table.give_up(call_id)
        if number:
            self._streams[number].signal()

    async def _work(self) -> None:
        """Opens a stream if calls still wait for one, and reads it to its end."""
        try:
            await asyncio.sleep(self._route.pause_seconds(self.loop.time()))
        finally:
            self._opener = None
            self._press_on_later()
        if self._closed or not self._table.waiting:
            return
        stream = _Stream(self._table.open(), self.loop)
        self._streams[stream.number] = stream
        end = End(code=grpc.StatusCode.CANCELLED, details="the reader of the link was cancelled")
        try:
            stream.open(str(self._route.endpoint))
            writer = self._start(self._write(stream))
            try:
                end = await self._read(stream)
            finally:
                writer.cancel()
        finally:
            self._ended(stream, end)
            await stream.close()

    async def _read(self, stream: "_Stream") -> End:
        try:
            while (response := await stream.call.read()) is not grpc.aio.EOF:
                await self._deliver(stream, response)
        except grpc.aio.AioRpcError as error:
            return End(code=error.code(), details=error.details() or "")
        return End(code=await stream.call.code(), details=await stream.call.details() or "")

    async def _write(self, stream: "_Stream") -> None:
        # The reader learns why a stream ended; the writer only ends with it.
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            while True:
                frame = self._table.next_frame(stream.number)
                if frame is not None:
                    await stream.call.write(frame)
                elif stream.over:
                    await stream.call.done_writing()
                    return
                else:
                    await stream.signalled()

    async def _deliver(self, stream: "_Stream", response: v1.ConnectResponse) -> None:
        current = self._table.current == stream.number
        results = response.results
        for at, result in enumerate(results):
            if at and at % _AT_ONCE == 0:
                # The callers that have their answers make their next calls now, and these go out:
                # else router and client would wait for each other in turns.
                await asyncio.sleep(0)
            waiter = self._table.answered(stream.number, result.call_id, full=is_full(result))
            if waiter is not None:
                settle(waiter, result)
        if results and current:
            self._route.worked()
        if response.going_away and current:
            self._table.retire(stream.number)
            self._route.left("going away", now=self.loop.time(), draw=_draw())
        self._press_on()
        if self._table.current != stream.number and not self._table.under_way(stream.number):
            stream.finish()

    def _ended(self, stream: "_Stream", end: End) -> None:
        current = self._table.current == stream.number
        self._table.broken(stream.number)
        del self._streams[stream.number]
        error = None
        if current:
            error = self._route.failed(end, now=self.loop.time(), draw=_draw())
        if error:
            for waiter in self._table.abandon_waiting():
                settle(waiter, copy.copy(error))
        self._press_on_later()

    def _press_on_later(self) -> None:
        # Not at once: who cancels every task of a loop cancels those that call as well, and then
        # there is nothing to press on with. A closed loop ends its tasks here, too.
        if not self.loop.is_closed():
            self.loop.call_soon(self._press_on)


class _Stream:
    """One channel with one stream on it, both of one loop."""

    def __init__(self, number: int, loop: asyncio.AbstractEventLoop) -> None:
        self.number = number
        self.over = False
        self.call: Any = None  # generic in types that bytes and a message do not fit
        self._loop = loop
        self._channel: grpc.aio.Channel | None = None
        self._signal: asyncio.Future[None] | None = None

    def open(self, address: str) -> None:
        """Begins to connect; returns at once."""
        self._channel = grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)
        connect: Any = self._channel.stream_stream(
            CONNECT, request_serializer=None, response_deserializer=v1.ConnectResponse.FromString
        )
        self.call = connect()
        asyncio_half.opened(self._channel, self.call)

    def signal(self) -> None:
        """There may be something to send."""
        if self._signal is not None and not self._signal.done():
            self._signal.set_result(None)

    async def signalled(self) -> None:
        """Returns after the next `signal`."""
        self._signal = self._loop.create_future()
        await self._signal

    def finish(self) -> None:
        """Nothing more will be sent: the router may end the stream."""
        self.over = True
        self.signal()

    def cancel(self) -> None:
        """Ends the stream. The reader is not cancelled for it: from Python 3.12 on, gRPC never
        lets go of a call while it is read by a task that is cancelled."""
        if self.call is not None:
            self.call.cancel()

    async def close(self) -> None:
        """Lets go of the channel."""
        call, channel = self.call, self._channel
        self.call = self._channel = None
        if call is not None:
            call.cancel()
        if channel is not None:
            await channel.close()


def settle(
    waiter: "asyncio.Future[v1.CallResult | None]", outcome: v1.CallResult | RouterError | None
) -> None:
    """Gives a caller its answer, its error, or None for the end of its time, if it still waits."""
    if waiter.done():
        return
    if isinstance(outcome, RouterError):
        waiter.set_exception(outcome)
    else:
        waiter.set_result(outcome)


def _draw() -> float:
    return random.random()  # noqa: S311 - spreads retries over time, hides nothing
