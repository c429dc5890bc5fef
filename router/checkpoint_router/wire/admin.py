"""What operators see: routers, threads, trees, conflicts."""

from collections.abc import Iterable, Sequence
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
from checkpoint_router.core.conflicts import Conflict, ConflictKind, Side, Task
from checkpoint_router.core.errors import InvalidArgument
from checkpoint_router.core.ids import ThreadKey, checked_segment, checked_tenant
from checkpoint_router.v1 import admin_service_pb2 as admin
from checkpoint_router.wire.answers import clock_of, fill_clock
from checkpoint_router.wire.checks import checked_event_id, checked_name, checked_size, invalid
from checkpoint_router.wire.events import fill_event_id, fill_metadata, metadata_of

if TYPE_CHECKING:
    from google.protobuf.internal.containers import RepeatedCompositeFieldContainer as Repeated

PROTOCOL: Final = 1
"""Version of the wire protocol that this code speaks."""


def facts_of(message: admin.GetRouterResponse) -> RouterFacts:
    """What a router is and what its storage promises."""
    return RouterFacts(
        version=message.version,
        actor=message.actor,
        storage=message.storage,
        promises=tuple(message.promises),
        alarms=tuple(message.alarms),
        epoch=message.table_epoch,
        facts=tuple(sorted(message.facts.items())),
    )


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


def threads_of(
    message: admin.ListThreadsResponse, tenant: str
) -> tuple[tuple[ThreadSummary, ...], bytes]:
    """A page of the threads of `tenant`, and the cursor of the next (empty: that was all)."""
    threads = tuple(
        ThreadSummary(
            thread=ThreadKey(tenant, checked_name("threads.thread_id", m.thread_id)),
            gen=m.generation,
            checkpoints=m.checkpoints,
            events=m.events,
            open_conflicts=m.open_conflicts,
            head=m.head or None,
            updated_unix_ms=m.updated_unix_ms,
        )
        for m in message.threads
    )
    return threads, message.next_cursor


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


def thread_conflicts_of(message: admin.ListConflictsResponse) -> ThreadConflicts:
    """A thread's conflict records."""
    return ThreadConflicts(
        conflicts=tuple(_conflict_of(m) for m in message.conflicts), clock=clock_of(message.clock)
    )


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


def tree_of(message: admin.GetThreadResponse) -> Tree:
    """A thread as it can be drawn."""
    return Tree(
        nodes=tuple(_node_of(m) for m in message.nodes),
        orphans=_writes_of(message.orphans),
        clock=clock_of(message.clock),
        open_conflicts=message.open_conflicts,
    )


def fill_tree(message: admin.GetThreadResponse, tree: Tree) -> None:
    """Writes `tree` into `message`."""
    for node in tree.nodes:
        _fill_node(message.nodes.add(), node)
    _fill_writes(message.orphans, tree.orphans)
    fill_clock(message.clock, tree.clock)
    message.open_conflicts = tree.open_conflicts


def _conflict_of(message: admin.ConflictRecord) -> Conflict:
    if len(message.sides) != 2:
        raise invalid("conflicts.sides", f"are {len(message.sides)}; a conflict has two.")
    one, two = message.sides
    try:
        kinds = frozenset(ConflictKind(kind) for kind in message.kinds)
    except ValueError as e:
        raise InvalidArgument(
            f"the router names a kind of conflict that is unknown here: {e}. Upgrade this side.",
            field="conflicts.kinds",
        ) from None
    return Conflict(
        id=message.id,
        kinds=kinds,
        open=message.open,
        sides=(_side_of(one), _side_of(two)),
        tasks=tuple(
            Task(
                ns=m.checkpoint_ns,
                checkpoint_id=m.checkpoint_id,
                task_id=m.task_id,
                task_path=m.task_path,
            )
            for m in message.tasks
        ),
    )


def _side_of(message: admin.ConflictSide) -> Side:
    return Side(
        segment=checked_segment(message.segment),
        first=checked_event_id(message.first_event, "sides.first_event"),
        checkpoints=tuple((m.checkpoint_ns, m.checkpoint_id) for m in message.checkpoints),
        hlc=message.hlc,
        wins=message.wins,
    )


def _fill_side(message: admin.ConflictSide, side: Side) -> None:
    message.segment = side.segment
    fill_event_id(message.first_event, side.first)
    for ns, checkpoint_id in side.checkpoints:
        message.checkpoints.add(checkpoint_ns=ns, checkpoint_id=checkpoint_id)
    message.hlc = side.hlc
    message.wins = side.wins


def _node_of(message: admin.ThreadNode) -> Node:
    return Node(
        ns=message.checkpoint_ns,
        checkpoint_id=message.checkpoint_id,
        parent_id=message.parent_id if message.HasField("parent_id") else None,
        metadata=metadata_of(message.metadata),
        record_bytes=message.record_bytes,
        value_bytes=message.value_bytes,
        new_bytes=message.new_bytes,
        writes=_writes_of(message.writes),
        hlc=message.hlc,
        head=message.head,
        on_winner=message.on_winner,
        loser=message.loser,
        segment=checked_segment(message.segment),
    )


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


def _writes_of(messages: Sequence[admin.PendingWriteSummary]) -> tuple[WriteSummary, ...]:
    return tuple(
        WriteSummary(
            task_id=m.task_id, task_path=m.task_path, channel=m.channel, size_bytes=m.bytes
        )
        for m in messages
    )


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
