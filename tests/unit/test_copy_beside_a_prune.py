"""A copy that is made while its source is pruned."""

import asyncio

from checkpoint_router.core.answers import PruneStrategy
from checkpoint_router.core.ids import ThreadKey
from checkpoint_router.core.records import Header
from checkpoint_router.engine.engine import Engine
from checkpoint_router.storage.memory import MemoryStorage
from checkpoint_router.storage.port import Erase
from tests import builders as b

COPY = ThreadKey(b.THREAD.tenant, "copy")


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


def deadline() -> float:
    """Far enough."""
    return asyncio.get_running_loop().time() + 5


async def test_a_copy_rests_on_nothing_that_a_prune_took_meanwhile() -> None:
    """Or nobody could read the copy again, nor delete it."""
    storage = SlowToAnswer()
    engine = Engine(storage, now_ms=lambda: 1, version="test")
    await engine.open()
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
    names = [b.THREAD.thread]
    pruning = asyncio.ensure_future(
        engine.prune(b.THREAD.tenant, names, PruneStrategy.KEEP_LATEST, b"prune")
    )
    await storage.committed.wait()
    assert await engine.copy_thread(b.THREAD, COPY, b"copy") == 1
    storage.go_on.set()
    await pruning
    restarted = Engine(storage, now_ms=lambda: 1, version="test")
    await restarted.open()
    found = await restarted.get_tuple(COPY, "", None, None, deadline=deadline())
    assert found.tuple is not None
    assert found.tuple.checkpoint_id == "c3"
    await engine.close()
