"""What is stored: values, checkpoints, write sets, and the event that wraps one of them.

The client fixes every byte of an event before its first try; no router adds any. An event has
one canonical form, a msgpack array of fields in a fixed order with the shortest encodings: its
digest is taken over that form, a put carries that form, and storages keep it. The classes are
that form: a struct is an array of its fields as they stand here, behind the tag if it has one,
so a field that is moved or added is another format.
"""

import json
from collections.abc import Iterable
from enum import IntEnum
from typing import Final

import msgspec

from checkpoint_router.core.clock import Ranges
from checkpoint_router.core.digests import content_digest
from checkpoint_router.core.errors import DataLoss
from checkpoint_router.core.ids import EventId

RESUME: Final = "__resume__"
"""LangGraph's channel for the answer to an interrupt."""


class Kind(IntEnum):
    """What an event wraps. 3 is kept for the resolution of a conflict."""

    CHECKPOINT = 1
    WRITES = 2


class Typed(msgspec.Struct, frozen=True, array_like=True, tag=0, gc=False):
    """A serialised value: the serialiser's own tag, carried verbatim, and its bytes."""

    tag: str
    data: bytes


class Blob(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """A value that stands in a row of its own, by its content's hash (32 bytes)."""

    hash: bytes


class Empty(msgspec.Struct, frozen=True, array_like=True, tag=2, gc=False):
    """The channel holds nothing at this version: it reads back as absent, not as None."""


class ByVersion(msgspec.Struct, frozen=True, array_like=True, tag=3, gc=False):
    """The value that this channel had at this version, on the lineage of the event."""


Content = Typed | Blob | Empty | ByVersion
EMPTY: Final = Empty()
BY_VERSION: Final = ByVersion()

Version = str | int | float | None
"""A channel's version; None for a value that was stored without one."""


class ChannelEntry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One line of a checkpoint's manifest."""

    channel: str
    version: Version
    content: Content


class MetadataEntry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One top-level metadata key: JSON text, which filters can look into, or an opaque value."""

    key: str
    value: str | Typed


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag=1, gc=False):
    """A checkpoint without its channel values."""

    parent_id: str | None
    body: Typed
    """The serialised checkpoint less `channel_values` and `channel_versions`."""
    manifest: tuple[ChannelEntry, ...]
    metadata: tuple[MetadataEntry, ...]


class WriteRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One pending write. `idx` < 0: a special channel, the last write of which wins."""

    idx: int
    channel: str
    content: Content


class TaskWrites(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """The rows of one `put_writes` call."""

    task_id: str
    task_path: str
    rows: tuple[WriteRow, ...]


class WriteSet(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag=2, gc=False):
    """The writes of one or several tasks on one checkpoint, stored together: the calls of one run
    that came while another was on its way."""

    tasks: tuple[TaskWrites, ...]
    """In the order of the calls."""


class Header(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """How a segment came to be. It travels with every event that was sent before one of the
    segment was acknowledged."""

    token: bytes
    """The read part of the causal token, as the router made it (`core.token`)."""
    gives_up: tuple[EventId, ...] = ()
    """Calls that this process gave up, in runs that have ended."""


class Event(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """One checkpoint or one write set, with its place in the causal order."""

    id: EventId
    ns: str
    checkpoint_id: str
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
        content = self.content
        parts: Iterable[ChannelEntry | WriteRow]
        if isinstance(content, Checkpoint):
            parts = content.manifest
        else:
            parts = (row for task in content.tasks for row in task.rows)
        return tuple(dict.fromkeys([p.content.hash for p in parts if isinstance(p.content, Blob)]))


class TaskEntry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What the causal core needs of one task's writes."""

    task_id: str
    task_path: str
    answer: bytes
    """Digest of its `__resume__` rows; empty if there is none."""


class Entry(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """What the causal core needs of an event: everything but its payload."""

    id: EventId
    kind: Kind
    ns: str
    checkpoint_id: str
    tasks: tuple[TaskEntry, ...]
    """Of a write set."""
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
    erased: bool = False
    """Pruned: the event still counts as known, but is no longer shown."""


_ENCODER: Final = msgspec.msgpack.Encoder()
_EVENTS: Final = msgspec.msgpack.Decoder(Event)
_ENTRIES: Final = msgspec.msgpack.Decoder(Entry)


def pack_event(event: Event) -> bytes:
    """The canonical bytes of `event`. Raises UnicodeEncodeError or OverflowError for what has
    none."""
    return _ENCODER.encode(event)


def parse_event(packed: bytes) -> Event:
    """The event in `packed`. Raises ValueError if there is none. Whether the bytes are the
    canonical ones is not asked: `pack_event` gives those."""
    return _EVENTS.decode(packed)


def unpack_event(packed: bytes) -> Event:
    """As `parse_event`, of what a storage kept. Raises DataLoss."""
    try:
        return _EVENTS.decode(packed)
    except ValueError as e:
        raise DataLoss(f"a stored event cannot be read: {e}") from None


def entry_of(event: Event, digest: bytes) -> Entry:
    """The index entry of `event`, whose digest is given."""
    content = event.content
    tasks: tuple[TaskEntry, ...] = ()
    parent_id = run_id = None
    if isinstance(content, Checkpoint):
        parent_id, run_id = content.parent_id, _run_id(content)
    else:
        tasks = tuple(TaskEntry(t.task_id, t.task_path, _answer(t)) for t in content.tasks)
    return Entry(
        id=event.id,
        kind=event.kind,
        ns=event.ns,
        checkpoint_id=event.checkpoint_id,
        tasks=tasks,
        parent_id=parent_id,
        run_id=run_id,
        term=event.term,
        hlc=event.hlc,
        after=event.after,
        header=event.header,
        digest=digest,
        content=content_digest(_ENCODER.encode(content)),
    )


def pack_entry(entry: Entry) -> bytes:
    """`entry` as bytes, for a storage's index."""
    return _ENCODER.encode(entry)


def unpack_entry(packed: bytes) -> Entry:
    """The entry whose bytes `packed` are. Raises DataLoss if they are none."""
    try:
        return _ENTRIES.decode(packed)
    except ValueError as e:
        raise DataLoss(f"a stored index entry cannot be read: {e}") from None


def _run_id(c: Checkpoint) -> str | None:
    for m in c.metadata:
        if m.key == "run_id" and isinstance(m.value, str):
            value = json.loads(m.value)
            return value if isinstance(value, str) else None
    return None


def _answer(task: TaskWrites) -> bytes:
    rows = tuple(r.content for r in task.rows if r.channel == RESUME)
    return content_digest(_ENCODER.encode(rows)) if rows else b""
