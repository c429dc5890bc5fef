"""What a router keeps of threads in memory: bounded, least recently used dropped first."""

import pytest

from checkpoint_router.core.ids import ThreadKey
from checkpoint_router.engine.threads import Threads
from checkpoint_router.storage.memory import MemoryStorage
from checkpoint_router.storage.port import ThreadImage

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

    async def image(self, thread: ThreadKey) -> ThreadImage:
        """As the storage's own."""
        self.read.append(thread)
        return await super().image(thread)


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
