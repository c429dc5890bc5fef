"""Looking at threads without their values: lists, trees, sizes."""

from collections.abc import Mapping, Sequence

from checkpoint_router.core import limits, view
from checkpoint_router.core.answers import Node, ThreadSummary, Tree, WriteSummary
from checkpoint_router.core.clock import unix_ms_of
from checkpoint_router.core.conflicts import conflicts, losing
from checkpoint_router.core.history import History, bits
from checkpoint_router.core.ids import ThreadKey
from checkpoint_router.core.records import (
    Blob,
    Checkpoint,
    Content,
    Event,
    Kind,
    Typed,
    WriteSet,
    pack_event,
)
from checkpoint_router.engine.reading import Reading
from checkpoint_router.engine.shard import Shard
from checkpoint_router.engine.threads import ThreadState


class Inspection:
    """What operators ask of threads."""

    def __init__(self, shard: Shard, reading: Reading) -> None:
        self._shard = shard
        self._reading = reading

    async def list_threads(
        self, tenant: str, limit: int, cursor: bytes
    ) -> tuple[tuple[ThreadSummary, ...], bytes]:
        """See `Engine.list_threads`."""
        size = min(limit, limits.PAGE_TUPLES_MAX) or limits.PAGE_TUPLES_MAX
        names = await self._shard.storage.threads(tenant, cursor.decode(), size)
        out = []
        for name in names:
            async with self._shard.threads.use(ThreadKey(tenant, name)) as state:
                out.append(_summary(state.history))
        return tuple(out), names[-1].encode() if len(names) == size else b""

    async def tree(self, thread: ThreadKey) -> Tree:
        """See `Engine.tree`."""

        async def once(state: ThreadState) -> Tree:
            history = state.history
            visible = list(bits(history.all & ~history.erased))
            events = await self._reading.events(history, [history.entries[p].id for p in visible])
            hashes = tuple(dict.fromkeys(h for e in events.values() for h in e.blobs()))
            sizes = await self._shard.storage.blob_sizes(history.thread, history.gen, hashes)
            drawn = _Drawn(history, {p: events[history.entries[p].id] for p in visible}, sizes)
            return Tree(
                nodes=drawn.nodes(),
                orphans=drawn.orphans(),
                clock=self._shard.clock(history),
                open_conflicts=sum(c.open for c in conflicts(history)),
            )

        return await self._reading.steadily(thread, once)


class _Drawn:
    def __init__(
        self, history: History, events: dict[int, Event], sizes: Mapping[bytes, int]
    ) -> None:
        self._history = history
        self._events = events
        self._sizes = sizes
        winner = history.lineage(history.winner())
        self._winner = winner.mask
        self._losers = losing(history)
        self._heads = {view.head(history, ns, winner) for ns in history.by_ns}

    def nodes(self) -> tuple[Node, ...]:
        known: set[bytes] = set()
        out = []
        for position in sorted(self._checkpoints(), key=self._by_id):
            event = self._events[position]
            content = event.content
            assert isinstance(content, Checkpoint)
            contents = [e.content for e in content.manifest]
            fresh = [c for c in contents if not (isinstance(c, Blob) and c.hash in known)]
            known.update(event.blobs())
            entry = self._history.entries[position]
            out.append(
                Node(
                    ns=entry.ns,
                    checkpoint_id=entry.checkpoint_id,
                    parent_id=content.parent_id,
                    metadata=content.metadata,
                    record_bytes=len(pack_event(event)),
                    value_bytes=self._bytes(contents),
                    new_bytes=self._bytes(fresh),
                    writes=self._writes_of(entry.ns, entry.checkpoint_id, position),
                    hlc=entry.hlc,
                    head=position in self._heads,
                    on_winner=bool(self._winner >> position & 1),
                    loser=bool(self._losers >> position & 1),
                    segment=entry.id.segment,
                )
            )
        return tuple(out)

    def orphans(self) -> tuple[WriteSummary, ...]:
        mask = 0
        for name, writes in self._history.writes.items():
            if not self._history.checkpoints.get(name, 0) & ~self._history.erased:
                mask |= writes & ~self._history.erased
        return self._summaries(mask)

    def _checkpoints(self) -> list[int]:
        return [p for p in self._events if self._history.entries[p].kind is Kind.CHECKPOINT]

    def _by_id(self, position: int) -> tuple[str, str, int]:
        entry = self._history.entries[position]
        return entry.checkpoint_id, entry.ns, position

    def _writes_of(self, ns: str, cid: str, position: int) -> tuple[WriteSummary, ...]:
        shown = view.by_id(self._history, ns, cid) if self._winner >> position & 1 else None
        if shown is not None:  # as a read by its id has them
            return self._summaries(sum(1 << self._history.position(w) for w in shown.writes))
        return self._summaries(self._history.writes.get((ns, cid), 0) & ~self._history.erased)

    def _summaries(self, mask: int) -> tuple[WriteSummary, ...]:
        found = []
        for position in sorted(bits(mask), key=self._history.order):
            event = self._events[position]
            content = event.content
            assert isinstance(content, WriteSet)
            found += [
                WriteSummary(
                    task_id=task.task_id,
                    task_path=task.task_path,
                    channel=row.channel,
                    size_bytes=self._bytes([row.content]),
                )
                for task in content.tasks
                for row in task.rows
            ]
        return tuple(found)

    def _bytes(self, contents: Sequence[Content]) -> int:
        total = 0
        for content in contents:
            if isinstance(content, Typed):
                total += len(content.data)
            elif isinstance(content, Blob):
                total += self._sizes.get(content.hash, 0)
        return total


def _summary(history: History) -> ThreadSummary:
    visible = history.all & ~history.erased
    lineage = history.lineage(history.winner())
    head = view.head(history, "", lineage)
    return ThreadSummary(
        thread=history.thread,
        gen=history.gen,
        checkpoints=sum(1 for m in history.checkpoints.values() if m & visible),
        events=visible.bit_count(),
        open_conflicts=sum(c.open for c in conflicts(history)),
        head=None if head is None else history.entries[head].checkpoint_id,
        updated_unix_ms=unix_ms_of(history.hlc),
    )
