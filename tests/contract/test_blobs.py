"""Values by content hash: stored once per thread, read back whole, within a budget."""

import asyncio
import random

import ormsgpack
import pytest

from checkpoint_router.core.ids import ThreadKey
from checkpoint_router.storage.port import Blobs, Storage
from tests import builders as b

from .shard import Shard, stored


async def read_all(storage: Storage, hashes: list[bytes]) -> Blobs:
    """Every value, without a budget."""
    return await storage.blobs(b.THREAD, 1, hashes, 1 << 40)


async def test_blobs_are_stored_before_the_event_that_names_them(shard: Shard) -> None:
    blob = b.new_blob("early")
    assert await shard.storage.put_blobs(b.THREAD, 1, [blob])
    storage = await shard.restart()
    await stored(storage, b.append(b.checkpoint_event(blobs=[blob], head=b.header())))


async def test_blobs_of_another_generation_are_not_taken(storage: Storage) -> None:
    blob = b.new_blob("late")
    assert not await storage.put_blobs(b.THREAD, 2, [blob])
    await storage.delete(b.THREAD, 1)
    assert not await storage.put_blobs(b.THREAD, 1, [blob])
    assert await storage.missing_blobs(b.THREAD, 2, [blob.hash]) == (blob.hash,)
    assert await storage.put_blobs(b.THREAD, 2, [blob])
    assert await storage.missing_blobs(b.THREAD, 2, [blob.hash]) == ()
    assert await storage.missing_blobs(b.THREAD, 1, [blob.hash]) == (blob.hash,)
    assert (await storage.blobs(b.THREAD, 1, [blob.hash], 100)).found == {}
    assert await storage.blob_sizes(b.THREAD, 1, [blob.hash]) == {}


async def test_blobs_belong_to_their_thread(storage: Storage) -> None:
    blob = b.new_blob("mine")
    await storage.put_blobs(b.THREAD, 1, [blob])
    other = ThreadKey("acme", "t2")
    assert await storage.missing_blobs(other, 1, [blob.hash]) == (blob.hash,)
    assert (await storage.blobs(other, 1, [blob.hash], 100)).found == {}
    await storage.put_blobs(other, 1, [blob])
    await storage.delete(other, 1)
    assert (await storage.blobs(b.THREAD, 1, [blob.hash], 100)).found == {blob.hash: blob.value}


async def test_missing_blobs_keep_their_order(storage: Storage) -> None:
    blobs = [b.new_blob(f"value {i}") for i in range(100)]
    await storage.put_blobs(b.THREAD, 1, blobs[::3])
    shuffled = [x.hash for x in blobs]
    random.Random(7).shuffle(shuffled)
    here = {x.hash for x in blobs[::3]}
    missing = await storage.missing_blobs(b.THREAD, 1, shuffled)
    assert missing == tuple(h for h in shuffled if h not in here)
    assert await storage.missing_blobs(b.THREAD, 1, []) == ()


async def test_the_budget_ends_the_answer_and_the_rest_is_named(storage: Storage) -> None:
    blobs = [b.new_blob(bytes([65 + i]) * 10) for i in range(5)]
    await storage.put_blobs(b.THREAD, 1, blobs)
    hashes = [x.hash for x in blobs]
    values = {x.hash: x.value for x in blobs}
    absent = b.new_blob("absent").hash
    asked = [hashes[0], absent, hashes[1], hashes[0], *hashes[2:]]

    async def read(budget: int) -> tuple[list[bytes], tuple[bytes, ...]]:
        answer = await storage.blobs(b.THREAD, 1, asked, budget)
        assert all(answer.found[h] == values[h] for h in answer.found)
        return list(answer.found), answer.rest

    assert await read(50) == (hashes, ())
    assert await read(49) == (hashes[:4], tuple(hashes[4:]))
    assert await read(20) == (hashes[:2], tuple(hashes[2:]))
    assert await read(1) == (hashes[:1], tuple(hashes[1:])), "the first one always comes"
    assert await read(0) == (hashes[:1], tuple(hashes[1:]))


async def test_nothing_small_slips_past_a_value_that_did_not_fit(storage: Storage) -> None:
    blobs = [b.new_blob(b"x" * size) for size in (10, 100, 1)]
    await storage.put_blobs(b.THREAD, 1, blobs)
    answer = await storage.blobs(b.THREAD, 1, [x.hash for x in blobs], 50)
    assert list(answer.found) == [blobs[0].hash]
    assert answer.rest == (blobs[1].hash, blobs[2].hash)


@pytest.mark.parametrize(
    ("tag", "data"),
    [("null", b""), ("bytes", b""), ("bytes", bytes(range(256)) * 40), ("msgpack", b"\x90"),
     ("msgpack", b"\xdc\x00"), ("json", b"null"), ("", b"x"), ("größe", b"\x00")],
)  # fmt: skip
async def test_a_value_keeps_its_tag_and_bytes(storage: Storage, tag: str, data: bytes) -> None:
    blob = b.new_blob(data, tag)
    await storage.put_blobs(b.THREAD, 1, [blob])
    assert (await read_all(storage, [blob.hash])).found == {blob.hash: blob.value}
    assert await storage.blob_sizes(b.THREAD, 1, [blob.hash]) == {blob.hash: len(data)}


async def test_a_value_that_grows_can_be_read_at_each_of_its_ages(shard: Shard) -> None:
    messages: list[str] = []
    before = None
    ages = []
    for turn in range(120):
        messages.append(f"message {turn} " + "x" * (turn * 7 % 300))
        age = b.new_blob(ormsgpack.packb(messages), continues=before)
        event = b.checkpoint_event("s", turn + 1, checkpoint_id=f"c{turn}", blobs=[age])
        await stored(shard.storage, b.append(event, blobs=[age]))
        ages.append(age)
        before = age
    storage = await shard.restart()
    assert (await read_all(storage, [x.hash for x in ages])).found == {
        x.hash: x.value for x in ages
    }
    sizes = await storage.blob_sizes(b.THREAD, 1, [x.hash for x in ages])
    assert sizes == {x.hash: len(x.value.data) for x in ages}


async def test_a_wrong_hint_changes_nothing(storage: Storage) -> None:
    first = b.new_blob(b"\xdd" + bytes(4) + b"a" * 5000)
    liars = [
        b.new_blob(b"\xdd" + bytes(4) + b"b" * 6000, continues=first),
        b.new_blob(b"\xdd" + bytes(4) + b"a" * 4999, continues=first),
        b.new_blob(b"\xdd" + bytes(4) + b"a" * 4999 + b"b" + b"c" * 50, continues=first),
        b.new_blob(b"a" * 9000, "bytes", continues=first),
        b.new_blob(b"z" * 9000, continues=b.new_blob("never stored")),
    ]
    await storage.put_blobs(b.THREAD, 1, [first, *liars])
    assert (await read_all(storage, [x.hash for x in (first, *liars)])).found == {
        x.hash: x.value for x in (first, *liars)
    }


async def test_concurrent_puts_of_the_same_values_store_them_once(storage: Storage) -> None:
    blobs = [b.new_blob(f"value {i}") for i in range(20)]
    assert all(await asyncio.gather(*(storage.put_blobs(b.THREAD, 1, blobs) for _ in range(20))))
    assert (await read_all(storage, [x.hash for x in blobs])).found == {
        x.hash: x.value for x in blobs
    }


async def test_records_come_with_the_values_that_they_name(storage: Storage) -> None:
    first, second, third = (b.new_blob(f"value {i}" * 100) for i in range(3))
    one = b.append(b.checkpoint_event("s", 1, checkpoint_id="c1", blobs=[first, second]),
                   blobs=[first, second])  # fmt: skip
    two = b.append(
        b.checkpoint_event("s", 2, checkpoint_id="c2", blobs=[second, third]), blobs=[third]
    )
    await stored(storage, one)
    await stored(storage, two)
    ids = [one.entry.id, two.entry.id]
    read = await storage.records(b.THREAD, 1, ids, 1 << 40)
    assert read.events == await storage.events(b.THREAD, 1, ids)
    assert read.blobs.found == {x.hash: x.value for x in (first, second, third)}
    assert read.blobs.rest == ()
    # The first one always, the others as far as they fit.
    read = await storage.records(b.THREAD, 1, ids, 1)
    assert set(read.blobs.found) == {first.hash}
    assert read.blobs.rest == (second.hash, third.hash)
    assert (await storage.records(b.THREAD, 2, ids, 1)).events == {}
