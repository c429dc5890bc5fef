"""Histories in memory: copies of what the storage has, read when first needed.

Owner of the truth: the storage. A history is dropped when it was not used lately and room is
needed, and read again after a write whose outcome is unknown. A thread in use is never dropped.
Puts, prunes and deletes go on while it is read again: none that was applied is forgotten.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from checkpoint_router.core import limits
from checkpoint_router.core.history import History, bits
from checkpoint_router.core.ids import ThreadKey
from checkpoint_router.engine.recent import Recent
from checkpoint_router.storage.port import Storage


class ThreadState:
    """One thread's history, and who waits for it to change."""

    __slots__ = (
        "_waiters", "counted", "doubtful", "history", "kept_bytes", "loading", "recent", "users",
    )  # fmt: skip

    def __init__(self, thread: ThreadKey) -> None:
        self.history = History(thread, 0)
        self.recent = Recent()
        self.kept_bytes = 0
        """Of `recent`, as the cache's total includes them."""
        self.users = 0
        self.counted = 0
        """Entries of this history that the cache's total includes."""
        self.doubtful = True
        """The storage may know more: read it again before the next use."""
        self.loading: asyncio.Future[None] | None = None
        self._waiters: list[asyncio.Future[None]] = []

    def changed(self) -> None:
        """Wakes whoever waits for an event."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def wait(self, seconds: float) -> None:
        """Until the history changes, `seconds` at the most."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await asyncio.wait_for(waiter, seconds)
        except TimeoutError:
            pass
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)


class Threads:
    """All histories that a router holds, least recently used first."""

    def __init__(self, storage: Storage, *, events_max: int = limits.HISTORY_EVENTS_MAX) -> None:
        self._storage = storage
        self._events_max = events_max
        self._states: OrderedDict[ThreadKey, ThreadState] = OrderedDict()
        self._events = 0
        self._recent: OrderedDict[ThreadKey, ThreadState] = OrderedDict()
        self._recent_bytes = 0

    @property
    def events(self) -> int:
        """Index entries in memory."""
        return self._events

    @asynccontextmanager
    async def use(self, thread: ThreadKey) -> AsyncIterator[ThreadState]:
        """The thread's state, loaded, and kept while in use."""
        state = self._states.get(thread)
        if state is None:
            state = self._states[thread] = ThreadState(thread)
        else:
            self._states.move_to_end(thread)
        state.users += 1
        try:
            await self.settle(thread, state)
            yield state
        finally:
            state.users -= 1
            # An empty thread counts too: probing for unknown ids must not fill the memory.
            size = 1 + len(state.history.entries)
            self._events += size - state.counted
            state.counted = size
            self._make_room()
            self._keep_recent(thread, state)

    async def settle(self, thread: ThreadKey, state: ThreadState) -> None:
        """Reads the thread from storage if what is in memory may be behind it."""
        while state.doubtful:
            await self._load(thread, state)

    async def _load(self, thread: ThreadKey, state: ThreadState) -> None:
        if state.loading is not None:
            await asyncio.shield(state.loading)
            return
        state.loading = asyncio.get_running_loop().create_future()
        try:
            before, known, erased = state.history, len(state.history.entries), state.history.erased
            image = await self._storage.image(thread)
            if state.history is not before:
                return  # A delete was applied, and the image may be older: read it again.
            history = History(thread, image.gen)
            for entry in image.entries:
                history.apply(entry)
            if image.gen == before.gen:
                # What was committed and applied while the image was on its way may not be in it.
                for entry in before.entries[known:]:
                    history.apply(entry)
                history.erase(before.entries[p].id for p in bits(before.erased & ~erased))
            state.history = history
            state.recent.clear()
            state.doubtful = False
        finally:
            loading, state.loading = state.loading, None
            loading.set_result(None)
            state.changed()

    def _make_room(self) -> None:
        while self._events > self._events_max:
            # Not over a copy: there may be tens of thousands, and one use makes room for one.
            unused = next((t for t, state in self._states.items() if not state.users), None)
            if unused is None:
                return
            dropped = self._states.pop(unused)
            self._events -= dropped.counted
            dropped.recent.clear()
            self._keep_recent(unused, dropped)

    def _keep_recent(self, thread: ThreadKey, state: ThreadState) -> None:
        self._recent_bytes += state.recent.size_bytes - state.kept_bytes
        state.kept_bytes = state.recent.size_bytes
        self._recent.pop(thread, None)
        if state.kept_bytes:
            self._recent[thread] = state
        while self._recent_bytes > limits.RECENT_BYTES_MAX:
            _, oldest = self._recent.popitem(last=False)
            oldest.recent.clear()
            self._recent_bytes -= oldest.kept_bytes
            oldest.kept_bytes = 0
