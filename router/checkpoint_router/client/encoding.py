"""Between LangGraph's objects and records: the only place that runs the user's serialiser.

Rules: values are serialised when the saver is called, since a node may still change them; a
value that did not change is named by what is remembered of it, not serialised again; what cannot
be serialised is named by channel and path. The serialiser is passed in by every caller and kept
nowhere: clones of a saver have another one.
"""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import msgspec
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
    get_checkpoint_metadata,
)
from langgraph.checkpoint.base import Checkpoint as LangGraphCheckpoint
from langgraph.checkpoint.serde.base import SerializerProtocol

from checkpoint_router.client.arguments import (
    Names,
    checked_key,
    checked_mapping,
    checked_path,
    encoded,
)
from checkpoint_router.client.sessions import Run
from checkpoint_router.core import limits
from checkpoint_router.core.answers import CheckpointTuple as Found
from checkpoint_router.core.answers import DeltaHistory, MetadataFilter, NewBlob, PendingWrite
from checkpoint_router.core.digests import blob_hash
from checkpoint_router.core.errors import InvalidArgument, LimitExceeded, SerialisationError
from checkpoint_router.core.growing import Named
from checkpoint_router.core.ids import checked_id
from checkpoint_router.core.records import (
    BY_VERSION,
    EMPTY,
    Blob,
    ChannelEntry,
    Checkpoint,
    Content,
    MetadataEntry,
    TaskWrites,
    Typed,
    Version,
    WriteRow,
    WriteSet,
)

_APART: Final = ("channel_values", "channel_versions")
_MANIFEST_INLINE_BYTES: Final = 128
"""Values up to this size ride in the manifest, and again in that of every later checkpoint."""

_WRITES_INLINE_BYTES: Final = 2048
"""Values up to this size ride in the write set, which nobody repeats."""

_METADATA_TEXT_MAX: Final = 256
"""Characters of a text of metadata that is remembered with its JSON."""

_PATH_PARTS_MAX: Final = 32
"""Parts of a path in an error."""

_SURROGATE: Final = re.compile("[\ud800-\udfff]")
"""Half of a pair: no text that UTF-8 can say."""

_ENCODED: Final = json.JSONEncoder(separators=(",", ":")).encode

_PLAIN: Final = (str, int, float, bool, type(None))


Name = Callable[[Typed, bytes | None], tuple[NewBlob, Named]]
"""Names a value, which is believed to continue the one of that name."""


class Encoded(msgspec.Struct, frozen=True, gc=False):
    """A record, and the values that it names and that the router may not have."""

    content: Checkpoint | WriteSet
    blobs: Sequence[NewBlob]
    named: Sequence[Named] = ()
    """The same, of a checkpoint: what the cache learns of them."""
    fresh: Sequence[ChannelEntry] = ()
    """Lines of the manifest that no run remembers yet."""


def encode_checkpoint(
    serde: SerializerProtocol,
    config: RunnableConfig,
    checkpoint: LangGraphCheckpoint,
    metadata: CheckpointMetadata,
    new_versions: Mapping[str, Any],
    names: Names,
    name: Name,
    known: Run | None,
) -> Encoded:
    """The record of a checkpoint, with what `known` remembers of its channels, and its values as
    `name` names them. Raises SerialisationError, InvalidArgument, LimitExceeded."""
    values = _part(checkpoint, "channel_values")
    versions = _part(checkpoint, "channel_versions")
    checked_mapping("new_versions", new_versions)
    manifest: list[ChannelEntry] = []
    fresh: list[ChannelEntry] = []
    blobs: list[NewBlob] = []
    named: list[Named] = []

    def serialised(channel: str, version: Version, last: ChannelEntry | None) -> None:
        content: Content
        content = typed = _typed(serde, values[channel], "channel {!r}", channel)
        if len(typed.data) > _MANIFEST_INLINE_BYTES:
            before = None if last is None else last.content
            continues = before.hash if type(before) is Blob else None
            blob, one = name(_fitting(typed, "channel {!r}", channel), continues)
            blobs.append(blob)
            named.append(one)
            content = Blob(blob.hash)
        fresh.append(ChannelEntry(checked_id("channel", channel, empty=True), version, content))
        manifest.append(fresh[-1])

    remembered = {} if known is None else known.values
    for channel, version in versions.items():
        last = remembered.get((names.ns, channel))
        old = None if channel in new_versions else last
        if old is not None and type(version) is type(channel) is str and old.version == version:
            manifest.append(old)  # its texts were checked
            continue
        _checked_version(channel, version)
        content: Content
        if old is not None and old.version == version:
            content = old.content
        elif channel in values:
            serialised(channel, version, last)
            continue
        else:
            content = EMPTY if channel in new_versions else BY_VERSION
        manifest.append(ChannelEntry(checked_id("channel", channel, empty=True), version, content))
    for channel in values:
        if channel not in versions:  # no peer's graph makes these, but a user's put may
            checked_id("channel", channel, empty=True)
            serialised(channel, None, remembered.get((names.ns, channel)))
    body: dict[str, Any] = {**checkpoint}
    for key in _APART:
        del body[key]
    return Encoded(
        Checkpoint(
            parent_id=names.checkpoint_id,
            body=_typed(serde, body, "the checkpoint"),
            manifest=tuple(manifest),
            metadata=encode_metadata(serde, _whole_metadata(config, metadata)),
        ),
        blobs,
        named,
        fresh,
    )


def encode_writes(
    serde: SerializerProtocol, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str
) -> tuple[TaskWrites, list[NewBlob]]:
    """One `put_writes` call, and the values that are rows of their own."""
    if len(writes) > limits.WRITE_ROWS_MAX:
        raise LimitExceeded(
            f"one put_writes call has {len(writes)} writes; the limit is {limits.WRITE_ROWS_MAX}."
        )
    rows: list[WriteRow] = []
    blobs: list[NewBlob] = []
    for at, (channel, value) in enumerate(writes):
        where = "write {} to channel {!r}"
        content: Content
        content = typed = _typed(serde, value, where, at, channel)
        if len(typed.data) > _WRITES_INLINE_BYTES:
            blobs.append(_named(_fitting(typed, where, at, channel)))
            content = Blob(blobs[-1].hash)
        checked_id("channel", channel, empty=True)
        rows.append(WriteRow(WRITES_IDX_MAP.get(channel, at), channel, content))
    path = checked_path(task_path)
    return TaskWrites(task_id=task_id, task_path=path, rows=tuple(rows)), blobs


def encode_metadata(
    serde: SerializerProtocol, metadata: Mapping[str, Any]
) -> tuple[MetadataEntry, ...]:
    """Each key as JSON where JSON gives the value back, else serialised (and not filterable)."""
    out = []
    for key, value in metadata.items():
        if type(value) is str and type(key) is str and len(value) <= _METADATA_TEXT_MAX:
            entry = _text_entry(key, value)
            if entry is not None:
                out.append(entry)
                continue
        checked_id("metadata key", key, empty=True)
        text = _json(value)
        typed = _typed(serde, value, "metadata key {!r}", key) if text is None else text
        out.append(MetadataEntry(key, typed))
    return tuple(out)


@lru_cache(maxsize=256)
def _text_entry(key: str, value: str) -> MetadataEntry | None:
    """A text of the metadata as JSON, if that gives it back: most are those of the put before."""
    checked_id("metadata key", key, empty=True)
    text = _json(value)
    return None if text is None else MetadataEntry(key, text)


def encode_filters(filter: Mapping[str, Any] | None) -> tuple[MetadataFilter, ...]:
    """Filters as JSON. Raises InvalidArgument for a value that JSON cannot say."""
    out = []
    for key, value in checked_mapping("filter", filter, optional=True).items():
        text = _json(value)
        if text is None:
            raise InvalidArgument(
                f"filter {key!r} asks for a {type(value).__name__}; metadata is compared as JSON "
                f"(text, numbers, booleans, None, lists, dicts with text keys).",
                field=key,
            )
        checked_id("filter key", key, empty=True)
        out.append(MetadataFilter(key=key, json=text))
    return tuple(out)


def decode_tuple(
    serde: SerializerProtocol,
    thread_id: str,
    found: Found,
    blobs: Mapping[bytes, Typed],
) -> CheckpointTuple:
    """LangGraph's tuple, every value a fresh object. `thread_id` may bear a run."""
    record = found.checkpoint
    parent = record.parent_id
    checkpoint: dict[str, Any] = _loaded(serde, record.body, "the checkpoint")
    values: dict[str, Any] = {}
    versions: dict[str, Any] = {}
    for entry in record.manifest:
        if entry.version is not None:
            versions[entry.channel] = entry.version
        typed = _value(entry.content, blobs)
        if typed is not None:
            values[entry.channel] = _loaded(serde, typed, "channel {!r}", entry.channel)
    checkpoint["channel_values"] = values
    checkpoint["channel_versions"] = versions
    return CheckpointTuple(
        config=config_of(thread_id, found.ns, found.checkpoint_id),
        checkpoint=checkpoint,  # type: ignore[arg-type] # what the user stored, with every key
        metadata=decode_metadata(serde, record.metadata),  # type: ignore[arg-type] # likewise
        parent_config=config_of(thread_id, found.ns, parent) if parent else None,
        pending_writes=decode_writes(serde, found.pending_writes, blobs),
    )


def decode_writes(
    serde: SerializerProtocol, writes: Sequence[PendingWrite], blobs: Mapping[bytes, Typed]
) -> list[tuple[str, str, Any]]:
    """(task id, channel, value) in the order of the rows."""
    return [(w.task_id, w.channel, _decoded(serde, w.content, blobs, w.channel)) for w in writes]


def decode_history(
    serde: SerializerProtocol, history: DeltaHistory, blobs: Mapping[bytes, Typed]
) -> DeltaChannelHistory:
    """What a delta channel is rebuilt from."""
    found = DeltaChannelHistory(writes=decode_writes(serde, history.writes, blobs))
    if history.seed is not None:
        found["seed"] = _decoded(serde, history.seed, blobs, history.channel)
    return found


def _decoded(
    serde: SerializerProtocol, content: Content, blobs: Mapping[bytes, Typed], channel: str
) -> Any:
    typed = _value(content, blobs)
    return None if typed is None else _loaded(serde, typed, "channel {!r}", channel)


def decode_metadata(serde: SerializerProtocol, metadata: Sequence[MetadataEntry]) -> dict[str, Any]:
    """Metadata as it was given."""
    return {
        m.key: json.loads(m.value)
        if isinstance(m.value, str)
        else _loaded(serde, m.value, "metadata key {!r}", m.key)
        for m in metadata
    }


def _json(value: Any) -> str | None:
    """`value` as JSON; None where JSON does not give it back, or cannot: it is in itself, too
    deep, or a number that is too long."""
    try:
        if type(value) is int:
            return str(value)
        if type(value) is dict and not value:
            return "{}"
        return _ENCODED(value) if is_json(value) else None
    except (RecursionError, ValueError):
        return None


def _part(checkpoint: LangGraphCheckpoint, key: str) -> Mapping[str, Any]:
    return checked_mapping(key, checked_key("the checkpoint", checkpoint, key))


def _whole_metadata(config: RunnableConfig, metadata: CheckpointMetadata) -> Mapping[str, Any]:
    checked_mapping("metadata", metadata)
    checked_mapping("config['metadata']", config.get("metadata"), optional=True)
    return get_checkpoint_metadata(config, metadata)


def is_json(value: Any) -> bool:
    """Whether JSON gives `value` back, a tuple as a list aside."""
    if type(value) is str:
        return value.isascii() or not _SURROGATE.search(value)
    if type(value) is float:
        return math.isfinite(value)
    if value is None or type(value) is bool or type(value) is int:
        return True
    if type(value) in (list, tuple):
        return all(is_json(v) for v in value)
    if type(value) is dict:
        return all(type(k) is str and is_json(k) and is_json(v) for k, v in value.items())
    return False


def _named(value: Typed) -> NewBlob:
    return NewBlob(hash=blob_hash(value.tag, value.data), value=value)


def _fitting(value: Typed, where: str, *parts: Any) -> Typed:
    """`value` if it is small enough for a row of its own."""
    size = len(value.data)
    if size > limits.BLOB_BYTES_MAX:
        where = where.format(*parts)
        raise LimitExceeded(
            f"{where} has {size:,} bytes when serialised; the limit is "
            f"{limits.BLOB_BYTES_MAX:,}. Nothing was written. Keep large documents elsewhere and "
            f"their addresses in the state.",
            field=where,
        )
    return value


def _typed(serde: SerializerProtocol, value: Any, where: str, *parts: Any) -> Typed:
    """`value` through the serialiser; `where` is written out only where that fails."""
    try:
        tag, data = serde.dumps_typed(value)
    except Exception as e:
        where = where.format(*parts) + _failing_path(serde, value)
        raise SerialisationError(
            f"{where} cannot be serialised: {type(e).__name__}: {e}. Nothing was written.",
            field=where,
        ) from e
    return Typed(tag, bytes(data))


def _failing_path(serde: SerializerProtocol, value: Any, depth: int = 0) -> str:
    """Where inside `value` the serialiser fails: the innermost part that fails by itself, as far
    as anybody would read."""
    if depth == _PATH_PARTS_MAX:
        return "…"
    parts: list[tuple[str, Any]] = []
    if isinstance(value, Mapping):
        parts = [(f"[{k!r}]", v) for k, v in value.items()]
    elif isinstance(value, list | tuple):
        parts = [(f"[{i}]", v) for i, v in enumerate(value)]
    elif not isinstance(value, _PLAIN) and hasattr(value, "__dict__"):
        parts = [(f".{k}", v) for k, v in vars(value).items()]
    for name, part in parts:
        try:
            serde.dumps_typed(part)
        except RecursionError:
            return name
        except Exception:  # noqa: BLE001 # a user's serialiser may raise anything
            return name + _failing_path(serde, part, depth + 1)
    return ""


def _loaded(serde: SerializerProtocol, typed: Typed, where: str, *parts: Any) -> Any:
    try:
        return serde.loads_typed((typed.tag, typed.data))
    except Exception as e:
        where = where.format(*parts)
        raise SerialisationError(
            f"{where} (type {typed.tag!r}, {len(typed.data)} bytes) cannot be read back: "
            f"{type(e).__name__}: {e}. What is stored is unchanged; use the serialiser that "
            f"wrote it.",
            field=where,
        ) from e


def _value(content: Content, blobs: Mapping[bytes, Typed]) -> Typed | None:
    if isinstance(content, Typed):
        return content
    return blobs[content.hash] if isinstance(content, Blob) else None


def config_of(thread_id: str, ns: str, checkpoint_id: str) -> RunnableConfig:
    """The three keys of a checkpoint's config. `thread_id` may bear a run."""
    return {
        "configurable": {
            "thread_id": thread_id,
            "checkpoint_ns": ns,
            "checkpoint_id": checkpoint_id,
        }
    }


def _checked_version(channel: str, version: Any) -> None:
    if type(version) is str and len(version) <= limits.TYPE_BYTES_MAX:
        if not version.isascii():
            encoded(f"the version of channel {channel!r:.100}", version)
        return
    if type(version) is float or (type(version) is int and -(2**63) <= version < 2**63):
        return
    raise InvalidArgument(
        f"channel {channel!r:.100} has version {version!r:.100}; a version is a short text, an "
        f"integer of 64 bits or a float.",
        field=channel,
    )
