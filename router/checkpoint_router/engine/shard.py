"""One storage in use: its histories, its clock, and what is under way on it.

Owner of the state: the storage. Rules: what the storage took in, the history must take in, also
if the caller is cancelled meanwhile; nobody waits for what is missing longer than its patience.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from checkpoint_router.core import limits
from checkpoint_router.core.answers import ThreadClock
from checkpoint_router.core.clock import hlc_at
from checkpoint_router.core.errors import Stale
from checkpoint_router.core.history import History
from checkpoint_router.core.ids import EventId
from checkpoint_router.engine.threads import Threads, ThreadState
from checkpoint_router.storage.port import Storage

T = TypeVar("T")

_LOOK_SECONDS = 0.05
"""Between two looks at what nobody tells us of: the clock, and what other routers wrote."""

TABLE_EPOCH = 1
"""Of the slot table: one shard, for ever, until there are more."""


class Shard:
    """What every part of the engine works on."""

    def __init__(self, storage: Storage, now_ms: Callable[[], int], events_max: int) -> None:
        self.storage = storage
        self.threads = Threads(storage, events_max=events_max)
        self.now_ms = now_ms
        self.key = b""
        self.storing: set[asyncio.Task[Any] | None] = set()
        """Tasks that wait for the storage to take in what they brought, and are not cancelled."""
        self._commits: set[asyncio.Task[Any]] = set()

    async def open(self) -> None:
        """Takes the storage. Errors as `Storage.open`."""
        await self.storage.open()
        try:
            self.key = await self.storage.system_key()
        except BaseException:
            await self.storage.close()
            raise

    async def close(self) -> None:
        """Waits for the commits under way, then releases the storage."""
        while self._commits:
            await asyncio.wait(self._commits)
        await self.storage.close()

    def clock(self, history: History) -> ThreadClock:
        """Where the thread stands: its stamp is above the clock here and above every event."""
        return ThreadClock(
            gen=history.gen,
            hlc=max(hlc_at(self.now_ms()), history.hlc) + 1,
            term=history.term,
            epoch=TABLE_EPOCH,
        )

    async def finish(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs `work` to its end even if the caller is cancelled meanwhile: what the storage
        took in, the history must take in."""
        task = asyncio.ensure_future(work)
        self._commits.add(task)
        task.add_done_callback(self._commits.discard)
        return await asyncio.shield(task)

    async def wait(self, state: ThreadState, missing: tuple[EventId, ...], patience: float) -> None:
        """Until the thread changes, or until it is time to look again at what nobody tells us of.
        Raises Stale, naming what is missing, when patience ends."""
        shared, history, known = self.storage.shared, state.history, state.known
        if shared:
            await self.threads.refresh(history.thread, state)
            if (state.history, state.known) != (history, known):
                return
        left = patience - asyncio.get_running_loop().time()
        if left <= 0:
            raise _stale(state.history, missing)
        await state.wait(min(left, _LOOK_SECONDS) if shared or not missing else left)


def patience(deadline: float) -> float:
    """Until when a call waits for what it misses: not to its deadline, so that it can still say
    what was missing. `deadline` and result are readings of the loop's clock, in seconds."""
    return min(deadline, asyncio.get_running_loop().time() + limits.STALE_WAIT_SECONDS_MAX)


def _stale(history: History, missing: tuple[EventId, ...]) -> Stale:
    named = ", ".join(str(e) for e in missing[:8]) or "the header of its segment"
    more = f" and {len(missing) - 8} more" if len(missing) > 8 else ""
    return Stale(
        f"this router does not know {named}{more} of thread {history.thread.thread!r}, on which "
        f"the call rests. Nothing was written or shown. If its storage lost data, `checkpoint-"
        f"router doctor` says so; a new run starts from what is there.",
        thread=history.thread.thread,
        missing=",".join(str(e) for e in missing[:64]),
    )
