"""How often a read of the newest checkpoint waits for Cassandra, whatever the thread's length.

The server and the engine's are real. A hint that is wrong or missing is written by the test.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import pytest

from checkpoint_router.backends.cassandra import CassandraStorage, ahead
from checkpoint_router.backends.cassandra.ahead import Hint, hint_in
from checkpoint_router.backends.cassandra.statements import Name
from checkpoint_router.core.answers import NewBlob, PruneStrategy, ReadAnswer
from checkpoint_router.core.records import Blob, Header, WriteRow
from checkpoint_router.engine.engine import Engine
from checkpoint_router.storage.open import storage_from_url
from tests import builders as b
from tests.contract import servers

TOLD = b.new_blob("told" * 100)


class Router:
    """An engine on a storage of its own, and how many of its reads followed each other."""

    def __init__(self, engine: Engine, storage: CassandraStorage) -> None:
        self.engine = engine
        self.session = storage._parts.session
        self.keyspace = storage.target.keyspace
        self.journeys = 0
        """Requests of which each was sent after the answer to the one before."""
        self._reads = 0
        """Of the newest checkpoint: an answer may come after the read that it was for."""
        self._read = self.session.read
        self.session.read = self._counted  # type: ignore[method-assign]  # to count

    def _counted(self, name: Name, *values: Any) -> "asyncio.Future[Any]":
        answer = asyncio.ensure_future(self._read(name, *values))
        answer.add_done_callback(partial(self._answered, self._reads, self.journeys + 1))
        return answer

    def _answered(self, read: int, journey: int, _: object) -> None:
        if read == self._reads:
            self.journeys = max(self.journeys, journey)

    async def newest(self) -> ReadAnswer:
        """The newest checkpoint; `journeys` says what that took."""
        self.journeys = 0
        self._reads += 1
        deadline = asyncio.get_running_loop().time() + 60
        return await self.engine.get_tuple(b.THREAD, "", None, None, deadline=deadline)

    async def talks(self, first: int, turns: int) -> None:
        """A run: in each turn a checkpoint of which one value grew, and a write that follows."""
        found = await self.newest()
        deadline = asyncio.get_running_loop().time() + 60
        parent = None if found.tuple is None else found.tuple.checkpoint_id
        name = f"run {first}"
        for index, turn in enumerate(range(first, first + turns)):
            blobs = [conversation(turn), *(b.new_blob(f"{n}" * 500) for n in (turn, turn // 9))]
            checkpoint = b.checkpoint_event(
                name,
                2 * index + 1,
                checkpoint_id=f"c{turn:05d}",
                parent_id=parent,
                blobs=blobs,
                gen=found.clock.gen,
                hlc=found.clock.hlc + 2 * index + 1,
                head=None if index else Header(token=found.token),
            )
            parent = checkpoint.checkpoint_id
            row = WriteRow(0, "c", Blob(TOLD.hash))
            told = b.writes_event(
                name,
                2 * index + 2,
                checkpoint_id=parent,
                rows=[row],
                gen=found.clock.gen,
                hlc=found.clock.hlc + 2 * index + 2,
            )
            await self.engine.put(b.THREAD, checkpoint, None, blobs, deadline=deadline)
            await self.engine.put(b.THREAD, told, None, [TOLD], deadline=deadline)

    async def forget(self) -> None:
        """The engine drops the records and values that it remembers, and the thread's place what
        it read ahead."""
        async with self.engine.shard.threads.use(b.THREAD) as state:
            state.recent.clear()


def conversation(turns: int) -> NewBlob:
    """A list after so many turns, of which each is 200 bytes."""
    data = b"\x91" + b"".join(b"%05d" % n * 40 for n in range(turns + 1))
    older = b.new_blob(data[:-200]) if turns else None
    return b.new_blob(data, continues=older)


@asynccontextmanager
async def router_at(url: str) -> AsyncIterator[Router]:
    storage = storage_from_url(url)
    assert isinstance(storage, CassandraStorage)
    engine = Engine(storage, now_ms=lambda: 1, version="test")
    await engine.open()
    try:
        yield Router(engine, storage)
    finally:
        await engine.close()


@pytest.fixture
async def routers() -> AsyncIterator[tuple[Router, Router, Router]]:
    """Three on one keyspace: two that write, and one that knows nothing yet."""
    url = servers.cassandra()
    async with AsyncExitStack() as stack:
        one, two, three = [await stack.enter_async_context(router_at(url)) for _ in range(3)]
        yield one, two, three


def shows(found: ReadAnswer, turn: int) -> bool:
    """Whether that is the checkpoint of the turn with all of its values."""
    assert found.tuple is not None
    expected = [conversation(turn), TOLD, *(b.new_blob(f"{n}" * 500) for n in (turn, turn // 9))]
    assert found.tuple.checkpoint_id == f"c{turn:05d}"
    assert len(found.tuple.pending_writes) == 1
    assert dict(found.blobs) == {blob.hash: blob.value for blob in expected}
    return True


async def test_the_newest_checkpoint_takes_two_journeys_of_a_router_that_knows_nothing_or_all(
    routers: tuple[Router, Router, Router],
) -> None:
    one, two, three = routers
    await one.talks(0, 30)
    await two.talks(30, 30)
    assert shows(await three.newest(), 59)
    assert three.journeys == 2, "cold"
    assert shows(await three.newest(), 59)
    assert three.journeys == 1, "nothing is new, and all is remembered"
    await three.forget()
    assert shows(await three.newest(), 59)
    assert three.journeys == 2, "nothing is new, and nothing is remembered of it"
    await one.talks(60, 3)
    assert shows(await three.newest(), 62)
    assert three.journeys == 2, "another router went on"


async def test_the_newest_checkpoint_of_a_thread_that_was_pruned_takes_two_journeys_too(
    routers: tuple[Router, Router, Router],
) -> None:
    one, two, three = routers
    await one.talks(0, 12)
    latest = PruneStrategy.KEEP_LATEST
    await one.engine.prune(b.THREAD.tenant, [b.THREAD.thread], latest, b"first")
    assert shows(await two.newest(), 11)
    assert two.journeys == 2
    await two.talks(12, 2)
    await two.engine.prune(b.THREAD.tenant, [b.THREAD.thread], latest, b"again")
    assert shows(await three.newest(), 13)
    assert three.journeys == 2


@pytest.mark.parametrize(
    "hint",
    [
        b"",
        b"no hint at all",
        Hint(events=(b"e" * 24,), values=((b"h" * 32, 5, b""),)).pack(),
        Hint(events=(b"",), values=((conversation(9).hash, 1, b"a path?"),)).pack(),
    ],
    ids=["missing", "unreadable", "of others", "of another age, with half a path"],
)
async def test_a_hint_that_is_wrong_or_missing_costs_journeys_and_nothing_else(
    routers: tuple[Router, Router, Router], hint: bytes
) -> None:
    one, two, three = routers
    await one.talks(0, 12)
    (row,) = await one.session.read(Name.COUNTS, b.THREAD.tenant, b.THREAD.thread, 1)
    assert conversation(11).hash in {hash for hash, _, _ in hint_in(row[4]).values}
    wrong = (
        f"UPDATE {one.keyspace}.thread USING TIMESTAMP 1000 SET hint = 0x{hint.hex()}"  # noqa: S608 - ours
        f" WHERE tenant = '{b.THREAD.tenant}' AND thread = '{b.THREAD.thread}' AND gen = 1"
    )
    await one.session.ask(wrong)
    for router in (two, three):
        assert shows(await router.newest(), 11)
        assert 2 < router.journeys <= 5
    await one.talks(12, 1)
    assert shows(await two.newest(), 12)


def test_a_hint_names_no_more_than_it_may() -> None:
    hint = ahead.NO_HINT
    for number in range(99):
        news = {b"%032d" % number: (number, ())}
        hint = hint.with_event(b"%024d" % number, news, anew=number == 9)
    assert hint.events == tuple(b"%024d" % n for n in (9, *range(84, 99)))
    assert len(hint.values) == ahead.VALUES_MAX
    assert hint_in(hint.pack()) == hint
