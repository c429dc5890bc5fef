"""What a router keeps in memory of a thread: bounded, and gone with what it belongs to."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence

import pytest
from msgspec import structs

from checkpoint_router.core import limits
from checkpoint_router.core.answers import ListQuery, PruneStrategy
from checkpoint_router.core.growing import named
from checkpoint_router.core.ids import EventId, ThreadKey
from checkpoint_router.core.records import (
    BY_VERSION,
    EMPTY,
    ChannelEntry,
    Content,
    Header,
    Typed,
)
from checkpoint_router.engine.engine import Engine
from checkpoint_router.engine.recent import Recent
from checkpoint_router.storage.memory import MemoryStorage
from checkpoint_router.storage.port import Records
from tests import builders as b


class Counting(MemoryStorage):
    """Memory that counts how often its records are asked for. (A fake: no engine counts.)"""

    asked = 0

    async def events(
        self, thread: ThreadKey, gen: int, ids: Sequence[EventId]
    ) -> Mapping[EventId, bytes]:
        self.asked += 1
        return await super().events(thread, gen, ids)

    async def records(
        self, thread: ThreadKey, gen: int, ids: Sequence[EventId], budget_bytes: int
    ) -> Records:
        self.asked += 1
        return await super().records(thread, gen, ids, budget_bytes)


@pytest.fixture
def storage() -> Counting:
    return Counting()


@pytest.fixture
async def engine(storage: Counting) -> AsyncIterator[Engine]:
    engine = Engine(storage, now_ms=lambda: 1, version="test")
    await engine.open()
    yield engine
    await engine.close()


def deadline() -> float:
    return asyncio.get_running_loop().time() + 5


async def put(engine: Engine, index: int, parent_id: str | None = None) -> None:
    blob = b.new_blob(f"value {index}")
    first = await engine.get_tuple(b.THREAD, "", None, None, deadline=deadline())
    event = b.checkpoint_event(
        f"s{index}",
        1,
        checkpoint_id=f"c{index}",
        parent_id=parent_id,
        blobs=[blob],
        head=Header(token=first.token),
        hlc=first.clock.hlc + 1,
        gen=first.clock.gen,
    )
    await engine.put(b.THREAD, event, None, [blob], deadline=deadline())


async def test_a_read_after_a_put_does_not_ask_the_storage(
    engine: Engine, storage: Counting
) -> None:
    await put(engine, 1)
    before = storage.asked
    found = await engine.get_tuple(b.THREAD, "", None, None, deadline=deadline())
    assert found.tuple is not None
    assert dict(found.blobs) == {x.hash: x.value for x in [b.new_blob("value 1")]}
    assert storage.asked == before


async def test_a_list_after_puts_asks_the_storage_for_no_record(
    engine: Engine, storage: Counting
) -> None:
    for index in (1, 2):
        await put(engine, index)
    before = storage.asked
    tenant, thread = b.THREAD.tenant, b.THREAD.thread
    query = ListQuery(tenant=tenant, thread=thread, ns=None, checkpoint_id=None, before=None)
    page = await engine.list_tuples(query, deadline=deadline())
    assert len(page.listed) == 2
    assert storage.asked == before


async def test_a_delete_and_a_prune_leave_nothing_in_memory(engine: Engine) -> None:
    await put(engine, 1)
    async with engine.shard.threads.use(b.THREAD) as state:
        assert state.recent.size_bytes > 0
        await engine.delete_thread(b.THREAD, None, b"first")
        assert state.recent.size_bytes == 0
        await put(engine, 2)
        await put(engine, 3, parent_id="c2")
        removed = await engine.prune(
            b.THREAD.tenant, [b.THREAD.thread], PruneStrategy.KEEP_LATEST, b"second"
        )
        assert removed.events == 1
        assert state.recent.size_bytes == 0
        assert state.recent.events([b.checkpoint_event("s2", 1).id]) is None


def test_what_is_kept_is_bounded_and_the_oldest_goes_first() -> None:
    recent = Recent()
    size = limits.RECENT_THREAD_BYTES_MAX // 4
    events = [b.checkpoint_event("s", index) for index in range(1, 7)]
    for event in events:
        recent.add([(event, size)], [])
    assert recent.size_bytes <= limits.RECENT_THREAD_BYTES_MAX
    assert recent.events([events[0].id]) is None
    assert recent.events([e.id for e in events[2:]]) == {e.id: e for e in events[2:]}


def test_a_value_larger_than_the_room_is_not_kept() -> None:
    recent = Recent()
    blob = b.new_blob("x" * (limits.RECENT_THREAD_BYTES_MAX + 1))
    recent.add([], [(blob.hash, blob.value)])
    assert recent.values([blob.hash]) is None
    assert recent.size_bytes == 0


def test_many_old_records_make_room_for_the_value_that_grows() -> None:
    recent = Recent()
    base = named(Typed("msgpack", b"\x91" + b"v" * (limits.RECENT_THREAD_BYTES_MAX // 3)))
    recent.add((), [(base.hash, base.value)])
    size = limits.RECENT_THREAD_BYTES_MAX // 8
    recent.add([(b.checkpoint_event("s", index), size) for index in range(1, 6)], ())
    for _ in range(3):
        grown = named(Typed("msgpack", base.value.data + b"w" * 100))
        recent.keep(base, grown)
        assert recent.named(grown.hash) is grown
        assert recent.size_bytes <= limits.RECENT_THREAD_BYTES_MAX
        base = grown
    assert recent.events([b.event_id("s", 1)]) is None


async def test_a_channel_that_is_stored_as_its_changes_is_rebuilt_with_few_reads(
    engine: Engine, storage: Counting
) -> None:
    """Every other checkpoint leaves the channel as it was, and has its version alone."""
    count = 64
    first = await engine.get_tuple(b.THREAD, "", None, None, deadline=deadline())
    for index in range(1, count + 1):
        event = b.checkpoint_event(
            index=index,
            checkpoint_id=f"c{index:03d}",
            parent_id=f"c{index - 1:03d}" if index > 1 else None,
            head=None if index > 1 else Header(token=first.token),
            hlc=first.clock.hlc + index,
            gen=first.clock.gen,
        )
        content: Content = BY_VERSION if index % 2 else EMPTY
        if index == 1:
            content = Typed("msgpack", b"\x90")
        entry = ChannelEntry("log", str(index // 2), content)
        event = structs.replace(event, content=structs.replace(event.content, manifest=(entry,)))
        await engine.put(b.THREAD, event, None, [], deadline=deadline())
    before = storage.asked
    found = await engine.delta_history(b.THREAD, "", None, ["log"], None, deadline=deadline())
    assert [history.seed for history in found.channels] == [Typed("msgpack", b"\x90")]
    assert storage.asked - before <= count // 8
