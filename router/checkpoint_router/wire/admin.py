"""What operators see: routers, threads, trees, conflicts.

Answers are only written here: who asks reads the messages themselves.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from checkpoint_router.core import limits
from checkpoint_router.core.answers import (
    Node,
    RouterFacts,
    ThreadConflicts,
    ThreadSummary,
    Tree,
    WriteSummary,
)
from checkpoint_router.core.conflicts import Side
from checkpoint_router.core.ids import ThreadKey, checked_tenant
from checkpoint_router.v1 import admin_service_pb2 as admin
from checkpoint_router.wire.answers import fill_clock
from checkpoint_router.wire.checks import checked_name, checked_size
from checkpoint_router.wire.events import fill_event_id, fill_metadata

if TYPE_CHECKING:
    from google.protobuf.internal.containers import RepeatedCompositeFieldContainer as Repeated

PROTOCOL: Final = 1
"""Version of the wire protocol that this code speaks."""


def fill_facts(message: admin.GetRouterResponse, facts: RouterFacts) -> None:
    """Writes `facts` into `message`."""
    message.version = facts.version
    message.protocol = PROTOCOL
    message.actor = facts.actor
    message.storage = facts.storage
    message.promises.extend(facts.promises)
    message.alarms.extend(facts.alarms)
    message.table_epoch = facts.epoch
    for name, value in facts.facts:
        message.facts[name] = value


def list_threads_of(message: admin.ListThreadsRequest) -> tuple[str, int, bytes]:
    """Tenant, limit (at most one page's), cursor."""
    checked_size("cursor", len(message.cursor), limits.CURSOR_BYTES_MAX)
    limit = min(message.limit or limits.PAGE_TUPLES_MAX, limits.PAGE_TUPLES_MAX)
    return checked_tenant(message.tenant), limit, message.cursor


def fill_threads(
    message: admin.ListThreadsResponse, threads: Iterable[ThreadSummary], cursor: bytes
) -> None:
    """Writes a page of threads into `message`."""
    for each in threads:
        message.threads.add(
            thread_id=each.thread.thread,
            generation=each.gen,
            checkpoints=each.checkpoints,
            events=each.events,
            open_conflicts=each.open_conflicts,
            head=each.head or "",
            updated_unix_ms=each.updated_unix_ms,
        )
    message.next_cursor = cursor


def admin_thread_of(message: admin.ListConflictsRequest | admin.GetThreadRequest) -> ThreadKey:
    """The thread that a request is about."""
    return ThreadKey(checked_tenant(message.tenant), checked_name("thread_id", message.thread_id))


def fill_thread_conflicts(message: admin.ListConflictsResponse, value: ThreadConflicts) -> None:
    """Writes `value` into `message`."""
    fill_clock(message.clock, value.clock)
    for conflict in value.conflicts:
        record = message.conflicts.add(id=conflict.id, open=conflict.open)
        record.kinds.extend(sorted(kind.value for kind in conflict.kinds))
        for side in conflict.sides:
            _fill_side(record.sides.add(), side)
        for task in conflict.tasks:
            record.tasks.add(
                checkpoint_ns=task.ns,
                checkpoint_id=task.checkpoint_id,
                task_id=task.task_id,
                task_path=task.task_path,
            )


def fill_tree(message: admin.GetThreadResponse, tree: Tree) -> None:
    """Writes `tree` into `message`."""
    for node in tree.nodes:
        _fill_node(message.nodes.add(), node)
    _fill_writes(message.orphans, tree.orphans)
    fill_clock(message.clock, tree.clock)
    message.open_conflicts = tree.open_conflicts


def _fill_side(message: admin.ConflictSide, side: Side) -> None:
    message.segment = side.segment
    fill_event_id(message.first_event, side.first)
    for ns, checkpoint_id in side.checkpoints:
        message.checkpoints.add(checkpoint_ns=ns, checkpoint_id=checkpoint_id)
    message.hlc = side.hlc
    message.wins = side.wins


def _fill_node(message: admin.ThreadNode, node: Node) -> None:
    message.checkpoint_ns = node.ns
    message.checkpoint_id = node.checkpoint_id
    if node.parent_id is not None:
        message.parent_id = node.parent_id
    fill_metadata(message.metadata, node.metadata)
    message.record_bytes = node.record_bytes
    message.value_bytes = node.value_bytes
    message.new_bytes = node.new_bytes
    _fill_writes(message.writes, node.writes)
    message.hlc = node.hlc
    message.head = node.head
    message.on_winner = node.on_winner
    message.loser = node.loser
    message.segment = node.segment


def _fill_writes(
    messages: "Repeated[admin.PendingWriteSummary]", writes: Iterable[WriteSummary]
) -> None:
    for write in writes:
        messages.add(
            task_id=write.task_id,
            task_path=write.task_path,
            channel=write.channel,
            bytes=write.size_bytes,
        )
