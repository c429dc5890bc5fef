"""What is stored: values, checkpoints, write sets, and the event that wraps one of them.

The client fixes every byte of an event before its first try; no router adds any. An event has
one canonical form, a msgpack array of fields in a fixed order with the shortest encodings: its
digest is taken over that form and storages keep that form, so it is made once on each side.
"""

import json
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

import ormsgpack

from checkpoint_router.core.clock import Ranges
from checkpoint_router.core.digests import content_digest
from checkpoint_router.core.errors import DataLoss
from checkpoint_router.core.ids import EventId, SegmentId

RESUME: Final = "__resume__"
"""LangGraph's channel for the answer to an interrupt."""


class Kind(IntEnum):
    """What an event wraps. 3 is kept for the resolution of a conflict."""

    CHECKPOINT = 1
    WRITES = 2


@dataclass(frozen=True, slots=True)
class Typed:
    """A serialised value: the serialiser's own tag, carried verbatim, and its bytes."""

    tag: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Blob:
    """A value that stands in a row of its own, by its content's hash (32 bytes)."""

    hash: bytes


@dataclass(frozen=True, slots=True)
class Empty:
    """The channel holds nothing at this version: it reads back as absent, not as None."""


@dataclass(frozen=True, slots=True)
class ByVersion:
    """The value that this channel had at this version, on the lineage of the event."""


Content = Typed | Blob | Empty | ByVersion
EMPTY: Final = Empty()
BY_VERSION: Final = ByVersion()

Version = str | int | float | None
"""A channel's version; None for a value that was stored without one."""


@dataclass(frozen=True, slots=True)
class ChannelEntry:
    """One line of a checkpoint's manifest."""

    channel: str
    version: Version
    content: Content


@dataclass(frozen=True, slots=True)
class MetadataEntry:
    """One top-level metadata key: JSON text, which filters can look into, or an opaque value."""

    key: str
    value: str | Typed


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A checkpoint without its channel values."""

    parent_id: str | None
    body: Typed
    """The serialised checkpoint less `channel_values` and `channel_versions`."""
    manifest: tuple[ChannelEntry, ...]
    metadata: tuple[MetadataEntry, ...]


@dataclass(frozen=True, slots=True)
class WriteRow:
    """One pending write. `idx` < 0: a special channel, the last write of which wins."""

    idx: int
    channel: str
    content: Content


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteSet:
    """The rows of one `put_writes` call."""

    task_path: str
    rows: tuple[WriteRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """How a segment came to be. It travels with every event that was sent before one of the
    segment was acknowledged."""

    token: bytes
    """The read part of the causal token, as the router made it (`core.token`)."""
    gives_up: tuple[EventId, ...] = ()
    """Calls that this process gave up, in runs that have ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One checkpoint or one write set, with its place in the causal order."""

    id: EventId
    ns: str
    checkpoint_id: str
    task_id: str
    """Empty for a checkpoint."""
    gen: int
    term: int
    hlc: int
    after: Ranges
    """Own indices that were acknowledged when this event was first sent."""
    header: Header | None
    content: Checkpoint | WriteSet

    @property
    def kind(self) -> Kind:
        """What the event wraps."""
        return Kind.CHECKPOINT if isinstance(self.content, Checkpoint) else Kind.WRITES

    def blobs(self) -> tuple[bytes, ...]:
        """Hashes of the blobs that the event names, each once, in order."""
        parts = self.content.manifest if isinstance(self.content, Checkpoint) else self.content.rows
        return tuple(dict.fromkeys(p.content.hash for p in parts if isinstance(p.content, Blob)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What the causal core needs of an event: everything but its payload."""

    id: EventId
    kind: Kind
    ns: str
    checkpoint_id: str
    task_id: str
    task_path: str
    parent_id: str | None
    run_id: str | None
    """Metadata `run_id` of a checkpoint, for `delete_for_runs`."""
    term: int
    hlc: int
    after: Ranges
    header: Header | None
    digest: bytes
    content: bytes
    """Digest of the content alone, to tell a repeat from another checkpoint of the same id."""
    answer: bytes
    """Digest of the `__resume__` rows of a write set; empty if there is none."""
    erased: bool = False
    """Pruned: the event still counts as known, but is no longer shown."""


def pack_event(event: Event) -> bytes:
    """The canonical bytes of `event`."""
    header = event.header
    return ormsgpack.packb(
        (
            event.id.segment,
            event.id.index,
            event.ns,
            event.checkpoint_id,
            event.task_id,
            event.gen,
            event.term,
            event.hlc,
            event.after,
            None if header is None else (header.token, _ids(header.gives_up)),
            # On its own, so that its digest can be taken without packing it again.
            ormsgpack.packb(
                _checkpoint(event.content)
                if isinstance(event.content, Checkpoint)
                else _write_set(event.content)
            ),
        )
    )


def unpack_event(packed: bytes) -> Event:
    """The event whose canonical bytes `packed` are. Raises DataLoss if they are none."""
    try:
        fields = ormsgpack.unpackb(packed)
        seg, index, ns, cid, task, gen, term, hlc, after, header, content = fields
        return Event(
            id=EventId(SegmentId(seg), index),
            ns=ns,
            checkpoint_id=cid,
            task_id=task,
            gen=gen,
            term=term,
            hlc=hlc,
            after=_pairs(after),
            header=_header(header),
            content=_content(ormsgpack.unpackb(content)),
        )
    except (ormsgpack.MsgpackDecodeError, ValueError, TypeError, KeyError, IndexError) as e:
        raise DataLoss(f"a stored event cannot be read: {e}") from None


def entry_of(event: Event, packed: bytes, digest: bytes) -> Entry:
    """The index entry of `event`, whose canonical bytes and digest are given."""
    content = event.content
    task_path, parent_id, run_id, answer = "", None, None, b""
    if isinstance(content, Checkpoint):
        parent_id, run_id = content.parent_id, _run_id(content)
    else:
        task_path, answer = content.task_path, _answer(content)
    return Entry(
        id=event.id,
        kind=event.kind,
        ns=event.ns,
        checkpoint_id=event.checkpoint_id,
        task_id=event.task_id,
        task_path=task_path,
        parent_id=parent_id,
        run_id=run_id,
        term=event.term,
        hlc=event.hlc,
        after=event.after,
        header=event.header,
        digest=digest,
        content=content_digest(ormsgpack.unpackb(packed)[-1]),
        answer=answer,
    )


def pack_entry(entry: Entry) -> bytes:
    """`entry` as bytes, for a storage's index."""
    header = entry.header
    return ormsgpack.packb(
        (
            entry.id.segment,
            entry.id.index,
            int(entry.kind),
            entry.ns,
            entry.checkpoint_id,
            entry.task_id,
            entry.task_path,
            entry.parent_id,
            entry.run_id,
            entry.term,
            entry.hlc,
            entry.after,
            None if header is None else (header.token, _ids(header.gives_up)),
            entry.digest,
            entry.content,
            entry.answer,
            entry.erased,
        )
    )


def unpack_entry(packed: bytes) -> Entry:
    """The entry whose bytes `packed` are. Raises DataLoss if they are none."""
    try:
        (seg, index, kind, ns, cid, task, path, parent, run, term, hlc, after, header, digest,
         content, answer, erased) = ormsgpack.unpackb(packed)  # fmt: skip
        return Entry(
            id=EventId(SegmentId(seg), index),
            kind=Kind(kind),
            ns=ns,
            checkpoint_id=cid,
            task_id=task,
            task_path=path,
            parent_id=parent,
            run_id=run,
            term=term,
            hlc=hlc,
            after=_pairs(after),
            header=_header(header),
            digest=digest,
            content=content,
            answer=answer,
            erased=erased,
        )
    except (ormsgpack.MsgpackDecodeError, ValueError, TypeError) as e:
        raise DataLoss(f"a stored index entry cannot be read: {e}") from None


def _pairs(value: Any) -> Ranges:
    return tuple((first, last) for first, last in value)


def _ids(ids: tuple[EventId, ...]) -> tuple[tuple[bytes, int], ...]:
    return tuple((i.segment, i.index) for i in ids)


def _header(value: Any) -> Header | None:
    if value is None:
        return None
    token, gives_up = value
    return Header(token=token, gives_up=tuple(EventId(SegmentId(s), i) for s, i in gives_up))


def _packed_content(content: Content) -> Any:
    if isinstance(content, Blob):
        return content.hash
    if isinstance(content, Typed):
        return (content.tag, content.data)
    return None if isinstance(content, Empty) else True


def _unpacked_content(value: Any) -> Content:
    if isinstance(value, bytes):
        return Blob(value)
    if value is None:
        return EMPTY
    if value is True:
        return BY_VERSION
    tag, data = value
    return Typed(tag, data)


def _checkpoint(c: Checkpoint) -> Any:
    return (
        1,
        c.parent_id,
        (c.body.tag, c.body.data),
        tuple((e.channel, e.version, _packed_content(e.content)) for e in c.manifest),
        tuple(
            (m.key, m.value if isinstance(m.value, str) else (m.value.tag, m.value.data))
            for m in c.metadata
        ),
    )


def _write_set(w: WriteSet) -> Any:
    return (2, w.task_path, tuple((r.idx, r.channel, _packed_content(r.content)) for r in w.rows))


def _content(value: Any) -> Checkpoint | WriteSet:
    if value[0] == 2:
        _, path, rows = value
        return WriteSet(
            task_path=path, rows=tuple(WriteRow(i, c, _unpacked_content(x)) for i, c, x in rows)
        )
    if value[0] != 1:
        raise ValueError(f"unknown kind of content {value[0]!r}")
    _, parent, body, manifest, metadata = value
    return Checkpoint(
        parent_id=parent,
        body=Typed(*body),
        manifest=tuple(ChannelEntry(c, v, _unpacked_content(x)) for c, v, x in manifest),
        metadata=tuple(
            MetadataEntry(k, v if isinstance(v, str) else Typed(*v)) for k, v in metadata
        ),
    )


def _run_id(c: Checkpoint) -> str | None:
    for m in c.metadata:
        if m.key == "run_id" and isinstance(m.value, str):
            value = json.loads(m.value)
            return value if isinstance(value, str) else None
    return None


def _answer(w: WriteSet) -> bytes:
    rows = tuple(_packed_content(r.content) for r in w.rows if r.channel == RESUME)
    return content_digest(ormsgpack.packb(rows)) if rows else b""
