"""Events and what they wrap: values, contents, versions, checkpoints, write sets, blobs.

On the path of every put and every read, so the usual cases come first and are not nested.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from checkpoint_router.core import limits
from checkpoint_router.core.clock import Ranges, checked_ranges
from checkpoint_router.core.errors import InvalidArgument
from checkpoint_router.core.ids import EventId, SegmentId, checked_id
from checkpoint_router.core.records import (
    BY_VERSION,
    EMPTY,
    Blob,
    ByVersion,
    ChannelEntry,
    Checkpoint,
    Content,
    Empty,
    Event,
    Header,
    MetadataEntry,
    TaskWrites,
    Typed,
    Version,
    WriteRow,
    WriteSet,
    pack_event,
    parse_event,
)
from checkpoint_router.v1 import types_pb2 as pb
from checkpoint_router.wire.checks import (
    invalid,
)
from checkpoint_router.wire.event_checks import checked_event

if TYPE_CHECKING:
    from google.protobuf.internal.containers import RepeatedCompositeFieldContainer as Repeated

DIGEST_BYTES: Final = 32
_INT64_MIN: Final = -(2**63)


def event_of(message: pb.Event) -> tuple[Event, bytes]:
    """The event in `message`, and its canonical bytes. Raises InvalidArgument or LimitExceeded,
    naming the field."""
    packed = message.packed
    if packed:
        return checked_event(_packed_event(packed)), packed
    event = checked_event(_event(message))
    return event, pack_event(event)


def _packed_event(packed: bytes) -> Event:
    try:
        event = parse_event(packed)
    except ValueError as e:
        raise invalid("event.packed", f"is no event: {e}.") from None
    if pack_event(event) != packed:
        raise invalid(
            "event.packed", "is not the canonical form of its event (docs/reference/encoding.md)."
        )
    return event


def _event(message: pb.Event) -> Event:
    kind = message.WhichOneof("content")
    content: Checkpoint | WriteSet
    if kind == "checkpoint":
        content = checkpoint_of(message.checkpoint)
    elif kind == "write_set":
        content = _write_set_of(message.write_set)
    else:
        raise invalid("event.content", "is no checkpoint and no write set.")
    return Event(
        id=EventId(SegmentId(message.id.segment), message.id.index),
        ns=message.checkpoint_ns,
        checkpoint_id=message.checkpoint_id,
        gen=message.generation,
        term=message.term,
        hlc=message.hlc,
        after=tuple((m.first, m.last) for m in message.after),
        header=_header_of(message.header) if message.HasField("header") else None,
        content=content,
    )


def packed_event(event: Event) -> bytes:
    """The canonical bytes of `event`. Raises InvalidArgument, naming what has no form there."""
    try:
        return pack_event(event)
    except (UnicodeEncodeError, OverflowError, TypeError) as e:
        _explain(event)
        raise InvalidArgument(f"the event cannot be encoded: {e}", field="event") from None


def digest_of(message: pb.Event) -> bytes | None:
    """The digest that rides with the event, if one does."""
    digest = message.digest
    if not digest:
        return None
    if len(digest) != DIGEST_BYTES:
        raise invalid("event.digest", f"has {len(digest)} bytes; a digest has {DIGEST_BYTES}.")
    return digest


def checkpoint_of(message: pb.Checkpoint) -> Checkpoint:
    """The checkpoint in `message`, as it stands there."""
    body = message.body
    manifest = []
    for entry in message.manifest:
        content, version = entry.content, entry.version
        blob, text = content.blob, version.text
        manifest.append(
            ChannelEntry(
                entry.channel,
                text or _version_of(version),
                Blob(blob) if blob else _content_of(content, "manifest"),
            )
        )
    return Checkpoint(
        parent_id=message.parent_id if message.HasField("parent_id") else None,
        body=Typed(body.type, body.data),
        manifest=tuple(manifest),
        metadata=metadata_of(message.metadata),
    )


def fill_checkpoint(message: pb.Checkpoint, checkpoint: Checkpoint) -> None:
    """Writes `checkpoint` into `message`."""
    if checkpoint.parent_id is not None:
        message.parent_id = checkpoint.parent_id
    fill_value(message.body, checkpoint.body)
    add = message.manifest.add
    for entry in checkpoint.manifest:
        line = add(channel=entry.channel)
        version = entry.version
        if type(version) is str:
            line.version.text = version
        elif version is not None:
            _fill_version(line.version, version, entry.channel)
        content = entry.content
        if type(content) is Blob:
            line.content.blob = content.hash
        else:
            fill_content(line.content, content)
    fill_metadata(message.metadata, checkpoint.metadata)


def metadata_of(entries: Sequence[pb.MetadataEntry]) -> tuple[MetadataEntry, ...]:
    """The metadata in `entries`, as it stands there."""
    out = []
    for entry in entries:
        key, text = entry.key, entry.json
        if text or entry.WhichOneof("value") == "json":
            out.append(MetadataEntry(key, text))
        elif entry.HasField("opaque"):
            out.append(MetadataEntry(key, Typed(entry.opaque.type, entry.opaque.data)))
        else:
            raise invalid("metadata.value", "has no kind that is known here.")
    return tuple(out)


def fill_metadata(
    messages: "Repeated[pb.MetadataEntry]", metadata: Iterable[MetadataEntry]
) -> None:
    """Writes `metadata` into the repeated field `messages`."""
    for entry in metadata:
        value = entry.value
        if isinstance(value, str):
            messages.add(key=entry.key, json=value)
        else:
            fill_value(messages.add(key=entry.key).opaque, value)


def content_of(message: pb.Content, what: str) -> Content:
    """What a channel holds, or a write wrote."""
    blob = message.blob
    return Blob(blob) if blob else _content_of(message, what)


def fill_content(message: pb.Content, content: Content) -> None:
    """Writes `content` into `message`."""
    match content:
        case Blob():
            message.blob = content.hash
        case Typed():
            fill_value(message.inline, content)
        case Empty():
            message.empty = True
        case ByVersion():
            message.by_version = True


def fill_value(message: pb.Value, value: Typed) -> None:
    """Writes `value` into `message`, also where both parts are empty."""
    message.SetInParent()
    message.type = value.tag
    message.data = value.data


def ranges_of(messages: Sequence[pb.IndexRange], what: str) -> Ranges:
    """The index ranges in `messages`."""
    return checked_ranges([(m.first, m.last) for m in messages], what=what) if messages else ()


def fill_ranges(messages: "Repeated[pb.IndexRange]", ranges: Ranges) -> None:
    """Writes `ranges` into the repeated field `messages`."""
    for first, last in ranges:
        messages.add(first=first, last=last)


def fill_event_id(message: pb.EventId, event: EventId) -> None:
    """Writes `event` into `message`."""
    message.segment = event.segment
    message.index = event.index


def _explain(event: Event) -> None:
    # The encoder says what it could not encode, not where it was: look for it among the names.
    content = event.content
    checked_id("checkpoint_ns", event.ns, empty=True)
    checked_id("checkpoint_id", event.checkpoint_id)
    if isinstance(content, WriteSet):
        for task in content.tasks:
            checked_id("task_id", task.task_id, empty=True)
            for row in task.rows:
                checked_id("channel", row.channel, empty=True)
        return
    checked_id("parent_id", content.parent_id or "", empty=True)
    for line in content.manifest:
        checked_id("channel", line.channel, empty=True)
    for entry in content.metadata:
        checked_id("metadata key", entry.key, empty=True)


def _write_set_of(message: pb.WriteSet) -> WriteSet:
    return WriteSet(
        tasks=tuple(
            TaskWrites(
                task_id=task.task_id,
                task_path=task.task_path,
                rows=tuple(
                    WriteRow(row.index, row.channel, content_of(row.content, "rows"))
                    for row in task.rows
                ),
            )
            for task in message.tasks
        )
    )


def _header_of(message: pb.Header) -> Header:
    return Header(
        token=message.token,
        gives_up=tuple(EventId(SegmentId(m.segment), m.index) for m in message.gives_up),
    )


def _version_of(message: pb.Version) -> Version:
    match message.WhichOneof("kind"):
        case "text":
            return message.text
        case "integer":
            return message.integer
        case "real":
            return message.real
        case _:
            return None


def _fill_version(message: pb.Version, version: Version, channel: str) -> None:
    if isinstance(version, str):
        message.text = version
    elif isinstance(version, float):
        message.real = version
    elif isinstance(version, int):
        if not _INT64_MIN <= version <= limits.INTEGER_MAX:
            raise InvalidArgument(
                f"the version of channel {channel!r} does not fit into 64 bits: {version:.3e}. "
                f"Nothing was written. Let get_next_version make smaller numbers, or text.",
                field="version",
                channel=channel,
            )
        message.integer = version
    else:
        raise InvalidArgument(
            f"the version of channel {channel!r} is a {type(version).__name__}; versions are "
            f"text, integers or floats. Nothing was written.",
            field="version",
            channel=channel,
        )


def _content_of(message: pb.Content, what: str) -> Content:
    match message.WhichOneof("kind"):
        case "inline":
            return Typed(message.inline.type, message.inline.data)
        case "blob":
            return Blob(message.blob)
        case "empty" if message.empty:
            return EMPTY
        case "by_version" if message.by_version:
            return BY_VERSION
    raise invalid(f"{what}.content", "has no kind that is known here.")
