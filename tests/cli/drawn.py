"""Threads made up by hand, and what a drawing of one looks like as plain text."""

import io
import json
from collections.abc import Sequence

from rich.console import Console, RenderableType

from checkpoint_router.core.answers import Node, ThreadClock, Tree, WriteSummary
from checkpoint_router.core.ids import SegmentId
from checkpoint_router.core.records import MetadataEntry, Typed

BEGUN_UNIX_MS = 1_795_000_000_000


def node(
    checkpoint_id: str,
    parent: str | None = None,
    *,
    ns: str = "",
    step: int | None = 0,
    source: str = "loop",
    inside: dict[str, str] | None = None,
    writes: Sequence[WriteSummary] = (),
    head: bool = False,
    winner: bool = True,
    loser: bool = False,
    after_ms: int = 0,
) -> Node:
    """One checkpoint. `inside` is metadata `parents`."""
    known = {"step": step, "source": source, "parents": inside or {}}
    return Node(
        ns=ns,
        checkpoint_id=checkpoint_id,
        parent_id=parent,
        metadata=tuple(MetadataEntry(k, json.dumps(v)) for k, v in known.items()),
        record_bytes=100,
        value_bytes=2048,
        new_bytes=10,
        writes=tuple(writes),
        hlc=(BEGUN_UNIX_MS + after_ms) << 16,
        head=head,
        on_winner=winner and not loser,
        loser=loser,
        segment=SegmentId(b"s" * 16),
    )


def chain(length: int, *, prefix: str = "c", ns: str = "", head: bool = True) -> list[Node]:
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
) -> WriteSummary:
    """A pending write of the node `task`."""
    return WriteSummary(
        task_id=task_id, task_path=f"~__pregel_pull, {task}", channel=channel, size_bytes=size
    )


def opaque(key: str) -> MetadataEntry:
    """Metadata that only the agent can read."""
    return MetadataEntry(key, Typed("msgpack", b"\x93"))


def tree(
    nodes: Sequence[Node], *, orphans: Sequence[WriteSummary] = (), open_conflicts: int = 0
) -> Tree:
    """A thread in its first generation."""
    return Tree(
        nodes=tuple(nodes),
        orphans=tuple(orphans),
        clock=ThreadClock(gen=1, hlc=BEGUN_UNIX_MS << 16, term=0, epoch=0),
        open_conflicts=open_conflicts,
    )


def plain(drawing: RenderableType, width: int = 10_000) -> list[str]:
    """What a file gets of a drawing, line by line."""
    out = io.StringIO()
    Console(file=out, width=width, color_system=None).print(drawing)
    return [line.rstrip() for line in out.getvalue().splitlines()]
