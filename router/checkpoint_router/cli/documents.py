"""The JSON that programs read: one function for each thing that a document contains.

Rules: docs/reference/cli-json.md describes every field, and a test compares the two; a number that
may pass 2^53, which JavaScript cannot hold, is text; bytes are lower-case hex; a time is in
milliseconds since 1970; values never appear, only their sizes.
"""

from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from checkpoint_router.cli import words
from checkpoint_router.cli.facts import facts_of, metadata_document
from checkpoint_router.core.answers import Listed, Node, ThreadSummary, Tree, WriteSummary
from checkpoint_router.core.clock import unix_ms_of
from checkpoint_router.core.conflicts import Conflict, Side
from checkpoint_router.core.ids import ThreadKey
from checkpoint_router.core.records import MetadataEntry

if TYPE_CHECKING:
    from checkpoint_router.cli.contents import Content

Document = dict[str, Any]


def key(thread: ThreadKey) -> Document:
    """Which thread a document is about."""
    return {"tenant": thread.tenant, "thread_id": thread.thread}


def summary(thread: ThreadSummary) -> Document:
    """One line of `thread list`."""
    return {
        "thread_id": thread.thread.thread,
        "generation": thread.gen,
        "checkpoints": thread.checkpoints,
        "events": thread.events,
        "open_conflicts": thread.open_conflicts,
        "head": thread.head,
        "updated_unix_ms": thread.updated_unix_ms,
    }


def tree(thread: Tree) -> Document:
    """The body of `thread show`."""
    return {
        "generation": thread.clock.gen,
        "open_conflicts": thread.open_conflicts,
        "checkpoints": [node(n) for n in thread.nodes],
        "orphan_writes": [write(w) for w in thread.orphans],
    }


def node(checkpoint: Node) -> Document:
    """One checkpoint of `thread show`."""
    return {
        **_named(checkpoint.ns, checkpoint.checkpoint_id, checkpoint.parent_id, checkpoint.hlc),
        **_metadata(checkpoint.metadata),
        "head": checkpoint.head,
        "on_winner": checkpoint.on_winner,
        "loser": checkpoint.loser,
        "segment": checkpoint.segment.hex(),
        "record_bytes": checkpoint.record_bytes,
        "value_bytes": checkpoint.value_bytes,
        "new_bytes": checkpoint.new_bytes,
        "writes": [write(w) for w in checkpoint.writes],
    }


def listed(item: Listed) -> Document:
    """One checkpoint of `thread history`."""
    found = item.tuple
    checkpoint = found.checkpoint
    return {
        **_named(found.ns, found.checkpoint_id, checkpoint.parent_id, found.hlc),
        **_metadata(checkpoint.metadata),
        "channels": len(checkpoint.manifest),
        "writes": [
            {
                "task_id": w.task_id,
                "task_path": w.task_path,
                "task": words.task_name(w.task_path),
                "channel": w.channel,
            }
            for w in found.pending_writes
        ],
    }


def write(summed: WriteSummary) -> Document:
    """One pending write."""
    return {
        "task_id": summed.task_id,
        "task_path": summed.task_path,
        "task": words.task_name(summed.task_path),
        "channel": summed.channel,
        "bytes": summed.size_bytes,
    }


def conflict(record: Conflict) -> Document:
    """One record of `thread conflicts`."""
    return {
        "id": record.id.hex(),
        "open": record.open,
        "kinds": sorted(record.kinds),
        "sides": [_side(s) for s in record.sides],
        "double_executed_tasks": [
            {
                "checkpoint_ns": t.ns,
                "checkpoint_id": t.checkpoint_id,
                "task_id": t.task_id,
                "task_path": t.task_path,
                "task": words.task_name(t.task_path),
            }
            for t in record.tasks
        ],
    }


def _side(side: Side) -> Document:
    return {
        "wins": side.wins,
        "segment": side.segment.hex(),
        "first_event": {"segment": side.first.segment.hex(), "index": side.first.index},
        "hlc": str(side.hlc),
        "updated_unix_ms": unix_ms_of(side.hlc),
        "checkpoints": [
            {"checkpoint_ns": ns, "checkpoint_id": cid} for ns, cid in side.checkpoints
        ],
    }


def _named(ns: str, checkpoint_id: str, parent_id: str | None, hlc: int) -> Document:
    return {
        "checkpoint_ns": ns,
        "checkpoint_id": checkpoint_id,
        "parent_id": parent_id,
        "hlc": str(hlc),
        "written_unix_ms": unix_ms_of(hlc),
    }


def _metadata(entries: Iterable[MetadataEntry]) -> Document:
    found = tuple(entries)
    facts = facts_of(found)
    return {
        "step": facts.step,
        "source": facts.source,
        "run_id": facts.run_id,
        "metadata": metadata_document(found),
    }


def content(held: "Content") -> Document:
    """How much a thread holds, in `thread delete`."""
    return asdict(held)
