"""All links of one saver: one for its process, and one for an event loop.

Owner: a saver, and all its clones share the one object. Making it does no input or output and
needs no loop; the first call opens what it needs.

Rules: a call ends at its deadline at the latest, and says so; until then it is sent again over
whatever stream there is, and again after an answer that says "not now". Nothing here has a
finaliser, because clones share it.

gRPC's asyncio half is fastest for tasks, but serves one loop of a process well (`loop_link` says
why). So one loop has it, the first until it is closed, and tasks of others use the process' link.

gRPC does not survive a fork. Once this process has made a call, calls in its forked children are
refused (most would work, some hang or crash, however the links were closed before), and what a
child inherited is never touched, not even to close it.
"""

import asyncio
import os
import random
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from google.protobuf.message import Message

from checkpoint_router.client.calls import Prepared
from checkpoint_router.client.loop_link import LoopLink, asyncio_half
from checkpoint_router.client.process_link import ProcessLink
from checkpoint_router.client.route import pause_seconds
from checkpoint_router.client.running import running_loop
from checkpoint_router.client.target import Target
from checkpoint_router.client.trace import traceparent
from checkpoint_router.core.errors import (
    DeadlineExceeded,
    ForkedSaver,
    Overloaded,
    RouterError,
    SaverClosed,
    Unavailable,
    unanswered,
)
from checkpoint_router.v1 import checkpoint_service_pb2 as v1
from checkpoint_router.wire.errors import RETRY_AFTER_MS, error_of

_RETRIED: Final = (Overloaded, Unavailable)
"""Answers after which the same call is made again, by this file and nobody else."""

_processes: Final[list[int]] = []
"""The process that made the first call of any saver; a forked child inherits the entry."""


class Links:
    """Where a saver's calls go. Safe to use from any worker and any loop at once."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._lock = threading.Lock()
        self._process_link: ProcessLink | None = None
        self._loop_link: LoopLink | None = None
        self._closed = False

    def call(
        self,
        name: str,
        request: Message | bytes,
        *,
        timeout_seconds: float,
        waited_seconds: float = 0.0,
        meanwhile: Callable[[], None] | None = None,
    ) -> Any:
        """Makes the call `name` of v1, whose request may be bytes already, and returns its response
        message. `waited_seconds` of the caller's time are over already. `meanwhile` is called once,
        after the call was sent or while it waits for that, and before its answer is seen.

        Raises the router's error; DeadlineExceeded when the time is over (what became of the
        call is unknown, a repeat has the effect of one); SaverClosed; ForkedSaver.
        """
        tries = _Tries(self.target, name, request, timeout_seconds, waited_seconds)
        link = self._of_process()
        while True:
            result = link.call(tries.prepared, tries.seconds_left(), meanwhile, again=tries.again)
            pause = tries.pause_after(result, link.silence)
            if pause is None:
                return getattr(result, name)
            meanwhile = None
            time.sleep(pause)

    async def acall(
        self,
        name: str,
        request: Message | bytes,
        *,
        timeout_seconds: float,
        waited_seconds: float = 0.0,
        meanwhile: Callable[[], None] | None = None,
    ) -> Any:
        """As `call`, on the running loop. The request is serialised before the first await."""
        tries = _Tries(self.target, name, request, timeout_seconds, waited_seconds)
        link = self._of_loop()
        while True:
            left = tries.seconds_left()
            result = await link.acall(tries.prepared, left, meanwhile, again=tries.again)
            pause = tries.pause_after(result, link.silence)
            if pause is None:
                return getattr(result, name)
            meanwhile = None
            await asyncio.sleep(pause)

    def close(self) -> None:
        """Ends all links, of other loops too, without waiting for those. Calls under way raise
        SaverClosed. Closing again does nothing, and so does closing in a forked child."""
        if _inherited():
            return
        self._close(wait=True)

    async def aclose(self) -> None:
        """As `close`, and waits for the link of the running loop."""
        if _inherited():
            return
        own = self._loop_link
        self._close(wait=False)
        if own and own.loop is asyncio.get_running_loop():
            await own.close(_closed())

    def _close(self, *, wait: bool) -> None:
        with self._lock:
            self._closed = True
            process_link, self._process_link = self._process_link, None
            loop_link, self._loop_link = self._loop_link, None
        if loop_link and loop_link.loop is running_loop():
            loop_link.abandon(_closed())
        elif loop_link:
            _call_soon(loop_link)
        if process_link:
            process_link.close(_closed(), wait=wait)

    def _of_process(self) -> ProcessLink:
        check_process()
        link = self._process_link
        if link is None:
            with self._lock:
                self._check_open()
                link = self._process_link = self._process_link or ProcessLink(self.target)
        return link

    def _of_loop(self) -> LoopLink | ProcessLink:
        check_process()
        loop = asyncio.get_running_loop()
        link = self._loop_link
        if link is not None and link.loop is loop:
            return link
        if not asyncio_half.belongs_to(loop):
            return self._of_process()
        with self._lock:
            self._check_open()
            if self._loop_link is None or self._loop_link.loop is not loop:
                self._loop_link = LoopLink(self.target, loop)
            return self._loop_link

    def _check_open(self) -> None:
        if self._closed:
            raise _closed()


class _Tries:
    """One call from its first try to its end: its bytes, its deadline, and what to do next."""

    __slots__ = ("_deadline", "_refusal", "_refusals", "_seconds", "_target", "prepared")

    def __init__(
        self, target: Target, name: str, request: Message | bytes, seconds: float, waited: float
    ) -> None:
        self.prepared = Prepared.of(name, request, traceparent())
        self._target = target
        self._seconds = seconds
        self._deadline = time.monotonic() + seconds - waited
        self._refusals = 0
        self._refusal: RouterError | None = None
        """The last of them: the time may end while the next try has no answer yet."""

    @property
    def again(self) -> bool:
        return self._refusals > 0

    def seconds_left(self) -> float:
        return self._deadline - time.monotonic()

    def pause_after(self, result: v1.CallResult | None, silence: str) -> float | None:
        """None if `result` is the answer, else how long to wait before the next try; raises
        where there is none."""
        if result is None:
            if self._refusal:
                raise self._refused(self._refusal)
            raise self._late(silence)
        outcome = result.WhichOneof("outcome")
        if outcome == self.prepared.name:
            return None
        if outcome != "error":
            raise RouterError(f"the router answered {self.prepared.name} with {outcome!r}.")
        error = error_of(result.error)
        if not isinstance(error, _RETRIED):
            raise error
        self._refusal = error
        pause = _pause(error, self._refusals)
        self._refusals += 1
        if self.seconds_left() <= pause:
            raise self._refused(error)
        return pause

    def _refused(self, error: RouterError) -> DeadlineExceeded:
        late = self._late(f"the router's last answer was {error.reason}: {error}")
        late.__cause__ = error
        return late

    def _late(self, why: str) -> DeadlineExceeded:
        hint = f" ({why})" if why else ""
        return DeadlineExceeded(
            f"{self.prepared.name} had no answer from {self._target} within {self._seconds:g} s"
            f"{hint}. {unanswered(self.prepared.name)} Check that a router runs there, or give the "
            f"saver a larger timeout_seconds.",
            call=self.prepared.name,
        )


def _pause(error: RouterError, refusals: int) -> float:
    spread = random.random() / 2  # noqa: S311 - of retries
    # Half of it is certain: an answer is not a broken link, and comes back at once.
    pause = pause_seconds(refusals, 0.5 + spread)
    asked = error.attributes.get(RETRY_AFTER_MS, "")
    return max(pause, int(asked) / 1000 * (1 + spread)) if asked.isdigit() else pause


def _closed() -> SaverClosed:
    return SaverClosed(
        "this saver was closed, or a copy of it was. Make a new RouterSaver for further calls."
    )


def _inherited() -> bool:
    return bool(_processes) and _processes[0] != os.getpid()


def check_process() -> None:
    """Raises ForkedSaver in a forked child of a process that has made a call. A saver asks before
    each: its locks are as they were at the fork, and a worker may have held one that is not here.
    """
    if not _processes:
        _processes.append(os.getpid())
    elif _processes[0] != os.getpid():
        raise ForkedSaver(
            f"this process was forked from process {_processes[0]} after a saver had been used "
            f"there, and gRPC does not survive that. Nothing was sent. Start workers with "
            f"multiprocessing's 'spawn' or 'forkserver', or fork before the first call of any "
            f"saver: what a server makes before it forks its workers may be a saver, but not use "
            f"it, not even for `setup`."
        )


def _call_soon(link: LoopLink) -> None:
    try:
        link.loop.call_soon_threadsafe(link.abandon, _closed())
    except RuntimeError:  # the loop was closed, and its tasks with it
        return
