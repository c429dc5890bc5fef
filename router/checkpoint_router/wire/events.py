"""Events and what they wrap: values, contents, versions, checkpoints, write sets, blobs.

On the path of every put and every read, so the usual cases come first and are not nested.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from checkpoint_router.core import limits
from checkpoint_router.core.answers import NewBlob
from checkpoint_router.core.clock import Ranges, checked_ranges
from checkpoint_router.core.errors import InvalidArgument
from checkpoint_router.core.ids import HASH_BYTES, EventId, checked_id
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
    Typed,
    Version,
    WriteRow,
    WriteSet,
)
from checkpoint_router.v1 import types_pb2 as pb
from checkpoint_router.wire.checks import (
    checked_event_id,
    checked_hash,
    checked_integer,
    checked_json,
    checked_name,
    checked_size,
    invalid,
)

if TYPE_CHECKING:
    from google.protobuf.internal.containers import RepeatedCompositeFieldContainer as Repeated

DIGEST_BYTES: Final = 32
_INT64_MIN: Final = -(2**63)


def event_of(message: pb.Event) -> Event:
    """The event in `message`. Raises InvalidArgument or LimitExceeded, naming the field."""
    kind = message.WhichOneof("content")
    content: Checkpoint | WriteSet
    if kind == "checkpoint":
        content = checkpoint_of(message.checkpoint)
        if message.task_id:
            raise invalid("event.task_id", "is set for a checkpoint, which belongs to no task.")
        task_id = ""
    elif kind == "write_set":
        content = write_set_of(message.write_set)
        task_id = checked_name("event.task_id", message.task_id, empty=True)
    else:
        raise invalid("event.content", "is no checkpoint and no write set.")
    if not message.generation:
        raise invalid("event.generation", "is 0; generations count from 1.")
    return Event(
        id=checked_event_id(message.id),
        ns=checked_name("event.checkpoint_ns", message.checkpoint_ns, empty=True),
        checkpoint_id=checked_name("event.checkpoint_id", message.checkpoint_id),
        task_id=task_id,
        gen=checked_integer("event.generation", message.generation),
        term=checked_integer("event.term", message.term),
        hlc=checked_integer("event.hlc", message.hlc),
        after=ranges_of(message.after, "event.after"),
        header=_header_of(message.header) if message.HasField("header") else None,
        content=content,
    )


def fill_event(message: pb.Event, event: Event, digest: bytes | None = None) -> None:
    """Writes `event` into `message`. Raises InvalidArgument for what has no form there."""
    try:
        _fill_event(message, event)
    except (UnicodeEncodeError, ValueError, TypeError) as e:
        if isinstance(e, InvalidArgument):
            raise
        _explain(event)
        raise InvalidArgument(f"the event cannot be encoded: {e}", field="event") from None
    if digest is not None:
        message.digest = digest


def digest_of(message: pb.Event) -> bytes | None:
    """The digest that rides with the event, if one does."""
    digest = message.digest
    if not digest:
        return None
    if len(digest) != DIGEST_BYTES:
        raise invalid("event.digest", f"has {len(digest)} bytes; a digest has {DIGEST_BYTES}.")
    return digest


def checkpoint_of(message: pb.Checkpoint) -> Checkpoint:
    """The checkpoint in `message`."""
    body = message.body
    checked_size("checkpoint.body", len(body.data), limits.BODY_BYTES_MAX)
    checked_size("checkpoint.body.type", len(body.type), limits.TYPE_BYTES_MAX)
    entries = message.manifest
    checked_size("checkpoint.manifest", len(entries), limits.MANIFEST_ENTRIES_MAX, "channels")
    manifest = []
    for entry in entries:
        content, version = entry.content, entry.version
        blob, text = content.blob, version.text
        manifest.append(
            ChannelEntry(
                checked_name("manifest.channel", entry.channel, empty=True),
                text if 0 < len(text) <= limits.TYPE_BYTES_MAX else _version_of(version),
                Blob(blob) if len(blob) == HASH_BYTES else _content_of(content, "manifest"),
            )
        )
    if len({e.channel for e in manifest}) != len(manifest):
        raise invalid("checkpoint.manifest", "names a channel twice.")
    return Checkpoint(
        parent_id=checked_name("parent_id", message.parent_id, empty=True)
        if message.HasField("parent_id")
        else None,
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


def write_set_of(message: pb.WriteSet) -> WriteSet:
    """The write set in `message`."""
    rows = message.rows
    checked_size("write_set.rows", len(rows), limits.WRITE_ROWS_MAX, "rows")
    return WriteSet(
        task_path=checked_path(message.task_path),
        rows=tuple(
            WriteRow(
                row.index,
                checked_name("rows.channel", row.channel, empty=True),
                content_of(row.content, "rows"),
            )
            for row in rows
        ),
    )


def fill_write_set(message: pb.WriteSet, write_set: WriteSet) -> None:
    """Writes `write_set` into `message`, also where it is empty."""
    message.SetInParent()
    message.task_path = write_set.task_path
    add = message.rows.add
    for row in write_set.rows:
        fill_content(add(index=row.idx, channel=row.channel).content, row.content)


def checked_path(path: str) -> str:
    """`path` if it is short enough for a task path."""
    if len(path) * 4 > limits.TASK_PATH_BYTES_MAX:
        checked_size("task_path", len(path.encode()), limits.TASK_PATH_BYTES_MAX)
    return path


def metadata_of(entries: Sequence[pb.MetadataEntry]) -> tuple[MetadataEntry, ...]:
    """The metadata in `entries`."""
    out = []
    size = 0
    for entry in entries:
        key, text = entry.key, entry.json
        if text or entry.WhichOneof("value") == "json":
            size += len(text)
            out.append(MetadataEntry(key, checked_json("metadata.json", text)))
        elif entry.HasField("opaque"):
            value = entry.opaque
            size += len(value.data)
            checked_size("metadata.type", len(value.type), limits.TYPE_BYTES_MAX)
            out.append(MetadataEntry(key, Typed(value.type, value.data)))
        else:
            raise invalid("metadata.value", "has no kind that is known here.")
        size += len(key)
    checked_size("metadata", size, limits.METADATA_BYTES_MAX)
    if len({m.key for m in out}) != len(out):
        raise invalid("metadata", "names a key twice.")
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
    return Blob(blob) if len(blob) == HASH_BYTES else _content_of(message, what)


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


def blobs_of(messages: Sequence[pb.Blob]) -> tuple[NewBlob, ...]:
    """The blobs that ride in a request. Whether a hash is that of its value is not asked here."""
    checked_size("blobs", len(messages), limits.BLOBS_PER_CALL_MAX, "blobs")
    out = []
    for message in messages:
        value, continues = message.value, message.continues
        checked_size("blobs.value", len(value.data), limits.BLOB_BYTES_MAX)
        checked_size("blobs.value.type", len(value.type), limits.TYPE_BYTES_MAX)
        out.append(
            NewBlob(
                hash=checked_hash("blobs.hash", message.hash),
                value=Typed(value.type, value.data),
                continues=checked_hash("blobs.continues", continues) if continues else None,
            )
        )
    return tuple(out)


def fill_blobs(messages: "Repeated[pb.Blob]", blobs: Iterable[NewBlob]) -> None:
    """Writes `blobs` into the repeated field `messages`."""
    for blob in blobs:
        message = messages.add(hash=blob.hash)
        fill_value(message.value, blob.value)
        if blob.continues is not None:
            message.continues = blob.continues


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


def _fill_event(message: pb.Event, event: Event) -> None:
    fill_event_id(message.id, event.id)
    message.checkpoint_ns = event.ns
    message.checkpoint_id = event.checkpoint_id
    message.task_id = event.task_id
    message.generation = event.gen
    message.term = event.term
    message.hlc = event.hlc
    if event.after:
        fill_ranges(message.after, event.after)
    if event.header is not None:
        message.header.token = event.header.token
        for given_up in event.header.gives_up:
            fill_event_id(message.header.gives_up.add(), given_up)
    if isinstance(event.content, Checkpoint):
        fill_checkpoint(message.checkpoint, event.content)
    else:
        fill_write_set(message.write_set, event.content)


def _explain(event: Event) -> None:
    # The encoder says what it could not encode, not where it was: look for it among the names.
    content = event.content
    checked_id("checkpoint_ns", event.ns, empty=True)
    checked_id("checkpoint_id", event.checkpoint_id)
    checked_id("task_id", event.task_id, empty=True)
    parts = content.manifest if isinstance(content, Checkpoint) else content.rows
    for part in parts:
        checked_id("channel", part.channel, empty=True)
    if isinstance(content, Checkpoint):
        checked_id("parent_id", content.parent_id or "", empty=True)
        for entry in content.metadata:
            checked_id("metadata key", entry.key, empty=True)


def _header_of(message: pb.Header) -> Header:
    checked_size("event.header.token", len(message.token), limits.TOKEN_BYTES_MAX)
    checked_size("event.header.gives_up", len(message.gives_up), limits.GIVEN_UP_MAX, "events")
    return Header(
        token=message.token,
        gives_up=tuple(checked_event_id(m, "event.header.gives_up") for m in message.gives_up),
    )


def _version_of(message: pb.Version) -> Version:
    match message.WhichOneof("kind"):
        case "text":
            checked_size("manifest.version", len(message.text), limits.TYPE_BYTES_MAX, "characters")
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
            value = message.inline
            checked_size(f"{what}.inline", len(value.data), limits.INLINE_BYTES_MAX)
            checked_size(f"{what}.inline.type", len(value.type), limits.TYPE_BYTES_MAX)
            return Typed(value.type, value.data)
        case "blob":
            return Blob(checked_hash(f"{what}.blob", message.blob))
        case "empty" if message.empty:
            return EMPTY
        case "by_version" if message.by_version:
            return BY_VERSION
    raise invalid(f"{what}.content", "has no kind that is known here.")
