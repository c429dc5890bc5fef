"""Several routers on one Cassandra, and what happens between any two of their requests.

The server is real. Where a test needs a request to fail, to be answered and lost, or to be held at
a certain moment, it says so to the one session of one of the routers: no network does that on
demand.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from typing import Any

import pytest

from checkpoint_router.backends.cassandra import CassandraStorage, backend, removal, writing
from checkpoint_router.backends.cassandra.removal import Intent
from checkpoint_router.backends.cassandra.session import Change
from checkpoint_router.backends.cassandra.statements import Name
from checkpoint_router.core.errors import Overloaded, Unavailable
from checkpoint_router.core.ids import Dot, ThreadKey, slot_of
from checkpoint_router.storage.open import storage_from_url
from checkpoint_router.storage.port import (
    Append,
    Duplicate,
    Erase,
    MissingBlobs,
    OtherGeneration,
    Stored,
)
from tests import builders as b
from tests.contract import servers

KEPT, DROPPED = b.new_blob("kept"), b.new_blob("dropped")
OPERATION = b"o" * 16


@pytest.fixture
def url() -> str:
    """Of an empty keyspace."""
    return servers.cassandra()


async def opened(url: str) -> AsyncIterator[CassandraStorage]:
    storage = storage_from_url(url)
    assert isinstance(storage, CassandraStorage)
    await storage.open()
    yield storage
    await storage.close()


@pytest.fixture
async def one(url: str) -> AsyncIterator[CassandraStorage]:
    """A router's storage."""
    async for storage in opened(url):
        yield storage


@pytest.fixture
async def two(url: str, one: CassandraStorage) -> AsyncIterator[CassandraStorage]:
    """Another router's."""
    async for storage in opened(url):
        yield storage


async def put(storage: CassandraStorage, append: Append) -> Dot:
    answer = await storage.append(append)
    assert isinstance(answer, Stored), answer
    return answer.dot


def writes(name: str, index: int = 1, gen: int = 1) -> Append:
    return b.append(b.writes_event(name, index, gen=gen))


async def ids(storage: CassandraStorage) -> set[Any]:
    return {e.id for e in (await storage.image(b.THREAD)).entries}


class Answers:
    """Stands before a session's batches: holds them back, loses what they answer."""

    def __init__(self, storage: CassandraStorage) -> None:
        self._session = storage._parts.session
        self._together = self._session.together
        self._session.together = self._sent  # type: ignore[method-assign]  # the fault
        self.lose = 0
        """Answers that are lost, after the batch was done."""
        self.drop = 0
        """Batches that are not done now, but may land later."""
        self.dropped: list[list[Change]] = []

    async def _sent(self, changes: Iterable[Change]) -> None:
        rows = list(changes)
        if self.drop:
            self.drop -= 1
            self.dropped.append(rows)
            raise Unavailable("timed out")
        await self._together(rows)
        if self.lose:
            self.lose -= 1
            raise Unavailable("timed out")

    async def land(self) -> None:
        """What was dropped arrives at last."""
        for rows in self.dropped:
            await self._together(rows)


# What each sees of the other -----------------------------------------------------------------


async def test_events_of_both_are_seen_by_both_each_once_with_dots_of_their_own(
    one: CassandraStorage, two: CassandraStorage
) -> None:
    appends = [writes(f"s{number}", index) for number in range(4) for index in range(1, 26)]
    dots = await asyncio.gather(
        *(put((one, two)[n % 2], append) for n, append in enumerate(appends))
    )
    assert len(set(dots)) == 100
    assert {dot.actor for dot in dots} == {one.actor, two.actor}
    for storage in (one, two):
        image = await storage.image(b.THREAD)
        assert len(image.entries) == 100
        assert {e.id for e in image.entries} == {a.entry.id for a in appends}
        assert image.counts == {one.actor: 50, two.actor: 50}


async def test_an_event_follows_all_that_it_needs_whoever_wrote_it(
    one: CassandraStorage, two: CassandraStorage
) -> None:
    order = []
    before: tuple[Any, ...] = ()
    for turn in range(10):
        append = b.append(b.writes_event(f"s{turn}", 1), needs=before)
        await put((one, two)[turn % 2], append)
        order.append(append.entry.id)
        before = ((append.entry.id.segment, ((1, 1),)),)
    for storage in (one, two):
        assert [e.id for e in (await storage.image(b.THREAD)).entries] == order


async def test_a_second_look_brings_what_the_other_wrote_since(
    one: CassandraStorage, two: CassandraStorage
) -> None:
    await put(one, writes("s", 1))
    first = await two.image(b.THREAD)
    await put(one, writes("s", 2))
    await put(two, writes("s", 3))
    second = await two.image(b.THREAD, first.known)
    assert second.partial
    assert {e.id.index for e in second.entries} == {2, 3}


# Deletes and prunes --------------------------------------------------------------------------


async def test_a_put_that_begins_after_a_delete_elsewhere_is_refused(
    one: CassandraStorage, two: CassandraStorage
) -> None:
    await put(two, writes("s", 1))
    assert await one.delete(b.THREAD, 1) == 2
    assert await two.append(writes("s", 2)) == OtherGeneration(2)
    assert await two.append(writes("s", 1)) == OtherGeneration(2), "not a duplicate: it is gone"
    assert not await two.put_blobs(b.THREAD, 1, [KEPT])
    await put(two, writes("s", 1, gen=2))
    assert await ids(one) == {b.event_id("s", 1)}


async def test_a_put_during_a_delete_elsewhere_is_acknowledged_and_gone_or_refused(
    one: CassandraStorage, two: CassandraStorage
) -> None:
    for gen in range(1, 9):
        puts = [asyncio.ensure_future(two.append(writes("s", i, gen))) for i in range(1, 30)]
        assert await one.delete(b.THREAD, gen) == gen + 1
        late = await two.append(writes("late", 1, gen))
        assert late == OtherGeneration(gen + 1)
        assert {type(a) for a in await asyncio.gather(*puts)} <= {Stored, OtherGeneration}
        for storage in (one, two):
            image = await storage.image(b.THREAD)
            assert (image.gen, image.entries) == (gen + 1, ())


async def pruned(storage: CassandraStorage) -> Erase:
    """Two checkpoints, and what prunes the first with the value that only it names."""
    first = b.checkpoint_event("s", 1, checkpoint_id="c1", run_id="r", blobs=[KEPT, DROPPED])
    second = b.checkpoint_event("s", 2, checkpoint_id="c2", blobs=[KEPT])
    await put(storage, b.append(first, blobs=[KEPT, DROPPED]))
    await put(storage, b.append(second))
    return Erase(
        thread=b.THREAD,
        gen=1,
        operation=OPERATION,
        events=(first.id,),
        blobs=(DROPPED.hash,),
        stored=2,
    )


async def test_a_put_after_a_prune_elsewhere_must_send_again_what_was_pruned(
    one: CassandraStorage, two: CassandraStorage
) -> None:
    erase = await pruned(one)
    assert len(await ids(two)) == 2
    late = b.checkpoint_event("t", 1, checkpoint_id="c3", blobs=[KEPT, DROPPED])
    assert await one.erase(erase)
    assert await two.append(b.append(late)) == MissingBlobs((DROPPED.hash,))
    await put(two, b.append(late, blobs=[DROPPED]))
    for storage in (one, two):
        read = await storage.records(b.THREAD, 1, [late.id], 1 << 20)
        assert set(read.blobs.found) == {KEPT.hash, DROPPED.hash}


async def test_a_prune_is_dropped_if_an_event_came_since_its_caller_looked(
    one: CassandraStorage, two: CassandraStorage
) -> None:
    erase = await pruned(one)
    await put(two, b.append(b.checkpoint_event("t", 1, blobs=[DROPPED])))
    assert not await one.erase(erase)
    assert not await two.erased(b.THREAD, OPERATION)
    assert await two.missing_blobs(b.THREAD, 1, [DROPPED.hash]) == ()


async def test_an_event_whose_value_was_pruned_under_it_is_shown_by_nobody(
    one: CassandraStorage, two: CassandraStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A prune that looked before the batch was anywhere, and took the value after: here its
    caller says that it has seen one event more."""
    erase = replace(await pruned(one), stored=3)
    assert len(await ids(two)) == 2
    late = b.checkpoint_event("t", 1, checkpoint_id="c3", blobs=[DROPPED])
    fence = two._parts.writing._fences.read

    async def read() -> int:
        assert await one.erase(erase)
        monkeypatch.setattr(two._parts.writing._fences, "read", fence)
        return await fence()

    monkeypatch.setattr(two._parts.writing._fences, "read", read)
    assert await two.append(b.append(late)) == MissingBlobs((DROPPED.hash,))
    await put(two, writes("u"))
    for storage in (one, two):
        assert late.id not in await ids(storage)
    known = (await one.image(b.THREAD)).known
    await put(two, b.append(late, blobs=[DROPPED]))
    assert [e.id for e in (await one.image(b.THREAD, known)).entries] == [late.id]
    for storage in (one, two):
        assert late.id in await ids(storage)
        assert (await storage.records(b.THREAD, 1, [late.id], 99)).blobs.found


async def half_there(one: CassandraStorage, append: Append) -> list[Change]:
    """A batch of a third router of which a quorum has only its log row and its count, as where one
    replica has all of it and a read brought those to another. What is missing of it."""
    answers = Answers(one)
    answers.drop = 1 << 30
    sent = asyncio.ensure_future(one.append(append))
    while not answers.dropped:
        await asyncio.sleep(0)
    sent.cancel()
    rows = next(rows for rows in answers.dropped if rows[0][0] is Name.PUT_COUNT)
    begun = [row for row in rows if row[0] in (Name.PUT_COUNT, Name.PUT_LOG)]
    await answers._together(begun)
    return [row for row in rows if row not in begun]


@pytest.mark.parametrize("decided", [False, True])
async def test_a_prune_takes_no_value_while_a_batch_is_half_there_that_a_reader_may_show(
    one: CassandraStorage,
    two: CassandraStorage,
    decided: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A reader that has seen the batch whole shows it, if it read the state before the prune."""
    monkeypatch.setattr(removal, "_LOOK_SECONDS", 0.0)
    erase = await pruned(two)
    late = b.append(b.checkpoint_event("t", 1, checkpoint_id="c3", blobs=[DROPPED]))
    await one.image(b.THREAD)
    rest: list[Change] = []
    if decided:
        begin = two._parts.removal._begin

        async def overtaken(*given: Any) -> bool:
            rest.extend(await half_there(one, late))
            return await begin(*given)

        monkeypatch.setattr(two._parts.removal, "_begin", overtaken)
        assert not await two.erase(erase)
        monkeypatch.undo()
        monkeypatch.setattr(removal, "_LOOK_SECONDS", 0.0)
    else:
        rest += await half_there(one, late)
    assert await two.erase(erase), "it is not to wait for a router that may be no more"
    await two._parts.session.together(rest)
    assert late.entry.id in await ids(two)
    assert (await two.records(b.THREAD, 1, [late.entry.id], 99)).blobs.found


async def test_a_batch_that_lands_after_its_thread_was_deleted_stays_hidden(
    one: CassandraStorage, two: CassandraStorage
) -> None:
    await put(one, writes("s", 1))
    answers = Answers(two)
    await two.image(b.THREAD)
    answers.drop = 1
    await two.append(writes("s", 2))
    assert await one.delete(b.THREAD, 1) == 2
    await answers.land()
    new = writes("s", 2, gen=2)
    await put(one, new)
    for storage in (one, two):
        assert await ids(storage) == {new.entry.id}
        assert await storage.events(b.THREAD, 1, [new.entry.id]) == {}


async def test_a_batch_that_lands_after_its_event_was_pruned_stays_hidden(
    one: CassandraStorage, two: CassandraStorage
) -> None:
    answers = Answers(one)
    answers.drop = 1
    erase = await pruned(one)
    assert await two.erase(erase)
    await answers.land()
    assert await two.events(b.THREAD, 1, erase.events) == {}
    assert await two.missing_blobs(b.THREAD, 1, erase.blobs) == erase.blobs
    assert [e.erased for e in (await two.image(b.THREAD)).entries] == [True, False]


# Removals that their router did not finish ---------------------------------------------------


class Died(Exception):
    """The router is no more."""


@pytest.mark.parametrize("step", ["lift", "_take", "condition"])
@pytest.mark.parametrize("prune", [False, True])
async def test_a_removal_whose_router_died_half_way_is_finished_by_whoever_comes_by(
    one: CassandraStorage,
    two: CassandraStorage,
    step: str,
    prune: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    erase = await pruned(one)
    removal = one._parts.removal
    owner = {"lift": removal._fences, "_take": removal, "condition": removal._session}[step]
    before = getattr(owner, step)

    async def dies(*given: Any) -> Any:
        done = await before(*given)
        if step != "condition" or given[0][0].startswith("intent finish"):
            raise Died
        return done

    monkeypatch.setattr(owner, step, dies)
    with pytest.raises(Died):
        await (one.erase(erase) if prune else one.delete(b.THREAD, 1, OPERATION))
    image = await two.image(b.THREAD)
    assert image.gen == (1 if prune else 2)
    assert [e.erased for e in image.entries] == ([True, False] if prune else [])
    assert await two.erased(b.THREAD, OPERATION)
    assert await two.newest("acme", None, 9) == ([("c2", "t1")] if prune else [])
    assert await two.threads("acme", "", 9) == (["t1"] if prune else [])


async def test_a_removal_that_is_wanted_and_not_decided_has_no_effect_on_what_came_before(
    one: CassandraStorage, two: CassandraStorage
) -> None:
    erase = await pruned(one)
    assert len(await ids(two)) == 2
    state = await one._parts.removal.settled(b.THREAD)
    intent = Intent(
        operation=OPERATION, gen=1, next=1, events=(), copies=(), stored=erase.stored, nonce=b"1"
    )
    assert await one._parts.removal._begin(b.THREAD, state, intent)
    # A put of a router that knows nothing of it: what finishes the prune sees its event.
    await put(two, writes("t"))
    assert not await one.erased(b.THREAD, OPERATION)
    assert len(await ids(one)) == 3


async def test_two_routers_that_remove_at_once_end_one_generation(
    one: CassandraStorage, two: CassandraStorage
) -> None:
    for gen in range(1, 6):
        await put(one, writes("s", 1, gen))
        ended = await asyncio.gather(*(s.delete(b.THREAD, gen) for s in (one, two, one, two)))
        assert ended == [gen + 1] * 4


# Outcome unknown -----------------------------------------------------------------------------


async def test_a_batch_whose_answer_was_lost_is_one_event_with_one_dot(
    one: CassandraStorage, two: CassandraStorage
) -> None:
    answers = Answers(one)
    answers.lose = 2
    assert await put(one, writes("s", 1)) == Dot(one.actor, 1)
    assert await put(one, writes("s", 2)) == Dot(one.actor, 2)
    assert (await two.image(b.THREAD)).counts == {one.actor: 2}
    assert len(await ids(two)) == 2


async def test_a_batch_that_timed_out_and_landed_later_is_one_event_with_one_dot(
    one: CassandraStorage, two: CassandraStorage
) -> None:
    answers = Answers(one)
    answers.drop = 2
    assert await put(one, writes("s", 1)) == Dot(one.actor, 1)
    before = await two.image(b.THREAD)
    await answers.land()
    after = await two.image(b.THREAD)
    assert (after, after.known) == (before, before.known)
    assert await one.append(writes("s", 1)) == Duplicate(writes("s", 1).entry.digest)
    assert await put(one, writes("s", 2)) == Dot(one.actor, 2)


async def test_a_call_that_ran_out_of_time_is_found_by_its_retry(
    one: CassandraStorage, two: CassandraStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = Answers(one)
    answers.drop = 3
    monkeypatch.setattr(backend, "CALL_SECONDS", 0.1)
    with pytest.raises(Unavailable, match="did not answer"):
        await one.append(writes("s", 1))
    with pytest.raises(Unavailable, match="did not answer"):
        await one.append(writes("s", 2))
    monkeypatch.undo()
    assert isinstance(await one.append(writes("s", 1)), Stored | Duplicate)
    assert isinstance(await one.append(writes("s", 2)), Stored | Duplicate)
    assert (await two.image(b.THREAD)).counts == {one.actor: 2}


async def test_nothing_is_acknowledged_before_what_was_sent_before_it(
    one: CassandraStorage, two: CassandraStorage
) -> None:
    answers = Answers(one)
    answers.drop = 3
    early = asyncio.ensure_future(one.append(writes("s", 1)))
    while not answers.dropped:
        await asyncio.sleep(0)
    late = asyncio.ensure_future(one.append(writes("s", 2)))
    assert await late == Stored(Dot(one.actor, 2))
    assert early.done()
    assert len(await ids(two)) == 2


async def test_the_slot_names_a_thread_whose_put_was_never_acknowledged_by_its_router(
    one: CassandraStorage, two: CassandraStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = Answers(one)
    answers.drop = 4
    monkeypatch.setattr(backend, "CALL_SECONDS", 0.1)
    with pytest.raises(Unavailable):
        await one.append(writes("s", 1))
    monkeypatch.undo()
    await one.append(writes("s", 1))
    slot = slot_of(b.THREAD.thread)
    assert [t for _, t in await two.slot_threads(slot, None, 9)] == [b.THREAD]


async def test_an_actor_that_is_changed_under_puts_leaves_no_gap(
    one: CassandraStorage, two: CassandraStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("checkpoint_router.core.limits.COUNTERS_MAX", 2)
    threads = [ThreadKey("acme", f"t{number}") for number in range(6)]
    for index in range(1, 6):
        appends = [b.append(b.writes_event("s", index), thread=t) for t in threads]
        await asyncio.gather(*(put(one, append) for append in appends))
    for thread in threads:
        image = await two.image(thread)
        assert len(image.entries) == 5
        assert sum(image.counts.values()) == 5


async def test_a_batch_that_is_half_there_is_not_shown(
    one: CassandraStorage, two: CassandraStorage
) -> None:
    """As a reader meets it that reads one replica which has the batch, and others which have not:
    its record is not repaired by a read of its log row."""
    answers = Answers(one)
    answers.drop = 1
    await put(one, writes("s", 1))
    (rows,) = answers.dropped
    kinds = {row[0]: row for row in rows}
    assert set(kinds) == {Name.PUT_COUNT, Name.PUT_LOG, Name.PUT_PIECE}
    elsewhere = ThreadKey("acme", "half")
    log = [(n, ("acme", elsewhere.thread, *v[2:])) for n, v in (kinds[Name.PUT_LOG],)]
    await two._parts.session.together(log)
    assert (await two.image(elsewhere)).entries == ()
    record = [(n, ("acme", elsewhere.thread, *v[2:])) for n, v in (kinds[Name.PUT_PIECE],)]
    await two._parts.session.together(record)
    assert len((await two.image(elsewhere)).entries) == 1


async def test_puts_that_wait_for_an_engine_that_is_away_are_bounded_and_none_is_lost(
    one: CassandraStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "WAITING_MAX", 5)
    answers = Answers(one)
    answers.drop = 1 << 30
    waiting = [asyncio.ensure_future(one.append(writes("s", i))) for i in range(1, 6)]
    while not answers.dropped:
        await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="5 puts of thread 't1'"):
        await one.append(writes("s", 6))
    monkeypatch.setattr(writing, "WAITING_BYTES_MAX", 10)
    with pytest.raises(Overloaded, match="bytes in all"):
        await one.append(b.append(b.writes_event("s", 1), thread=ThreadKey("acme", "t2")))
    answers.drop = 0
    assert [a.dot.n for a in await asyncio.gather(*waiting) if isinstance(a, Stored)] == [
        1, 2, 3, 4, 5,
    ]  # fmt: skip
    assert isinstance(await one.append(writes("s", 6)), Stored)
