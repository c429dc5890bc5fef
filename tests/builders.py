"""Values for tests, made with as few words as the test needs: threads, blobs, events, appends.

Rules: everything is a pure function of its arguments, so a test that builds a thing twice has the
same bytes twice. Segments are named by short texts ("s1"), checkpoints by any id.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b

from checkpoint_router.core.answers import NewBlob
from checkpoint_router.core.clock import Frontier, Ranges, checked_frontier, ranges_of
from checkpoint_router.core.digests import blob_hash, event_digest, thread_hash
from checkpoint_router.core.ids import EventId, SegmentId, ThreadKey
from checkpoint_router.core.records import (
    Blob,
    ChannelEntry,
    Checkpoint,
    Entry,
    Event,
    Header,
    MetadataEntry,
    TaskWrites,
    Typed,
    WriteRow,
    WriteSet,
    entry_of,
    pack_event,
)
from checkpoint_router.core.token import Base, Cut, ReadToken, seal
from checkpoint_router.storage.port import Append

KEY = bytes(32)
"""The key under which `token` seals."""

THREAD = ThreadKey("acme", "t1")

FIRST_HLC = 1 << 40


def segment(name: str) -> SegmentId:
    """16 bytes that stand for `name`."""
    return SegmentId(blake2b(name.encode(), digest_size=16).digest())


def event_id(name: str, index: int = 1) -> EventId:
    """Event `index` of the segment called `name`."""
    return EventId(segment(name), index)


def token(
    thread: ThreadKey = THREAD,
    *,
    gen: int = 1,
    seen: Mapping[str, Iterable[int]] | None = None,
    base: str | None = None,
    cut: EventId | None = None,
    cut_ns: str = "",
    hlc: int = 0,
    term: int = 0,
    key: bytes = KEY,
) -> bytes:
    """A sealed read token; `seen` maps segment names to the indices that the run knew."""
    frontier: Frontier = checked_frontier(
        sorted((segment(name), ranges_of(known)) for name, known in (seen or {}).items())
    )
    return seal(
        ReadToken(
            thread=thread_hash(thread),
            gen=gen,
            base=None
            if base is None
            else Base(segment=segment(base), cuts=() if cut is None else (Cut(cut_ns, cut),)),
            seen=frontier,
            hlc=hlc,
            term=term,
            epoch=0,
        ),
        key,
    )


def header(sealed: bytes | None = None, gives_up: tuple[EventId, ...] = ()) -> Header:
    """A header; by default that of a run which read an empty thread."""
    return Header(token=token() if sealed is None else sealed, gives_up=gives_up)


def new_blob(data: bytes | str, tag: str = "msgpack", continues: NewBlob | None = None) -> NewBlob:
    """A value on its way to storage, believed to continue another."""
    raw = data.encode() if isinstance(data, str) else data
    return NewBlob(
        hash=blob_hash(tag, raw),
        value=Typed(tag, raw),
        continues=None if continues is None else continues.hash,
    )


def checkpoint_event(
    name: str = "s1",
    index: int = 1,
    *,
    checkpoint_id: str = "c1",
    parent_id: str | None = None,
    ns: str = "",
    blobs: Sequence[NewBlob] = (),
    run_id: str | None = None,
    body: bytes = b"\x80",
    gen: int = 1,
    term: int = 0,
    hlc: int | None = None,
    after: Ranges = (),
    head: Header | None = None,
) -> Event:
    """A checkpoint; its channels are c0, c1 … with the values of `blobs`."""
    metadata = () if run_id is None else (MetadataEntry("run_id", json.dumps(run_id)),)
    return Event(
        id=event_id(name, index),
        ns=ns,
        checkpoint_id=checkpoint_id,
        gen=gen,
        term=term,
        hlc=FIRST_HLC + index if hlc is None else hlc,
        after=after,
        header=head,
        content=Checkpoint(
            parent_id=parent_id,
            body=Typed("msgpack", body),
            manifest=tuple(
                ChannelEntry(f"c{i}", f"{index}.{i}", Blob(b.hash)) for i, b in enumerate(blobs)
            ),
            metadata=metadata,
        ),
    )


def writes_event(
    name: str = "s1",
    index: int = 2,
    *,
    checkpoint_id: str = "c1",
    task_id: str = "task",
    task_path: str = "~__pregel_pull, node",
    ns: str = "",
    rows: Sequence[WriteRow] = (),
    gen: int = 1,
    term: int = 0,
    hlc: int | None = None,
    after: Ranges = (),
    head: Header | None = None,
) -> Event:
    """The rows of one `put_writes` call; one small inline row by default."""
    return Event(
        id=event_id(name, index),
        ns=ns,
        checkpoint_id=checkpoint_id,
        gen=gen,
        term=term,
        hlc=FIRST_HLC + index if hlc is None else hlc,
        after=after,
        header=head,
        content=WriteSet(
            tasks=(
                TaskWrites(
                    task_id=task_id,
                    task_path=task_path,
                    rows=tuple(rows) or (WriteRow(0, "messages", Typed("msgpack", b"\x01")),),
                ),
            )
        ),
    )


def entry(event: Event) -> Entry:
    """The index entry of `event`."""
    packed = pack_event(event)
    return entry_of(event, event_digest(packed))


def append(
    event: Event,
    *,
    thread: ThreadKey = THREAD,
    blobs: Sequence[NewBlob] = (),
    needs: tuple[tuple[SegmentId, Ranges], ...] = (),
) -> Append:
    """`event` as a storage is asked to take it, with `blobs` sent along."""
    packed = pack_event(event)
    return Append(
        thread=thread,
        gen=event.gen,
        entry=entry_of(event, event_digest(packed)),
        packed=packed,
        needs=needs,
        names=event.blobs(),
        blobs=tuple(blobs),
    )
