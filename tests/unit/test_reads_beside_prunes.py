"""What is missing in a storage: taken away by a prune, or lost."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from checkpoint_router.core.errors import DataLoss
from checkpoint_router.core.ids import ThreadKey
from checkpoint_router.core.records import Header
from checkpoint_router.engine.engine import Engine
from checkpoint_router.engine.reading import Reading, Vanished
from checkpoint_router.engine.threads import ThreadState
from checkpoint_router.storage.memory import MemoryStorage
from checkpoint_router.storage.port import Erase
from tests import builders as b

PRUNES = 10
"""More than a read looks for what is lost."""


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    """With a thread of that many checkpoints, each of a run of its own, and one."""
    engine = Engine(MemoryStorage(), now_ms=lambda: 1, version="test")
    await engine.open()
    for number in range(PRUNES + 1):
        deadline = asyncio.get_running_loop().time() + 5
        read = await engine.get_tuple(b.THREAD, "", None, None, deadline=deadline)
        head = Header(token=read.token)
        event = b.checkpoint_event(
            f"s{number}", checkpoint_id=f"c{number}", head=head, hlc=read.clock.hlc + 1
        )
        await engine.put(b.THREAD, event, None, [], deadline=deadline)
    yield engine
    await engine.close()


async def erase(engine: Engine, thread: ThreadKey, number: int) -> None:
    """Takes away one checkpoint, as a prune does."""
    done = await engine.shard.storage.erase(
        Erase(
            thread=thread,
            gen=1,
            operation=bytes([number]),
            events=(b.event_id(f"s{number}"),),
            blobs=(),
            stored=PRUNES + 1,
        )
    )
    assert done


async def test_a_read_that_meets_one_prune_after_the_other_calls_nothing_lost(
    engine: Engine,
) -> None:
    looks = 0

    async def once(state: ThreadState) -> int:
        nonlocal looks
        if looks < PRUNES:
            await erase(engine, b.THREAD, looks)
            looks += 1
            raise Vanished("value ff")
        return state.history.erased.bit_count()

    assert await Reading(engine.shard).steadily(b.THREAD, once) == PRUNES


async def test_what_is_missing_though_nothing_was_taken_away_is_lost(engine: Engine) -> None:
    async def once(state: ThreadState) -> None:
        raise Vanished("value ff")

    with pytest.raises(DataLoss, match="no longer has value ff"):
        await Reading(engine.shard).steadily(b.THREAD, once)
