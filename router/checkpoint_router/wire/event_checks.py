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
    are_plain,
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
    if event.ns:
        checked_name("event.checkpoint_ns", event.ns)
    checked_name("event.checkpoint_id", event.checkpoint_id)
    gen, term, hlc, after = event.gen, event.term, event.hlc, event.after
    if not 0 < gen <= limits.INTEGER_MAX and not checked_integer("event.generation", gen):
        raise invalid("event.generation", "is 0; generations count from 1.")
    if not 0 <= term <= limits.INTEGER_MAX:
        checked_integer("event.term", term)
    if not 0 <= hlc <= limits.INTEGER_MAX:
        checked_integer("event.hlc", hlc)
    if after and not (len(after) == 1 and 1 <= after[0][0] <= after[0][1] <= limits.INDEX_MAX):
        checked_ranges(after, what="event.after")
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
    body, manifest = checkpoint.body, checkpoint.manifest
    checked_size("checkpoint.body", len(body.data), limits.BODY_BYTES_MAX)
    checked_size("checkpoint.body.type", len(body.tag), limits.TYPE_BYTES_MAX)
    checked_size("checkpoint.manifest", len(manifest), limits.MANIFEST_ENTRIES_MAX, "channels")
    channels = [entry.channel for entry in manifest]
    plain = are_plain(channels)
    for entry in manifest:
        version, content = entry.version, entry.content
        if not plain:
            checked_name("manifest.channel", entry.channel, empty=True)
        if type(version) is str:
            if len(version) > limits.TYPE_BYTES_MAX:
                checked_size("manifest.version", len(version), limits.TYPE_BYTES_MAX, "characters")
        elif type(version) is int and version > limits.INTEGER_MAX:
            checked_integer("manifest.version", version)
        if type(content) is not Blob or len(content.hash) != HASH_BYTES:
            _content(content, "manifest")
    if len(set(channels)) != len(channels):
        raise invalid("checkpoint.manifest", "names a channel twice.")
    if checkpoint.parent_id:
        checked_name("parent_id", checkpoint.parent_id)
    _metadata(checkpoint.metadata)


def _metadata(metadata: tuple[MetadataEntry, ...]) -> None:
    size = 0
    for entry in metadata:
        value = entry.value
        if type(value) is str:
            size += len(value)
            checked_json("metadata.json", value)
        elif type(value) is Typed:
            size += len(value.data)
            checked_size("metadata.type", len(value.tag), limits.TYPE_BYTES_MAX)
    keys = [entry.key for entry in metadata]
    checked_size("metadata", size + len("".join(keys)), limits.METADATA_BYTES_MAX)
    if len(set(keys)) != len(keys):
        raise invalid("metadata", "names a key twice.")


def _write_set(writes: WriteSet) -> None:
    tasks = writes.tasks
    if not tasks:
        raise invalid("write_set.tasks", "is empty; a write set is what at least one task wrote.")
    checked_size("write_set.tasks", len(tasks), limits.WRITE_TASKS_MAX, "tasks")
    rows = sum([len(task.rows) for task in tasks])
    checked_size("write_set.rows", rows, limits.WRITE_ROWS_MAX, "rows")
    for task in tasks:
        checked_name("tasks.task_id", task.task_id, empty=True)
        if task.task_path:
            checked_path(task.task_path)
        plain = are_plain([row.channel for row in task.rows])
        for row in task.rows:
            if not -_ROW_INDEX_MAX - 1 <= row.idx <= _ROW_INDEX_MAX:
                raise invalid("rows.index", f"is {row.idx}, which 32 bits cannot hold.")
            if not plain:
                checked_name("rows.channel", row.channel, empty=True)
            _content(row.content, "rows")


def _content(content: Content, what: str) -> None:
    if type(content) is Blob:
        if len(content.hash) != HASH_BYTES:
            checked_hash(f"{what}.blob", content.hash)
    elif type(content) is Typed:
        if len(content.data) > limits.INLINE_BYTES_MAX:
            checked_size(f"{what}.inline", len(content.data), limits.INLINE_BYTES_MAX)
        if len(content.tag) > limits.TYPE_BYTES_MAX:
            checked_size(f"{what}.inline.type", len(content.tag), limits.TYPE_BYTES_MAX)
