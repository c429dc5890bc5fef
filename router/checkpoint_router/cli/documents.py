"""The JSON that programs read: what a router answered, field by field, and what follows from it.

Rules: docs/reference/cli-json.md describes every field, and a test compares the two; a number that
may pass 2^53, which JavaScript cannot hold, is text; bytes are lower-case hex; a time is in
milliseconds since 1970; values never appear, only their sizes. A user may have stored anything
under LangGraph's own metadata keys, so a wrong type reads as absent.
"""

import json
from collections.abc import Iterable
from typing import Any, TypeVar

from google.protobuf.message import Message

from checkpoint_router.cli import words
from checkpoint_router.core.clock import unix_ms_of
from checkpoint_router.v1 import admin_service_pb2 as admin
from checkpoint_router.v1 import types_pb2 as types

Document = dict[str, Any]
T = TypeVar("T")


def plain(message: Message) -> Document:
    """The fields of a message by their names, what is not set as null."""
    found: Document = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.name == "metadata":
            found |= of_metadata(value)
        elif field.is_repeated:
            found[field.name] = [plain(v) if isinstance(v, Message) else v for v in value]
        elif field.has_presence and not message.HasField(field.name):
            found[field.name] = None
        elif field.name == "hlc":
            found |= {"hlc": str(value), "written_unix_ms": unix_ms_of(value)}
        elif isinstance(value, Message):
            found[field.name] = plain(value)
        else:
            found[field.name] = value.hex() if isinstance(value, bytes) else value
        if field.name == "task_path":
            found["task"] = words.task_name(value)
    return found


def summary(thread: admin.ThreadSummary) -> Document:
    """One line of `thread list`."""
    return {**plain(thread), "head": thread.head or None}


def tree(thread: admin.GetThreadResponse) -> Document:
    """The body of `thread show`."""
    return {
        "generation": thread.clock.generation,
        "open_conflicts": thread.open_conflicts,
        "checkpoints": [plain(node) for node in thread.nodes],
        "orphan_writes": [plain(write) for write in thread.orphans],
    }


def listed(found: types.CheckpointTuple) -> Document:
    """One checkpoint of `thread history`."""
    checkpoint = found.checkpoint
    writes = [plain(write) for write in found.pending_writes]
    return {
        "checkpoint_ns": found.checkpoint_ns,
        "checkpoint_id": found.checkpoint_id,
        "parent_id": checkpoint.parent_id if checkpoint.HasField("parent_id") else None,
        "hlc": str(found.hlc),
        "written_unix_ms": unix_ms_of(found.hlc),
        **of_metadata(checkpoint.metadata),
        "channels": len(checkpoint.manifest),
        "writes": [
            {key: write[key] for key in ("task_id", "task_path", "task", "channel")}
            for write in writes
        ],
    }


def conflict(record: admin.ConflictRecord) -> Document:
    """One record of `thread conflicts`."""
    found = plain(record)
    for side in found["sides"]:
        side["updated_unix_ms"] = side.pop("written_unix_ms")
    found["double_executed_tasks"] = found.pop("tasks")
    return found


def content(thread: admin.GetThreadResponse) -> dict[str, int]:
    """How much a thread holds, and in which generation."""
    nodes = thread.nodes
    return {
        "generation": thread.clock.generation,
        "checkpoints": len({(n.checkpoint_ns, n.checkpoint_id) for n in nodes}),
        "namespaces": len({n.checkpoint_ns for n in nodes}),
        "writes": sum(len(n.writes) for n in nodes) + len(thread.orphans),
        "record_bytes": sum(n.record_bytes for n in nodes),
        "value_bytes": sum(n.new_bytes for n in nodes),
        "open_conflicts": thread.open_conflicts,
    }


def of_metadata(entries: Iterable[types.MetadataEntry]) -> Document:
    """Metadata as one JSON object, an opaque value as its type and size; and what LangGraph's own
    keys say."""
    metadata = metadata_of(entries)
    return {
        "step": fact(metadata, "step", int),
        "source": fact(metadata, "source", str),
        "run_id": fact(metadata, "run_id", str),
        "metadata": metadata,
    }


def metadata_of(entries: Iterable[types.MetadataEntry]) -> Document:
    """Metadata by key."""
    return {
        e.key: {"opaque_type": e.opaque.type, "bytes": len(e.opaque.data)}
        if e.HasField("opaque")
        else _parsed(e.json)
        for e in entries
    }


def fact(metadata: Document, key: str, kind: type[T]) -> T | None:
    """What `metadata` says under a key of LangGraph's; None if that is of another type."""
    value = metadata.get(key)
    return value if type(value) is kind else None


def _parsed(text: str) -> Any:
    """The value of JSON text. NaN and its like become text, which strict JSON can carry again;
    text that is no JSON, or nests too deep to be read, stays text."""
    try:
        return json.loads(text, parse_constant=str)
    except (ValueError, RecursionError):
        return text
