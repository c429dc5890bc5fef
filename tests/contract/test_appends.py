"""One event, its blobs and its dot in one transaction: all of it, once, or nothing."""

import asyncio

import pytest

from checkpoint_router.core.ids import Dot, ThreadKey
from checkpoint_router.core.records import Blob, WriteRow
from checkpoint_router.storage.port import (
    Append,
    Duplicate,
    Erase,
    Known,
    MissingBlobs,
    MissingEvents,
    OtherGeneration,
    Storage,
    Stored,
)
from tests import builders as b

from .shard import Shard, stored

OTHER_THREAD = ThreadKey("acme", "t2")


async def is_empty(storage: Storage, append: Append) -> bool:
    """Whether nothing of `append` can be seen anywhere."""
    image = await storage.image(append.thread)
    events = await storage.events(append.thread, append.gen, [append.entry.id])
    hashes = [*append.names, *(x.hash for x in append.blobs)]
    missing = await storage.missing_blobs(append.thread, append.gen, hashes)
    newest = await storage.newest(append.thread.tenant, None, 10)
    return not image.entries and not events and list(missing) == hashes and not newest


async def test_an_event_is_read_back_byte_for_byte_with_its_entry_and_blobs(
    storage: Storage,
) -> None:
    blob = b.new_blob(b"\x93abc")
    append = b.append(b.checkpoint_event(blobs=[blob], head=b.header(), run_id="r"), blobs=[blob])
    await stored(storage, append)
    image = await storage.image(b.THREAD)
    assert image.gen == 1
    assert image.entries == (append.entry,)
    assert await storage.events(b.THREAD, 1, [append.entry.id]) == {append.entry.id: append.packed}
    read = await storage.blobs(b.THREAD, 1, [blob.hash], 100)
    assert read.found == {blob.hash: blob.value}


async def test_an_event_that_was_stored_before_is_answered_with_the_digest_that_is_stored(
    storage: Storage,
) -> None:
    first = b.append(b.checkpoint_event(body=b"one", head=b.header()))
    await stored(storage, first)
    assert await storage.append(first) == Duplicate(first.entry.digest)
    other = b.append(b.checkpoint_event(body=b"other", head=b.header()))
    assert await storage.append(other) == Duplicate(first.entry.digest)
    assert (await storage.image(b.THREAD)).entries == (first.entry,)
    read = await storage.events(b.THREAD, 1, [first.entry.id])
    assert read == {first.entry.id: first.packed}


async def test_a_duplicate_takes_no_dot(storage: Storage) -> None:
    first = b.append(b.checkpoint_event(head=b.header()))
    assert (await stored(storage, first)).dot == Dot(storage.actor, 1)
    await storage.append(first)
    assert (await stored(storage, b.append(b.writes_event()))).dot == Dot(storage.actor, 2)


async def test_an_event_whose_blobs_are_neither_stored_nor_sent_writes_nothing(
    storage: Storage,
) -> None:
    here, absent, sent = b.new_blob("here"), b.new_blob("absent"), b.new_blob("sent")
    await storage.put_blobs(b.THREAD, 1, [here])
    event = b.checkpoint_event(blobs=[here, absent, sent], head=b.header())
    answer = await storage.append(b.append(event, blobs=[sent]))
    assert answer == MissingBlobs((absent.hash,))
    assert (await storage.image(b.THREAD)).entries == ()
    assert await storage.missing_blobs(b.THREAD, 1, [sent.hash, here.hash]) == (sent.hash,)
    again = await storage.append(b.append(event, blobs=[sent, absent]))
    assert again == Stored(Dot(storage.actor, 1))


async def test_an_event_may_name_what_the_event_before_it_brings_while_both_are_on_their_way(
    storage: Storage,
) -> None:
    """As a checkpoint names what its task has just written; not what comes after it, or never."""
    first, late, never = (b.new_blob(bytes([n]) * 3000) for n in range(3))
    rows = [WriteRow(0, "c", Blob(first.hash))]
    begins = b.append(b.checkpoint_event(head=b.header()))
    brings = b.append(b.writes_event(index=2, rows=rows), blobs=[first])
    names = b.append(b.checkpoint_event(index=3, checkpoint_id="c00003", blobs=[first]))
    early = b.append(b.checkpoint_event(index=4, checkpoint_id="c00004", blobs=[late, never]))
    brings_late = b.append(
        b.checkpoint_event(index=5, checkpoint_id="c00005", blobs=[late]), blobs=[late]
    )
    puts = (begins, brings, names, early, brings_late)
    *stored, missed, last = await asyncio.gather(*map(storage.append, puts))
    assert all(isinstance(answer, Stored) for answer in (*stored, last))
    assert missed == MissingBlobs((late.hash, never.hash))
    read = await storage.blobs(b.THREAD, 1, [first.hash, late.hash], 1 << 20)
    assert len(read.found) == 2


async def test_missing_blobs_of_the_first_event_ever_leave_no_trace(storage: Storage) -> None:
    one, two = b.new_blob("one"), b.new_blob("two")
    append = b.append(b.checkpoint_event(blobs=[one, two], head=b.header()), blobs=[one])
    assert await storage.append(append) == MissingBlobs((two.hash,))
    assert await is_empty(storage, append)
    assert await storage.threads("acme", "", 10) == []


@pytest.mark.parametrize(
    ("ranges", "ok"),
    [(((1, 1),), True), (((1, 2),), True), (((2, 3),), False), (((1, 2), (5, 5)), True),
     (((1, 5),), False), (((7, 7),), False), ((), True)],
)  # fmt: skip
async def test_an_event_waits_until_all_that_it_needs_is_stored(
    storage: Storage, ranges: tuple[tuple[int, int], ...], ok: bool
) -> None:
    for index in (1, 2, 5):
        await stored(storage, b.append(b.writes_event("s1", index, head=b.header())))
    append = b.append(b.checkpoint_event("s2"), needs=((b.segment("s1"), ranges),))
    answer = await storage.append(append)
    assert isinstance(answer, Stored if ok else MissingEvents)
    assert len((await storage.image(b.THREAD)).entries) == (4 if ok else 3)


async def test_what_is_stored_in_another_thread_or_generation_is_not_what_an_event_needs(
    storage: Storage,
) -> None:
    await stored(storage, b.append(b.writes_event("s1", 1), thread=OTHER_THREAD))
    await stored(storage, b.append(b.writes_event("s1", 1)))
    await storage.delete(b.THREAD, 1)
    needy = b.append(b.writes_event("s2", 1, gen=2), needs=((b.segment("s1"), ((1, 1),)),))
    assert await storage.append(needy) == MissingEvents()


@pytest.mark.parametrize("gen", [2, 3, 1000])
async def test_an_event_of_a_generation_that_has_not_begun_is_refused(
    storage: Storage, gen: int
) -> None:
    append = b.append(b.checkpoint_event(gen=gen, head=b.header()))
    assert await storage.append(append) == OtherGeneration(1)
    assert await is_empty(storage, append)


async def test_an_event_of_a_deleted_generation_is_refused_also_if_it_had_been_stored(
    storage: Storage,
) -> None:
    append = b.append(b.checkpoint_event(head=b.header()))
    await stored(storage, append)
    await storage.delete(b.THREAD, 1)
    assert await storage.append(append) == OtherGeneration(2)
    assert await is_empty(storage, append)


async def test_entries_come_in_the_order_in_which_they_were_stored(storage: Storage) -> None:
    order = [("s2", 9), ("s1", 3), ("s1", 1), ("s3", 1), ("s2", 1)]
    for name, index in order:
        await stored(storage, b.append(b.writes_event(name, index)))
    image = await storage.image(b.THREAD)
    assert [e.id for e in image.entries] == [b.event_id(name, index) for name, index in order]


async def test_a_second_look_has_at_least_all_that_the_first_one_lacked(storage: Storage) -> None:
    appends = [b.append(b.writes_event("s1", index)) for index in range(1, 6)]
    for append in appends[:2]:
        await stored(storage, append)
    first = await storage.image(b.THREAD)
    again = await storage.image(b.THREAD, first.known)
    assert [e.id for e in again.entries] == (
        [] if again.partial else [a.entry.id for a in appends[:2]]
    )
    for append in appends[2:]:
        await stored(storage, append)
    second = await storage.image(b.THREAD, first.known)
    expected = appends[2:] if second.partial else appends
    assert [e.id for e in second.entries] == [a.entry.id for a in expected]
    assert second.partial or not storage.shared
    assert second.known == (await storage.image(b.THREAD)).known


async def test_a_second_look_is_a_full_one_after_a_delete_or_a_prune(storage: Storage) -> None:
    for gen in (1, 2):
        appends = [b.append(b.writes_event("s1", index, gen=gen)) for index in (1, 2)]
        for append in appends:
            await stored(storage, append)
        before = await storage.image(b.THREAD)
        erase = Erase(
            thread=b.THREAD,
            gen=gen,
            operation=bytes([gen]) * 16,
            events=(appends[0].entry.id,),
            blobs=(),
            stored=2,
        )
        assert await storage.erase(erase)
        pruned = await storage.image(b.THREAD, before.known)
        assert not pruned.partial
        assert [e.erased for e in pruned.entries] == [True, False]
        await storage.delete(b.THREAD, gen)
        deleted = await storage.image(b.THREAD, pruned.known)
        assert (deleted.gen, deleted.entries, deleted.partial) == (gen + 1, (), False)


async def test_a_second_look_of_one_who_knew_more_is_a_full_one(storage: Storage) -> None:
    append = b.append(b.writes_event("s1", 1))
    dot = (await stored(storage, append)).dot
    for counts in ({dot.actor: 2}, {dot.actor: 1, dot.actor ^ 1: 1}, {dot.actor ^ 1: 1}):
        image = await storage.image(b.THREAD, Known(1, 0, counts))
        assert (image.entries, image.partial) == ((append.entry,), False)


async def test_events_are_read_by_id_and_unknown_ones_are_absent(storage: Storage) -> None:
    append = b.append(b.checkpoint_event(head=b.header()))
    await stored(storage, append)
    unknown = [b.event_id("s1", 2), b.event_id("s9", 1)]
    found = await storage.events(b.THREAD, 1, [unknown[0], append.entry.id, unknown[1]])
    assert found == {append.entry.id: append.packed}
    assert await storage.events(OTHER_THREAD, 1, [append.entry.id]) == {}
    assert await storage.events(b.THREAD, 2, [append.entry.id]) == {}


async def test_concurrent_appends_of_one_event_make_one_event_and_one_dot(
    storage: Storage,
) -> None:
    append = b.append(b.checkpoint_event(head=b.header()))
    answers = await asyncio.gather(*(storage.append(append) for _ in range(50)))
    assert [a for a in answers if isinstance(a, Stored)] == [Stored(Dot(storage.actor, 1))]
    assert answers.count(Duplicate(append.entry.digest)) == 49
    assert len((await storage.image(b.THREAD)).entries) == 1


async def test_concurrent_writers_each_get_what_belongs_to_their_own_append(
    storage: Storage,
) -> None:
    absent = b.new_blob("absent")
    good = [b.append(b.writes_event("s", i)) for i in range(1, 101)]
    bad = [b.append(b.checkpoint_event("bad", i, blobs=[absent])) for i in range(1, 51)]
    late = [b.append(b.checkpoint_event("late", i, gen=7)) for i in range(1, 51)]
    mixed = [a for group in zip(good[:50], bad, good[50:], late, strict=True) for a in group]
    answers = await asyncio.gather(*(storage.append(a) for a in mixed))
    dots = []
    for append, answer in zip(mixed, answers, strict=True):
        if append in good:
            assert isinstance(answer, Stored)
            dots.append(answer.dot)
        elif append in bad:
            assert answer == MissingBlobs((absent.hash,))
        else:
            assert answer == OtherGeneration(1)
    assert dots == [Dot(storage.actor, n) for n in range(1, 101)]
    image = await storage.image(b.THREAD)
    assert {e.id for e in image.entries} == {a.entry.id for a in good}


async def test_a_call_that_was_given_up_still_has_the_effect_of_one(storage: Storage) -> None:
    append = b.append(b.checkpoint_event(head=b.header()))
    call = asyncio.ensure_future(storage.append(append))
    await asyncio.sleep(0)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    assert isinstance(await storage.append(append), Stored | Duplicate)
    assert len((await storage.image(b.THREAD)).entries) == 1
    assert (await stored(storage, b.append(b.writes_event()))).dot.n == 2


async def test_threads_of_one_name_in_two_tenants_share_nothing(storage: Storage) -> None:
    blob = b.new_blob("secret of acme")
    append = b.append(b.checkpoint_event(blobs=[blob], run_id="r", head=b.header()), blobs=[blob])
    await stored(storage, append)
    theirs = ThreadKey("other", b.THREAD.thread)
    assert (await storage.image(theirs)).entries == ()
    assert await storage.missing_blobs(theirs, 1, [blob.hash]) == (blob.hash,)
    assert (await storage.blobs(theirs, 1, [blob.hash], 100)).found == {}
    assert await storage.events(theirs, 1, [append.entry.id]) == {}
    assert await storage.threads("other", "", 10) == []
    assert await storage.newest("other", None, 10) == []
    assert await storage.threads_of_runs("other", ["r"]) == []
    answer = await storage.append(b.append(b.checkpoint_event(blobs=[blob]), thread=theirs))
    assert answer == MissingBlobs((blob.hash,))
    await storage.delete(theirs, 1)
    assert (await storage.image(b.THREAD)).entries == (append.entry,)


async def test_names_with_every_kind_of_character_are_kept_apart(storage: Storage) -> None:
    names = [
        "ä",
        "a\u0308",
        "A",
        "a",
        "a ",
        "😀",
        "\uffff",
        "%",
        "_",
        "'",
        '"',
        "{u}:1",
        "\x01",
        "\n",
    ]
    for name in names:
        append = b.append(b.checkpoint_event(checkpoint_id=name), thread=ThreadKey("acme", name))
        await stored(storage, append)
    assert await storage.threads("acme", "", 100) == sorted(names)
    for name in names:
        image = await storage.image(ThreadKey("acme", name))
        assert [e.checkpoint_id for e in image.entries] == [name]


class TestDots:
    """I7: no two events share a dot, and an actor's log of a thread has no gaps."""

    async def test_they_count_from_one_in_each_thread_and_generation(
        self, storage: Storage
    ) -> None:
        for thread in (b.THREAD, OTHER_THREAD):
            for index in (1, 2, 3):
                answer = await stored(storage, b.append(b.writes_event("s", index), thread=thread))
                assert answer.dot == Dot(storage.actor, index)
        await storage.delete(b.THREAD, 1)
        answer = await stored(storage, b.append(b.writes_event("s", 1, gen=2)))
        assert answer.dot == Dot(storage.actor, 1)

    async def test_a_restart_takes_a_new_actor(self, shard: Shard) -> None:
        actors = [shard.storage.actor]
        dots = []
        for index in range(1, 4):
            dots.append((await stored(shard.storage, b.append(b.writes_event("s", index)))).dot)
            await shard.restart()
            actors.append(shard.storage.actor)
        assert len(set(actors)) == 4
        assert dots == [Dot(actor, 1) for actor in actors[:3]]
        assert all(0 <= actor < 2**63 for actor in actors)

    async def test_an_actor_that_remembers_too_many_threads_makes_way_for_a_new_one(
        self, storage: Storage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("checkpoint_router.core.limits.COUNTERS_MAX", 3)
        dots = set()
        for index in (1, 2):
            for number in range(8):
                thread = ThreadKey("acme", f"t{number}")
                event = b.append(b.writes_event("s", index), thread=thread)
                answer = await stored(storage, event)
                assert answer.dot.actor == storage.actor
                dots.add((thread, answer.dot))
        assert len(dots) == 16
        assert len({dot.actor for _, dot in dots}) > 2
        for number in range(8):
            by_actor: dict[int, list[int]] = {}
            for thread, dot in sorted(dots):
                if thread.thread == f"t{number}":
                    by_actor.setdefault(dot.actor, []).append(dot.n)
            assert all(ns == list(range(1, len(ns) + 1)) for ns in by_actor.values())
