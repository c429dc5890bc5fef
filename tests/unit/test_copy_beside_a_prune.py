"""Copies whose source is pruned: while they are made, or between a failure and the next try."""

import asyncio

import pytest

from checkpoint_router.core.answers import ListQuery, PruneStrategy
from checkpoint_router.core.errors import Unavailable
from checkpoint_router.core.ids import ThreadKey
from checkpoint_router.core.records import Header
from checkpoint_router.engine.engine import Engine
from checkpoint_router.storage.memory import MemoryStorage
from checkpoint_router.storage.port import Append, Appended, Erase
from tests import builders as b

COPY = ThreadKey(b.THREAD.tenant, "copy")
QUERY = ListQuery(tenant=COPY.tenant, thread=COPY.thread, ns=None, checkpoint_id=None, before=None)


class SlowToAnswer(MemoryStorage):
    """Holds back the news that a prune is committed, as a busy loop does. (A fake: no engine
    waits on demand.)"""

    def __init__(self) -> None:
        super().__init__()
        self.committed = asyncio.Event()
        self.go_on = asyncio.Event()

    async def erase(self, erase: Erase) -> bool:
        """As the storage's own, late."""
        done = await super().erase(erase)
        self.committed.set()
        await self.go_on.wait()
        return done


class Full(MemoryStorage):
    """Fails one append of a copy. (A fake: no storage fills up on demand.)"""

    left = 2

    async def append(self, append: Append) -> Appended:
        """As the storage's own, but for one."""
        if append.thread == COPY:
            self.left -= 1
            if self.left == 0:
                raise Unavailable("the disk is full")
        return await super().append(append)


class HeldBack(MemoryStorage):
    """Holds back the first append of a copy. (A fake: no storage waits on demand.)"""

    def __init__(self) -> None:
        super().__init__()
        self.asked = asyncio.Event()
        self.go_on = asyncio.Event()

    async def append(self, append: Append) -> Appended:
        """As the storage's own, the first late."""
        if append.thread == COPY and not self.asked.is_set():
            self.asked.set()
            await self.go_on.wait()
        return await super().append(append)


def deadline() -> float:
    """Far enough."""
    return asyncio.get_running_loop().time() + 5


async def chain_of_three(engine: Engine) -> None:
    """Three runs, each of which has seen the one before."""
    for number in (1, 2, 3):
        read = await engine.get_tuple(b.THREAD, "", None, None, deadline=deadline())
        event = b.checkpoint_event(
            f"s{number}",
            checkpoint_id=f"c{number}",
            parent_id=f"c{number - 1}" if number > 1 else None,
            head=Header(token=read.token),
            hlc=read.clock.hlc + 1,
        )
        await engine.put(b.THREAD, event, None, [], deadline=deadline())


async def test_a_copy_rests_on_nothing_that_a_prune_took_meanwhile() -> None:
    """Or nobody could read the copy again, nor delete it."""
    storage = SlowToAnswer()
    engine = Engine(storage, now_ms=lambda: 1, version="test")
    await engine.open()
    await chain_of_three(engine)
    names = [b.THREAD.thread]
    pruning = asyncio.ensure_future(
        engine.prune(b.THREAD.tenant, names, PruneStrategy.KEEP_LATEST, b"prune")
    )
    await storage.committed.wait()
    assert await engine.copy_thread(b.THREAD, COPY) == 1
    storage.go_on.set()
    await pruning
    restarted = Engine(storage, now_ms=lambda: 1, version="test")
    await restarted.open()
    found = await restarted.get_tuple(COPY, "", None, None, deadline=deadline())
    assert found.tuple is not None
    assert found.tuple.checkpoint_id == "c3"
    await engine.close()


async def test_a_copy_that_failed_midway_is_mended_by_the_next_one() -> None:
    """Also if the source was pruned in between: what is gone there is not left over here, and is
    no rival of what came later."""
    storage = Full()
    engine = Engine(storage, now_ms=lambda: 1, version="test")
    await engine.open()
    await chain_of_three(engine)
    with pytest.raises(Unavailable, match="disk is full"):
        await engine.copy_thread(b.THREAD, COPY)
    names = [b.THREAD.thread]
    await engine.prune(b.THREAD.tenant, names, PruneStrategy.KEEP_LATEST, b"prune")
    assert await engine.copy_thread(b.THREAD, COPY) == 1
    assert await engine.copy_thread(b.THREAD, COPY) == 0
    restarted = Engine(storage, now_ms=lambda: 1, version="test")
    await restarted.open()
    for each in (engine, restarted):
        page = await each.list_tuples(QUERY, deadline=deadline())
        assert [one.tuple.checkpoint_id for one in page.listed] == ["c3"]
        assert page.listed[0].tuple.checkpoint.parent_id is None
        assert not (await each.conflicts(COPY)).conflicts
    await engine.close()


async def test_copies_by_two_routers_at_once_of_which_one_saw_a_prune_leave_one_history() -> None:
    """What the first would store is there with other bytes: it takes what is stored."""
    storage = HeldBack()
    engine = Engine(storage, now_ms=lambda: 1, version="test")
    await engine.open()
    await chain_of_three(engine)
    first = asyncio.ensure_future(engine.copy_thread(b.THREAD, COPY))
    await storage.asked.wait()
    other = Engine(storage, now_ms=lambda: 1, version="test")
    await other.open()
    names = [b.THREAD.thread]
    await other.prune(b.THREAD.tenant, names, PruneStrategy.KEEP_LATEST, b"prune")
    assert await other.copy_thread(b.THREAD, COPY) == 1
    storage.go_on.set()
    await first
    restarted = Engine(storage, now_ms=lambda: 1, version="test")
    await restarted.open()
    one, two = [
        (await each.get_tuple(COPY, "", None, None, deadline=deadline())).tuple
        for each in (engine, restarted)
    ]
    assert one is not None
    assert one == two
    assert one.checkpoint_id == "c3"
    assert one.checkpoint.parent_id is None
    assert await engine.conflicts(COPY) == await restarted.conflicts(COPY)
    await engine.close()
