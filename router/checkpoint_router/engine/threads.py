"""Histories in memory: copies of what the storage has, read when first needed.

Owner of the truth: the storage. A history is dropped when it was not used lately and room is
needed, and read again after a write whose outcome is unknown. A thread in use is never dropped.
Puts, prunes and deletes go on while it is read again: none that was applied is forgotten.
On a storage that other routers write to as well, whoever reads asks for what is new first; what
such a storage lost is put back from here as far as it is whole.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence

from checkpoint_router.core import limits
from checkpoint_router.core.errors import RouterError
from checkpoint_router.core.history import History, bits
from checkpoint_router.core.ids import ThreadKey
from checkpoint_router.core.records import Entry
from checkpoint_router.engine import mending
from checkpoint_router.engine.recent import Recent
from checkpoint_router.storage.port import Known, Storage


class ThreadState:
    """One thread's history, and who waits for it to change."""

    __slots__ = (
        "_waiters", "asked", "counted", "doubtful", "fresh", "history", "kept_bytes", "known",
        "loading", "recent", "users",
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
        self.known: Known | None = None
        """What the history has of a shared storage; None if that is not sure."""
        self.asked = 0
        """Calls so far that wanted all that the storage knew when they came."""
        self.fresh = 0
        """So many of them were served: what they share was read after they came."""
        self._waiters: list[asyncio.Future[None]] = []

    def begin(self, gen: int) -> None:
        """Another generation, empty, after a delete."""
        self.history = History(self.history.thread, gen)
        self.known = None
        self.recent.clear()
        self.changed()

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


class Use:
    """One use of a thread's state. A class, since a generator costs each call twice as much."""

    __slots__ = ("_fresh", "_state", "_thread", "_threads")

    def __init__(self, threads: "Threads", thread: ThreadKey, fresh: bool) -> None:
        self._threads, self._thread, self._fresh = threads, thread, fresh

    async def __aenter__(self) -> ThreadState:
        self._state = state = self._threads.begin(self._thread)
        try:
            if self._fresh:
                await self._threads.refresh(self._thread, state)
            elif state.doubtful:
                await self._threads.settle(self._thread, state)
        except BaseException:
            self._threads.end(self._thread, state)
            raise
        return state

    async def __aexit__(self, *_: object) -> None:
        self._threads.end(self._thread, self._state)


class Threads:
    """All histories that a router holds, least recently used first."""

    def __init__(self, storage: Storage, *, events_max: int = limits.HISTORY_EVENTS_MAX) -> None:
        self._storage = storage
        self._shared = storage.shared
        self._events_max = events_max
        self._states: OrderedDict[ThreadKey, ThreadState] = OrderedDict()
        self._events = 0
        self._recent: OrderedDict[ThreadKey, ThreadState] = OrderedDict()
        self._recent_bytes = 0

    @property
    def events(self) -> int:
        """Index entries in memory."""
        return self._events

    def use(self, thread: ThreadKey, *, fresh: bool = True) -> "Use":
        """The thread's state, loaded, and kept while in use. `fresh`: with all that other routers
        had acknowledged when the call came. Raises as `Storage.check`."""
        return Use(self, thread, fresh and self._shared)

    def begin(self, thread: ThreadKey) -> ThreadState:
        """The thread's state, which is not dropped before `end`. It may have to be read."""
        self._storage.check()
        state = self._states.get(thread)
        if state is None:
            state = self._states[thread] = ThreadState(thread)
        else:
            self._states.move_to_end(thread)
        state.users += 1
        return state

    def end(self, thread: ThreadKey, state: ThreadState) -> None:
        """Ends a use."""
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

    async def refresh(self, thread: ThreadKey, state: ThreadState) -> None:
        """Brings in what the storage knew when this was called, or more. Calls share a reading
        only if it began after they came."""
        state.asked = mine = state.asked + 1
        while state.fresh < mine or state.doubtful:
            await self._load(thread, state)

    async def _load(self, thread: ThreadKey, state: ThreadState) -> None:
        if state.loading is not None:
            await asyncio.shield(state.loading)
            return
        state.loading = asyncio.get_running_loop().create_future()
        failure: RouterError | None = None
        try:
            await self._read(thread, state)
        except RouterError as e:
            failure = e
            raise
        finally:
            loading, state.loading = state.loading, None
            if failure is None:
                loading.set_result(None)
            else:
                # Whoever waits fails with it, and does not ask a dead storage in its turn.
                loading.set_exception(failure)
                loading.exception()

    async def _read(self, thread: ThreadKey, state: ThreadState) -> None:
        asked, before = state.asked, state.history
        have, erased = len(before.entries), before.erased
        known = None if state.doubtful else state.known
        image = await self._storage.image(thread, known)
        if state.history is not before:
            return  # A delete was applied, and the image may be older: read it again.
        gone = mending.lost(before, have, image) if self._shared else ()
        if gone:
            await mending.put_back(self._storage, before, gone, state.recent)
            image = await self._storage.image(thread)
        history = before
        if not image.partial:
            history = History(thread, image.gen)
        held = self._fold(history, image.entries)
        if not image.partial and image.gen == before.gen:
            # What was committed and applied while the image was on its way may not be in it.
            self._fold(history, before.entries[have:])
            pruned = (before.entries[p].id for p in bits(before.erased & ~erased))
            history.erase(id for id in pruned if history.entry(id) is not None)
        state.known = None if held or not self._shared else image.known
        state.fresh, state.doubtful = asked, False
        if not image.partial:
            state.history = history
            pruned_more = history.erased.bit_count() > before.erased.bit_count()
            if pruned_more or history.gen != before.gen or not self._shared:
                state.recent.clear()  # Else it is what a loss could be mended from.
        if image.entries or not image.partial:
            state.changed()

    def _fold(self, history: History, entries: Sequence[Entry]) -> Sequence[Entry]:
        """Takes entries in; returns those that must wait for what they rest on."""
        if self._shared:
            return history.fold(entries)
        for entry in entries:  # A storage with one writer keeps the order.
            history.apply(entry)
        return ()

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
