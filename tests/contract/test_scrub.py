"""A storage that is read through as a whole: what is whole, and what is not."""

from checkpoint_router.core.ids import slot_of
from checkpoint_router.storage.port import Erase, Storage
from checkpoint_router.storage.scrub import scrub
from tests import builders as b

from .shard import stored


async def found_in(storage: Storage) -> list[str]:
    """What a look at the slot of the thread says is broken."""
    slots = [slot_of(b.THREAD.thread)]
    return [fault.message async for fault in scrub(storage, slots) if fault is not None]


async def fill(storage: Storage) -> None:
    """A run of five checkpoints whose value grows, of which the second was pruned."""
    value = b.new_blob(b"\xdc\x00\x01" + b"x" * 3000)
    for index in range(1, 6):
        head = b.header() if index == 1 else None
        event = b.checkpoint_event(
            "s", index, checkpoint_id=f"c{index}", blobs=[value], head=head, hlc=b.FIRST_HLC + index
        )
        await stored(storage, b.append(event, blobs=[value]))
        value = b.new_blob(value.value.data + b"y" * 100 * index, continues=value)
    erase = Erase(
        thread=b.THREAD,
        gen=1,
        operation=bytes(16),
        events=(b.event_id("s", 2),),
        blobs=(),
        stored=5,
    )
    assert await storage.erase(erase)


async def test_what_is_whole_is_counted_and_nothing_is_said_of_it(storage: Storage) -> None:
    await fill(storage)
    assert await found_in(storage) == []
    assert len([one async for one in scrub(storage, [slot_of(b.THREAD.thread)])]) == 9
    await storage.delete(b.THREAD, 1)
    assert [one async for one in scrub(storage, [slot_of(b.THREAD.thread)])] == []


async def test_an_event_without_what_it_rests_on_is_named(storage: Storage) -> None:
    await fill(storage)
    orphan = b.append(b.checkpoint_event("other", 2, checkpoint_id="c9"))
    await stored(storage, orphan)
    (said,) = await found_in(storage)
    assert str(orphan.entry.id) in said
    assert "rests on" in said
