"""Threads made up by hand, and what a drawing of one looks like as plain text."""

import io
import json
from collections.abc import Sequence

from rich.console import Console, RenderableType

from checkpoint_router.v1.admin_service_pb2 import (
    GetThreadResponse,
    PendingWriteSummary,
    ThreadNode,
)
from checkpoint_router.v1.types_pb2 import MetadataEntry, ThreadClock

BEGUN_UNIX_MS = 1_795_000_000_000


def node(
    checkpoint_id: str,
    parent: str | None = None,
    *,
    ns: str = "",
    step: int | None = 0,
    source: str = "loop",
    inside: dict[str, str] | None = None,
    writes: Sequence[PendingWriteSummary] = (),
    head: bool = False,
    winner: bool = True,
    loser: bool = False,
    after_ms: int = 0,
) -> ThreadNode:
    """One checkpoint. `inside` is metadata `parents`."""
    known = {"step": step, "source": source, "parents": inside or {}}
    return ThreadNode(
        checkpoint_ns=ns,
        checkpoint_id=checkpoint_id,
        parent_id=parent,
        metadata=[MetadataEntry(key=k, json=json.dumps(v)) for k, v in known.items()],
        record_bytes=100,
        value_bytes=2048,
        new_bytes=10,
        writes=writes,
        hlc=(BEGUN_UNIX_MS + after_ms) << 16,
        head=head,
        on_winner=winner and not loser,
        loser=loser,
        segment=b"s" * 16,
    )


def chain(length: int, *, prefix: str = "c", ns: str = "", head: bool = True) -> list[ThreadNode]:
    """A conversation: each checkpoint the parent of the next, steps from -1."""
    return [
        node(
            f"{prefix}{i}",
            f"{prefix}{i - 1}" if i else None,
            ns=ns,
            step=i - 1,
            source="loop" if i else "input",
            head=head and i == length - 1,
        )
        for i in range(length)
    ]


def write(
    task: str, channel: str, size: int = 7, *, task_id: str = "11112222-3333"
) -> PendingWriteSummary:
    """A pending write of the node `task`."""
    return PendingWriteSummary(
        task_id=task_id, task_path=f"~__pregel_pull, {task}", channel=channel, bytes=size
    )


def tree(
    nodes: Sequence[ThreadNode],
    *,
    orphans: Sequence[PendingWriteSummary] = (),
    open_conflicts: int = 0,
) -> GetThreadResponse:
    """A thread in its first generation."""
    return GetThreadResponse(
        nodes=nodes,
        orphans=orphans,
        clock=ThreadClock(generation=1, hlc=BEGUN_UNIX_MS << 16),
        open_conflicts=open_conflicts,
    )


def plain(drawing: RenderableType, width: int = 10_000) -> list[str]:
    """What a file gets of a drawing, line by line."""
    out = io.StringIO()
    Console(file=out, width=width, color_system=None).print(drawing)
    return [line.rstrip() for line in out.getvalue().splitlines()]
