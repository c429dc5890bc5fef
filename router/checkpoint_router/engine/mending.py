"""What a shared storage lost that it had acknowledged, put back from what this router still holds.

Owner of nothing: it compares a history with the storage's image of it. Rules: an event goes back
with its own bytes, which its id and its digest prove, and only on top of all that it rests on;
what this router does not hold as a whole stays lost, and is said.
"""

from collections.abc import Sequence

from checkpoint_router.core.answers import NewBlob
from checkpoint_router.core.history import History
from checkpoint_router.core.ids import ThreadKey
from checkpoint_router.core.records import Entry, Event, pack_event
from checkpoint_router.core.token import parse
from checkpoint_router.engine.recent import Recent
from checkpoint_router.storage.port import Append, Duplicate, Storage, Stored, ThreadImage
from checkpoint_router.telemetry.logging import logger


def lost(history: History, have: int, image: ThreadImage) -> Sequence[Entry]:
    """Of the first `have` events of `history`, those that the storage should have and does not.
    Pruned ones have nothing to be put back."""
    if image.partial or image.gen > history.gen:
        return ()
    stored = {entry.id for entry in image.entries} if image.gen == history.gen else ()
    known = enumerate(history.entries[:have])
    return [e for p, e in known if e.id not in stored and not history.erased >> p & 1]


async def put_back(
    storage: Storage, history: History, gone: Sequence[Entry], recent: Recent
) -> None:
    """Stores again what of `gone` is still whole in `recent`. Raises what the storage raises."""
    thread = history.thread
    await storage.delete(thread, history.gen - 1)  # a delete that was lost, if it was
    image = await storage.image(thread)
    begun = {e.id.segment for e in image.entries if e.header is not None}
    back = 0
    for entry in gone:
        events = recent.events((entry.id,))
        if events is None or (entry.header is None and entry.id.segment not in begun):
            continue
        append = _append(thread, entry, events[entry.id], recent)
        if isinstance(await storage.append(append), Stored | Duplicate):
            begun.add(entry.id.segment)
            back += 1
    logger("engine").warning(
        "the storage lost acknowledged events of a thread",
        tenant=thread.tenant,
        thread=thread.thread,
        put_back=back,
        lost=len(gone) - back,
    )


def _append(thread: ThreadKey, entry: Entry, event: Event, recent: Recent) -> Append:
    seen = () if entry.header is None else parse(entry.header.token).seen
    names = event.blobs()
    found = ((h, recent.values((h,))) for h in names)
    return Append(
        thread=thread,
        gen=event.gen,
        entry=entry,
        packed=pack_event(event),
        needs=(*seen, *([(entry.id.segment, entry.after)] if entry.after else [])),
        names=names,
        blobs=tuple(NewBlob(hash=h, value=values[h]) for h, values in found if values),
    )
