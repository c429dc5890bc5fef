"""What a router keeps of threads in memory: bounded, least recently used dropped first, and never
behind what was acknowledged."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from checkpoint_router.core.history import History
from checkpoint_router.core.ids import ThreadKey
from checkpoint_router.core.records import Entry
from checkpoint_router.engine.threads import Threads, ThreadState
from checkpoint_router.storage.memory import MemoryStorage
from checkpoint_router.storage.port import Append, Known, Stored, ThreadImage
from tests import builders as b

ROOM = 4
"""Threads without events: each counts one."""


def thread(number: int) -> ThreadKey:
    """One of many."""
    return ThreadKey("acme", f"t{number}")


class CountsImages(MemoryStorage):
    """Counts how often each thread's index was read, which a history in memory saves."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[ThreadKey] = []

    async def image(self, thread: ThreadKey, known: Known | None = None) -> ThreadImage:
        """As the storage's own."""
        self.read.append(thread)
        return await super().image(thread, known)


@pytest.fixture
async def storage() -> CountsImages:
    """An open storage."""
    opened = CountsImages()
    await opened.open()
    return opened


async def touch(threads: Threads, number: int) -> None:
    """Uses a thread and lets it go."""
    async with threads.use(thread(number)):
        pass


async def test_what_was_used_last_stays_and_what_was_used_least_lately_is_read_again(
    storage: CountsImages,
) -> None:
    threads = Threads(storage, events_max=ROOM)
    for number in range(ROOM):
        await touch(threads, number)
    await touch(threads, 0)
    await touch(threads, ROOM)
    assert threads.events == ROOM
    storage.read.clear()
    for number in (0, 2, 3, ROOM):
        await touch(threads, number)
    assert storage.read == []
    await touch(threads, 1)
    assert storage.read == [thread(1)]


async def test_a_thread_in_use_is_never_dropped_however_full_the_memory_is(
    storage: CountsImages,
) -> None:
    threads = Threads(storage, events_max=ROOM)
    async with threads.use(thread(0)) as state:
        for number in range(1, 3 * ROOM):
            await touch(threads, number)
            assert threads.events <= ROOM + 1
        storage.read.clear()
        async with threads.use(thread(0)) as again:
            assert again is state
    assert storage.read == []


class SlowImages(MemoryStorage):
    """Holds one image back after it was read, as a reader beside a writer does: what is committed
    meanwhile is not in it. (A fake: no engine waits on demand.)"""

    def __init__(self) -> None:
        super().__init__()
        self.held = asyncio.Event()
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def image(self, thread: ThreadKey, known: Known | None = None) -> ThreadImage:
        """As the storage's own, late."""
        image = await super().image(thread, known)
        self.held.set()
        await self.go_on.wait()
        return image


@pytest.fixture
async def slow() -> SlowImages:
    """An open storage."""
    opened = SlowImages()
    await opened.open()
    return opened


@asynccontextmanager
async def read_again(threads: Threads, slow: SlowImages) -> AsyncIterator[ThreadState]:
    """A thread in use whose index was just read again, and comes at the end of the block."""
    async with threads.use(b.THREAD) as state:
        slow.held.clear()
        slow.go_on.clear()
        state.doubtful = True
        reading = asyncio.ensure_future(threads.settle(b.THREAD, state))
        await slow.held.wait()
        yield state
        slow.go_on.set()
        await reading


async def stored(slow: SlowImages, append: Append) -> Entry:
    """The entry of an append that the storage took in."""
    assert isinstance(await slow.append(append), Stored)
    return append.entry


async def test_what_is_put_while_a_thread_is_read_again_stays_known(slow: SlowImages) -> None:
    threads = Threads(slow)
    first = await stored(slow, b.append(b.checkpoint_event(index=1, head=b.header())))
    async with read_again(threads, slow) as state:
        second = await stored(slow, b.append(b.writes_event(index=2)))
        state.history.apply(second)
    assert [e.id for e in state.history.entries] == [first.id, second.id]


async def test_what_is_pruned_while_a_thread_is_read_again_stays_pruned(slow: SlowImages) -> None:
    threads = Threads(slow)
    first = await stored(slow, b.append(b.checkpoint_event(index=1, head=b.header())))
    async with read_again(threads, slow) as state:
        state.history.erase([first.id])
    assert state.history.erased == state.history.all != 0


async def test_a_delete_while_a_thread_is_read_again_is_not_taken_back(slow: SlowImages) -> None:
    threads = Threads(slow)
    await stored(slow, b.append(b.checkpoint_event(index=1, head=b.header())))
    async with read_again(threads, slow) as state:
        gen = await slow.delete(b.THREAD, None, b"")
        state.history = History(b.THREAD, gen)
    assert (state.history.gen, state.history.entries) == (gen, [])
