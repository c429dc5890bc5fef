"""The link of a whole process: one stream, and one worker that opens and reads it.

It carries all sync calls, and the calls of event loops that have no link of their own: those get
their answers handed over by the worker.

Owner: `Links`. State is guarded by one lock, which is held for moments and never while anything
waits; each caller waits on a lock of its own, or on a future of its loop.

Rules: a worker exists for each stream, from the moment at which calls wait for it until it ends,
and no longer; it is a daemon, so that it never holds up the end of the program. gRPC takes frames
from the stream's iterator in a worker of its own, and what was called in the meantime rides in
one frame. A stream that is going away keeps its worker until its last call is answered, while the
next stream has another.
"""

import asyncio
import copy
import itertools
import random
import threading
import time
from collections.abc import Callable
from contextvars import Context
from queue import SimpleQueue
from typing import Any, Final

import grpc

from checkpoint_router.client.calls import CallTable, Prepared, is_full
from checkpoint_router.client.loop_link import settle
from checkpoint_router.client.route import CHANNEL_OPTIONS, CONNECT, End, Route
from checkpoint_router.client.target import Target
from checkpoint_router.core.errors import RouterError
from checkpoint_router.v1 import checkpoint_service_pb2 as v1

JOIN_SECONDS_MAX: Final = 2.0
"""How long `close` waits for the workers to end."""


class ProcessLink:
    """Carries calls from any worker, and from any loop, of this process to a router."""

    def __init__(self, target: Target) -> None:
        self._lock = threading.Lock()
        self._table: CallTable[_Caller | _LoopCaller] = CallTable()
        self._route = Route(target)
        self._ids = itertools.count(1)
        self._streams: dict[int, _Stream] = {}
        self._workers: set[threading.Thread] = set()
        self._opening = False
        """Whether a worker was started for the next stream and has not opened it yet."""
        self._closed: RouterError | None = None
        self._closing = threading.Event()

    @property
    def silence(self) -> str:
        """Why a call may have had no answer."""
        failure = self._route.last_failure
        return f"the last stream ended with {failure}" if failure else self._table.silence

    def call(
        self,
        prepared: Prepared,
        seconds: float,
        meanwhile: Callable[[], None] | None = None,
        *,
        again: bool = False,
    ) -> v1.CallResult | None:
        """Sends one call and waits for its answer at most so long; None if there was none.
        `meanwhile` is called in between. `again`: an earlier try was refused."""
        call_id = next(self._ids)
        waiter = _Caller()
        try:
            self._admit(call_id, prepared.encoded(call_id, seconds), waiter, again)
            if meanwhile is not None:
                meanwhile()
            waiter.ready.acquire(timeout=max(0.0, min(seconds, threading.TIMEOUT_MAX)))
        finally:
            if waiter.result is None:
                self._give_up(call_id)
        if waiter.error:
            raise copy.copy(waiter.error)
        return waiter.result

    async def acall(
        self,
        prepared: Prepared,
        seconds: float,
        meanwhile: Callable[[], None] | None = None,
        *,
        again: bool = False,
    ) -> v1.CallResult | None:
        """As `call`, for a task of the running loop."""
        call_id = next(self._ids)
        waiter = _LoopCaller(asyncio.get_running_loop())
        timer = _end_later(waiter.future, seconds)
        try:
            self._admit(call_id, prepared.encoded(call_id, seconds), waiter, again)
            if meanwhile is not None:
                meanwhile()
            return await waiter.future
        finally:
            timer.cancel()
            self._give_up(call_id)

    def close(self, why: RouterError, *, wait: bool = True) -> None:
        """Ends all streams and workers; calls under way, and later ones, raise `why`. With `wait`
        it returns when the workers have ended."""
        with self._lock:
            self._closed = self._closed or why
            abandoned = self._table.abandon_all()
            streams, workers = list(self._streams.values()), list(self._workers)
        self._closing.set()
        for stream in streams:
            stream.cancel()
        for waiter in abandoned:
            waiter.fail(why)
        limit = time.monotonic() + (JOIN_SECONDS_MAX if wait else 0)
        for worker in workers:
            if worker is not threading.current_thread():
                worker.join(max(0.0, limit - time.monotonic()))

    def next_frame(self, stream: "_Stream") -> bytes | None:
        """What to send on `stream` now; None if there is nothing."""
        with self._lock:
            stream.signalled = False
            frame = self._table.next_frame(stream.number)
            if self._table.sendable(stream.number):
                stream.signal()
            return frame

    def _admit(
        self, call_id: int, data: bytes, waiter: "_Caller | _LoopCaller", again: bool
    ) -> None:
        with self._lock:
            if self._closed:
                raise copy.copy(self._closed)
            self._table.admit(call_id, data, waiter, again=again)
            self._press_on()

    def _press_on(self) -> None:
        """Sees to it that what waits is sent. The lock is held."""
        if self._table.current:
            if self._table.sendable(self._table.current):
                self._streams[self._table.current].signal()
        elif self._table.waiting and not self._opening and not self._closed:
            worker = threading.Thread(target=self._work, name="checkpoint-router", daemon=True)
            worker.start()
            self._opening = True
            self._workers.add(worker)

    def _give_up(self, call_id: int) -> None:
        with self._lock:
            number = self._table.give_up(call_id)
            if number:
                self._streams[number].signal()

    def _work(self) -> None:
        """One worker's life: opens a stream if calls still wait for one, and reads it."""
        try:
            stream = self._open()
            if stream:
                end = End(code=grpc.StatusCode.UNKNOWN, details="the reader of the link failed")
                try:
                    end = self._read(stream)
                finally:
                    self._ended(stream, end)
        finally:
            with self._lock:
                self._workers.discard(threading.current_thread())

    def _open(self) -> "_Stream | None":
        with self._lock:
            pause = self._route.pause_seconds(time.monotonic())
        if pause:
            self._closing.wait(pause)
        with self._lock:
            self._opening = False
            if self._closed or not self._table.waiting:
                return None
            stream = _Stream(self, self._table.open(), str(self._route.endpoint))
            self._streams[stream.number] = stream
            stream.signal()
            return stream

    def _read(self, stream: "_Stream") -> End:
        try:
            for response in stream.responses():
                self._deliver(stream, response)
        except grpc.RpcError:
            pass  # how it ended stands in the call
        return stream.end()

    def _deliver(self, stream: "_Stream", response: v1.ConnectResponse) -> None:
        with self._lock:
            answered = self._table.answered
            answers = [
                (waiter, result)
                for result in response.results
                if (waiter := answered(stream.number, result.call_id, full=is_full(result)))
            ]
            current = self._table.current == stream.number
            if answers and current:
                self._route.worked()
            if response.going_away and current:
                self._table.retire(stream.number)
                self._route.left("going away", now=time.monotonic(), draw=_draw())
            self._press_on()
            if self._table.current != stream.number and not self._table.under_way(stream.number):
                stream.finish()
        for waiter, result in answers:
            waiter.answer(result)

    def _ended(self, stream: "_Stream", end: End) -> None:
        refused: list[_Caller | _LoopCaller] = []
        error: RouterError | None = None
        with self._lock:
            current = self._table.current == stream.number
            self._table.broken(stream.number)
            del self._streams[stream.number]
            if current:
                error = self._route.failed(end, now=time.monotonic(), draw=_draw())
            if error:
                refused = self._table.abandon_waiting()
            self._press_on()
        for waiter in refused:
            assert error
            waiter.fail(error)
        stream.close()


class _Caller:
    """Where one caller waits, and what it finds there."""

    __slots__ = ("error", "ready", "result")

    def __init__(self) -> None:
        self.ready = threading.Lock()
        self.ready.acquire()
        self.result: v1.CallResult | None = None
        self.error: RouterError | None = None

    def answer(self, result: v1.CallResult) -> None:
        self.result = result
        self.ready.release()

    def fail(self, error: RouterError) -> None:
        self.error = error
        self.ready.release()


class _LoopCaller:
    """The same for a task: the worker hands the answer to the task's loop."""

    __slots__ = ("_loop", "future")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.future: asyncio.Future[v1.CallResult | None] = loop.create_future()

    def answer(self, result: v1.CallResult) -> None:
        self._hand_over(result)

    def fail(self, error: RouterError) -> None:
        self._hand_over(copy.copy(error))

    def _hand_over(self, outcome: v1.CallResult | RouterError) -> None:
        try:
            self._loop.call_soon_threadsafe(settle, self.future, outcome)
        except RuntimeError:  # the loop was closed, and its tasks with it
            return


class _Stream:
    """One channel with one stream on it, and the iterator from which gRPC takes its frames.

    A channel for each stream, because the link and not the channel decides when to try again.
    """

    def __init__(self, link: ProcessLink, number: int, address: str) -> None:
        self.number = number
        self.signalled = False
        """Whether the iterator will look for a frame; changed under the link's lock."""
        self._link = link
        self._address = address
        self._signals: SimpleQueue[None] = SimpleQueue()
        self._over = False
        self._channel: grpc.Channel | None = None
        self._call: Any = None  # what grpcio's stubs call it is private

    def responses(self) -> Any:
        """Opens the stream; an iterator of ConnectResponses, which grpcio does not name."""
        self._channel = grpc.insecure_channel(self._address, options=CHANNEL_OPTIONS)
        connect: Any = self._channel.stream_stream(
            CONNECT, request_serializer=None, response_deserializer=v1.ConnectResponse.FromString
        )
        self._call = connect(self)
        if self._over:  # cancelled before there was a call
            self._call.cancel()
        return self._call

    def __iter__(self) -> "_Stream":
        return self

    def __next__(self) -> bytes:
        while True:
            self._signals.get()
            frame = self._link.next_frame(self)
            if frame is not None:
                return frame
            if self._over:
                raise StopIteration

    def signal(self) -> None:
        """There may be something to send."""
        if not self.signalled:
            self.signalled = True
            self._signals.put(None)

    def finish(self) -> None:
        """Nothing more will be sent: the router may end the stream."""
        self._over = True
        self.signal()

    def cancel(self) -> None:
        """Ends the stream from any worker."""
        self._over = True
        self._signals.put(None)
        if self._call is not None:
            self._call.cancel()

    def end(self) -> End:
        """How the stream ended, once its reader has seen the end."""
        return End(code=self._call.code(), details=self._call.details() or "")

    def close(self) -> None:
        """Lets go of the channel, and of gRPC's worker that takes the frames."""
        self._over = True
        self._signals.put(None)
        if self._channel is not None:
            self._channel.close()


def _end_later(
    waiter: "asyncio.Future[v1.CallResult | None]", seconds: float
) -> asyncio.TimerHandle:
    # A timer that was cancelled stays in the loop until its time, and would hold the caller's
    # context, with all that a run keeps there.
    loop = waiter.get_loop()
    return loop.call_later(max(0.0, seconds), settle, waiter, None, context=Context())


def _draw() -> float:
    return random.random()  # noqa: S311 - spreads retries over time, hides nothing
