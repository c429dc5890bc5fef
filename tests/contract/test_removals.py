"""Deletes by generation and prunes by identity."""

import asyncio
from dataclasses import replace

import pytest
from msgspec import structs

from checkpoint_router.core.ids import EventId, ThreadKey, slot_of
from checkpoint_router.storage.port import Append, Duplicate, Erase, OtherGeneration, Storage
from tests import builders as b

from .shard import Shard, stored

KEPT = b.new_blob("kept")
DROPPED = b.new_blob("dropped")
OPERATION = b"o" * 16


class TestDelete:
    async def test_everything_of_the_generation_is_gone_and_the_next_one_is_live(
        self, shard: Shard
    ) -> None:
        append = b.append(b.checkpoint_event(blobs=[KEPT], run_id="r"), blobs=[KEPT])
        await stored(shard.storage, append)
        assert await shard.storage.delete(b.THREAD, 1) == 2
        for restart in (False, True):
            storage = await shard.restart() if restart else shard.storage
            image = await storage.image(b.THREAD)
            assert (image.gen, image.entries) == (2, ())
            for gen in (1, 2):
                assert await storage.events(b.THREAD, gen, [append.entry.id]) == {}
                assert await storage.missing_blobs(b.THREAD, gen, [KEPT.hash]) == (KEPT.hash,)
            assert await storage.threads("acme", "", 10) == []
            assert await storage.newest("acme", None, 10) == []
            assert await storage.threads_of_runs("acme", ["r"]) == []

    async def test_a_repeat_ends_nothing_more(self, storage: Storage) -> None:
        assert await storage.delete(b.THREAD, 1) == 2
        await stored(storage, b.append(b.checkpoint_event(gen=2)))
        assert await storage.delete(b.THREAD, 1) == 2
        assert len((await storage.image(b.THREAD)).entries) == 1

    async def test_an_unknown_thread_can_be_deleted_and_stays_so(self, shard: Shard) -> None:
        assert await shard.storage.delete(b.THREAD, 5) == 6
        storage = await shard.restart()
        assert (await storage.image(b.THREAD)).gen == 6
        assert await storage.append(b.append(b.checkpoint_event())) == OtherGeneration(6)

    async def test_a_new_generation_begins_empty_and_takes_the_same_ids_again(
        self, storage: Storage
    ) -> None:
        old = b.append(b.checkpoint_event(body=b"old"))
        await stored(storage, old)
        await storage.delete(b.THREAD, 1)
        new = b.append(b.checkpoint_event(body=b"new", gen=2))
        await stored(storage, new)
        assert (await storage.image(b.THREAD)).entries == (new.entry,)
        read = await storage.events(b.THREAD, 2, [new.entry.id])
        assert read == {new.entry.id: new.packed}

    async def test_a_put_beside_a_delete_is_wholly_before_or_wholly_after_it(
        self, storage: Storage
    ) -> None:
        for gen in range(1, 30):
            puts = [b.append(b.writes_event("s", i, gen=gen)) for i in range(1, 20)]
            *answers, live = await asyncio.gather(
                *(storage.append(p) for p in puts[:10]),
                storage.delete(b.THREAD, gen),
                *(storage.append(p) for p in puts[10:]),
                storage.delete(b.THREAD, gen),
            )
            assert live == gen + 1
            assert (await storage.image(b.THREAD)).entries == ()
            assert OtherGeneration(gen + 1) in answers or gen + 1 in answers


class TestDeleteWithAnOperation:
    async def test_a_repeat_ends_nothing_that_began_after_the_first(self, shard: Shard) -> None:
        assert await shard.storage.delete(b.THREAD, None, OPERATION) == 2
        await stored(shard.storage, b.append(b.checkpoint_event(gen=2)))
        for restart in (False, True):
            storage = await shard.restart() if restart else shard.storage
            assert await storage.delete(b.THREAD, None, OPERATION) == 2
            assert len((await storage.image(b.THREAD)).entries) == 1

    async def test_a_repeat_that_named_its_generation_changes_nothing(
        self, storage: Storage
    ) -> None:
        assert await storage.delete(b.THREAD, 1, OPERATION) == 2
        assert await storage.delete(b.THREAD, 1, OPERATION) == 2
        assert await storage.erased(b.THREAD, OPERATION)

    async def test_another_operation_ends_the_next_generation(self, storage: Storage) -> None:
        assert await storage.delete(b.THREAD, None, OPERATION) == 2
        assert await storage.delete(b.THREAD, None, bytes(16)) == 3


async def pruned(storage: Storage) -> tuple[Append, Append, Erase]:
    """A kept and a dropped checkpoint, and the erase that is to drop the second."""
    keep = b.append(b.checkpoint_event("s", 1, checkpoint_id="c1", run_id="r1", blobs=[KEPT]),
                    blobs=[KEPT])  # fmt: skip
    drop = b.append(
        b.checkpoint_event("s", 2, checkpoint_id="c2", run_id="r2", blobs=[KEPT, DROPPED]),
        blobs=[DROPPED],
    )
    await stored(storage, keep)
    await stored(storage, drop)
    erase = Erase(
        thread=b.THREAD,
        gen=1,
        operation=OPERATION,
        events=(drop.entry.id,),
        blobs=(DROPPED.hash,),
        stored=2,
    )
    return keep, drop, erase


class TestErase:
    async def test_exactly_the_named_events_lose_their_payload_and_stay_known(
        self, shard: Shard
    ) -> None:
        keep, drop, erase = await pruned(shard.storage)
        assert await shard.storage.erase(erase)
        for restart in (False, True):
            storage = await shard.restart() if restart else shard.storage
            image = await storage.image(b.THREAD)
            assert image.entries == (keep.entry, structs.replace(drop.entry, erased=True))
            read = await storage.events(b.THREAD, 1, [keep.entry.id, drop.entry.id])
            assert read == {keep.entry.id: keep.packed}
            hashes = [KEPT.hash, DROPPED.hash]
            assert await storage.missing_blobs(b.THREAD, 1, hashes) == (DROPPED.hash,)
            assert await storage.newest("acme", None, 10) == [("c1", "t1")]
            assert await storage.threads_of_runs("acme", ["r1", "r2"]) == ["t1"]
            assert await storage.threads_of_runs("acme", ["r2"]) == []
            assert await storage.append(drop) == Duplicate(drop.entry.digest)

    async def test_a_thread_whose_events_are_all_erased_is_not_listed(
        self, storage: Storage
    ) -> None:
        keep, drop, erase = await pruned(storage)
        assert await storage.erase(replace(erase, events=(keep.entry.id, drop.entry.id)))
        assert await storage.threads("acme", "", 10) == []

    async def test_nothing_is_erased_if_an_event_came_since_the_caller_looked(
        self, storage: Storage
    ) -> None:
        _, drop, erase = await pruned(storage)
        await stored(storage, b.append(b.checkpoint_event("s", 3, blobs=[DROPPED])))
        assert not await storage.erase(erase)
        assert not await storage.erased(b.THREAD, OPERATION)
        assert drop.entry.id in await storage.events(b.THREAD, 1, [drop.entry.id])
        assert await storage.missing_blobs(b.THREAD, 1, [DROPPED.hash]) == ()

    async def test_a_repeat_changes_nothing_whatever_it_names(self, shard: Shard) -> None:
        keep, _, erase = await pruned(shard.storage)
        assert await shard.storage.erase(erase)
        await stored(shard.storage, b.append(b.checkpoint_event("s", 3)))
        storage = await shard.restart()
        assert await storage.erased(b.THREAD, OPERATION)
        assert await storage.erase(replace(erase, events=(keep.entry.id,)))
        assert keep.entry.id in await storage.events(b.THREAD, 1, [keep.entry.id])

    async def test_an_operation_is_known_in_its_own_thread_only(self, storage: Storage) -> None:
        _, _, erase = await pruned(storage)
        await storage.erase(erase)
        assert not await storage.erased(ThreadKey("acme", "t2"), OPERATION)
        assert not await storage.erased(b.THREAD, b"p" * 16)

    async def test_a_repeat_after_a_delete_leaves_the_new_generation_alone(
        self, storage: Storage
    ) -> None:
        _, drop, erase = await pruned(storage)
        await storage.erase(erase)
        await storage.delete(b.THREAD, 1)
        again = b.append(b.checkpoint_event("s", 2, gen=2))
        await stored(storage, again)
        assert await storage.erase(replace(erase, gen=2))
        assert list(await storage.events(b.THREAD, 2, [drop.entry.id])) == [again.entry.id]

    async def test_a_prune_of_another_generation_does_nothing(self, storage: Storage) -> None:
        _, drop, erase = await pruned(storage)
        assert not await storage.erase(replace(erase, gen=2))
        assert drop.entry.id in await storage.events(b.THREAD, 1, [drop.entry.id])

    async def test_events_that_are_not_stored_may_be_named(self, storage: Storage) -> None:
        _, _, erase = await pruned(storage)
        unknown: tuple[EventId, ...] = (b.event_id("s", 9), b.event_id("z", 1))
        assert await storage.erase(replace(erase, events=(*erase.events, *unknown)))
        assert len((await storage.image(b.THREAD)).entries) == 2

    @pytest.mark.parametrize("dropped", [(0,), (1, 2), (5,), (0, 2, 4), (4, 5), (0, 1, 2, 3, 4)])
    async def test_versions_of_a_growing_value_outlive_the_ones_that_are_dropped(
        self, storage: Storage, dropped: tuple[int, ...]
    ) -> None:
        ages = [b.new_blob(b"\x91" + b"x" * 2000)]
        for length in (3000, 4000, 5000):
            ages.append(b.new_blob(b"\x91" + b"x" * length, continues=ages[-1]))
        ages.append(b.new_blob(b"\x91" + b"x" * 3000 + b"y" * 100, continues=ages[1]))
        ages.append(b.new_blob(b"\x91" + b"x" * 3000 + b"y" * 200, continues=ages[4]))
        await stored(storage, b.append(b.checkpoint_event("s", 1, blobs=ages), blobs=ages))
        gone = tuple(ages[i].hash for i in dropped)
        erase = Erase(thread=b.THREAD, gen=1, operation=OPERATION, events=(), blobs=gone, stored=1)
        assert await storage.erase(erase)
        left = {x.hash: x.value for x in ages if x.hash not in gone}
        read = await storage.blobs(b.THREAD, 1, [x.hash for x in ages], 1 << 20)
        assert read.found == left
        more = b.new_blob(b"\x91" + b"x" * 6000, continues=ages[3])
        await storage.put_blobs(b.THREAD, 1, [more, *ages])
        everything = await storage.blobs(b.THREAD, 1, [x.hash for x in (more, *ages)], 1 << 20)
        assert everything.found == {x.hash: x.value for x in (more, *ages)}


async def test_a_deleted_thread_may_still_be_named_by_its_slot_but_no_living_one_is_left_out(
    storage: Storage,
) -> None:
    await stored(storage, b.append(b.checkpoint_event()))
    await storage.delete(b.THREAD, 1)
    await stored(storage, b.append(b.checkpoint_event(gen=2)))
    named = await storage.slot_threads(slot_of(b.THREAD.thread), None, 10)
    assert [thread for _, thread in named] == [b.THREAD]
