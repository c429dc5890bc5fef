"""Reads all that a storage has, through the port, and says what of it is not whole.

Rules: nothing is changed; what is broken is said once, with its thread and record, and the rest is
read on. It sees one thread at a time, so it may run beside routers.
"""

from collections.abc import AsyncIterator, Iterable

from checkpoint_router.core import limits
from checkpoint_router.core.digests import event_digest
from checkpoint_router.core.errors import DataLoss
from checkpoint_router.core.history import History
from checkpoint_router.core.ids import ThreadKey
from checkpoint_router.core.records import Entry
from checkpoint_router.storage.codec import lost
from checkpoint_router.storage.port import Storage, ThreadImage, named

_AT_ONCE = 100
"""Threads of a slot that are named together."""


async def scrub(
    storage: Storage, slots: Iterable[int] = range(limits.SLOTS)
) -> AsyncIterator[DataLoss | None]:
    """One item for each record and value: None, or what is wrong with it. Raises Unavailable."""
    for slot in slots:
        after = None
        while page := await storage.slot_threads(slot, after, _AT_ONCE):
            for leaf, thread in page:
                after = (leaf, thread.tenant, thread.thread)
                async for found in scrub_thread(storage, thread):
                    yield found


async def scrub_thread(storage: Storage, thread: ThreadKey) -> AsyncIterator[DataLoss | None]:
    """The same for one thread: its index, that nothing in it lacks what it rests on, records and
    values, and that the lists over threads have it."""
    try:
        image = await storage.image(thread)
        held = History(thread, image.gen).fold(image.entries)
    except DataLoss as e:
        yield e
        return
    for entry in held:
        yield lost(thread, f"event {entry.id}", "what it rests on is not there")
    for entry in image.entries:
        if not entry.erased:
            yield await _record(storage, thread, image.gen, entry)
    async for found in _values(storage, thread, image):
        yield found
    if any(not e.erased for e in image.entries):
        yield await _listed(storage, thread)


async def _record(storage: Storage, thread: ThreadKey, gen: int, entry: Entry) -> DataLoss | None:
    try:
        read = await storage.events(thread, gen, [entry.id])
    except DataLoss as e:
        return e
    packed = read.get(entry.id)
    if packed is None or event_digest(packed) == entry.digest:
        return None  # pruned since, or whole
    return lost(thread, f"event {entry.id}", "it does not have the digest in its index entry")


async def _values(
    storage: Storage, thread: ThreadKey, image: ThreadImage
) -> AsyncIterator[DataLoss | None]:
    seen: set[bytes] = set()
    for entry in image.entries:
        try:
            read = await storage.events(thread, image.gen, [entry.id])
        except DataLoss:
            continue  # said already
        for hash in named(read.values()):
            if hash not in seen:
                seen.add(hash)
                yield await _value(storage, thread, image.gen, entry, hash)


async def _value(
    storage: Storage, thread: ThreadKey, gen: int, entry: Entry, hash: bytes
) -> DataLoss | None:
    try:
        if (await storage.blobs(thread, gen, [hash], 0)).found:
            return None
        if entry.id not in await storage.events(thread, gen, [entry.id]):
            return None  # pruned since, and its values with it
    except DataLoss as e:
        return e
    return lost(
        thread, f"value {hash.hex()[:16]}", f"event {entry.id} names it, and it is not there"
    )


async def _listed(storage: Storage, thread: ThreadKey) -> DataLoss | None:
    before = thread.thread[:-1]
    while page := await storage.threads(thread.tenant, before, _AT_ONCE):
        if thread.thread in page:
            return None
        if page[-1] > thread.thread:
            break
        before = page[-1]
    if any(not e.erased for e in (await storage.image(thread)).entries):
        return lost(thread, "its name", "the list of its tenant's threads does not have it")
    return None
