"""What a router asks of every event before anything else sees it, however it was written down.

Each check names the field, what it has, and what it may have. On the path of every put, so the
usual case of a name is tested in place.
"""

from typing import Final

from checkpoint_router.core import limits
from checkpoint_router.core.clock import checked_ranges
from checkpoint_router.core.ids import HASH_BYTES, EventId, checked_segment
from checkpoint_router.core.records import (
    Blob,
    Checkpoint,
    Content,
    Event,
    Header,
    MetadataEntry,
    Typed,
    WriteSet,
)
from checkpoint_router.wire.checks import (
    checked_hash,
    checked_integer,
    checked_json,
    checked_name,
    checked_path,
    checked_size,
    invalid,
)

_ROW_INDEX_MAX: Final = 2**31 - 1


def checked_event(event: Event) -> Event:
    """`event`, if a router may take it. Raises InvalidArgument or LimitExceeded."""
    _id(event.id, "event.id")
    checked_name("event.checkpoint_ns", event.ns, empty=True)
    checked_name("event.checkpoint_id", event.checkpoint_id)
    if not checked_integer("event.generation", event.gen):
        raise invalid("event.generation", "is 0; generations count from 1.")
    checked_integer("event.term", event.term)
    checked_integer("event.hlc", event.hlc)
    if event.after:
        checked_ranges(event.after, what="event.after")
    if event.header is not None:
        _header(event.header)
    if isinstance(event.content, Checkpoint):
        _checkpoint(event.content)
    else:
        _write_set(event.content)
    return event


def _id(id: EventId, what: str) -> None:
    if not 0 < id.index <= limits.INDEX_MAX:
        raise invalid(f"{what}.index", f"is {id.index}; indices go from 1 to {limits.INDEX_MAX}.")
    checked_segment(id.segment)


def _header(header: Header) -> None:
    checked_size("event.header.token", len(header.token), limits.TOKEN_BYTES_MAX)
    checked_size("event.header.gives_up", len(header.gives_up), limits.GIVEN_UP_MAX, "events")
    for id in header.gives_up:
        _id(id, "event.header.gives_up")


def _checkpoint(checkpoint: Checkpoint) -> None:
    checked_size("checkpoint.body", len(checkpoint.body.data), limits.BODY_BYTES_MAX)
    checked_size("checkpoint.body.type", len(checkpoint.body.tag), limits.TYPE_BYTES_MAX)
    manifest = checkpoint.manifest
    checked_size("checkpoint.manifest", len(manifest), limits.MANIFEST_ENTRIES_MAX, "channels")
    names = set()
    for entry in manifest:
        names.add(checked_name("manifest.channel", entry.channel, empty=True))
        version = entry.version
        if type(version) is str:
            if len(version) > limits.TYPE_BYTES_MAX:
                checked_size("manifest.version", len(version), limits.TYPE_BYTES_MAX, "characters")
        elif type(version) is int and version > limits.INTEGER_MAX:
            checked_integer("manifest.version", version)
        _content(entry.content, "manifest")
    if len(names) != len(manifest):
        raise invalid("checkpoint.manifest", "names a channel twice.")
    if checkpoint.parent_id:
        checked_name("parent_id", checkpoint.parent_id)
    _metadata(checkpoint.metadata)


def _metadata(metadata: tuple[MetadataEntry, ...]) -> None:
    size = 0
    names = set()
    for entry in metadata:
        value = entry.value
        if isinstance(value, Typed):
            size += len(value.data)
            checked_size("metadata.type", len(value.tag), limits.TYPE_BYTES_MAX)
        else:
            size += len(value)
            checked_json("metadata.json", value)
        size += len(entry.key)
        names.add(entry.key)
    checked_size("metadata", size, limits.METADATA_BYTES_MAX)
    if len(names) != len(metadata):
        raise invalid("metadata", "names a key twice.")


def _write_set(writes: WriteSet) -> None:
    tasks = writes.tasks
    if not tasks:
        raise invalid("write_set.tasks", "is empty; a write set is what at least one task wrote.")
    checked_size("write_set.tasks", len(tasks), limits.WRITE_TASKS_MAX, "tasks")
    rows = sum(len(task.rows) for task in tasks)
    checked_size("write_set.rows", rows, limits.WRITE_ROWS_MAX, "rows")
    for task in tasks:
        checked_name("tasks.task_id", task.task_id, empty=True)
        checked_path(task.task_path)
        for row in task.rows:
            if not -_ROW_INDEX_MAX - 1 <= row.idx <= _ROW_INDEX_MAX:
                raise invalid("rows.index", f"is {row.idx}, which 32 bits cannot hold.")
            checked_name("rows.channel", row.channel, empty=True)
            _content(row.content, "rows")


def _content(content: Content, what: str) -> None:
    if type(content) is Blob:
        if len(content.hash) != HASH_BYTES:
            checked_hash(f"{what}.blob", content.hash)
    elif type(content) is Typed:
        checked_size(f"{what}.inline", len(content.data), limits.INLINE_BYTES_MAX)
        checked_size(f"{what}.inline.type", len(content.tag), limits.TYPE_BYTES_MAX)
