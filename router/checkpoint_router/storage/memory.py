"""The storage port in memory: the executable specification that every backend is compared with.

Owner of the state: one `MemoryStorage`, on one event loop. No verb awaits between its first look
and its last change, which makes each one a transaction. Written to be read, not to be fast.
What it holds outlives `close` and a later `open` of the same object, and ends with the process.
"""

import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from msgspec import structs

from checkpoint_router.core import limits
from checkpoint_router.core.answers import NewBlob
from checkpoint_router.core.clock import Ranges, covers, with_index
from checkpoint_router.core.errors import InvalidArgument
from checkpoint_router.core.ids import Dot, EventId, SegmentId, ThreadKey, leaf_of, slot_of
from checkpoint_router.core.records import Entry, Kind, Typed
from checkpoint_router.core.token import KEY_BYTES
from checkpoint_router.storage.port import (
    Append,
    Appended,
    Blobs,
    Duplicate,
    Erase,
    Facts,
    Known,
    MissingBlobs,
    MissingEvents,
    OtherGeneration,
    Records,
    Stored,
    ThreadImage,
    named,
)


@dataclass(slots=True)
class _Thread:
    """All that is stored of one thread."""

    gen: int = 1
    entries: dict[EventId, Entry] = field(default_factory=dict)
    """Of the live generation, in the order in which they were stored."""
    indices: dict[SegmentId, Ranges] = field(default_factory=dict)
    """Of the entries, by segment."""
    dots: dict[EventId, Dot] = field(default_factory=dict)
    """Of the entries."""
    payload: dict[EventId, bytes] = field(default_factory=dict)
    blobs: dict[bytes, Typed] = field(default_factory=dict)
    operations: set[bytes] = field(default_factory=set)
    """Over all generations: a repeat after a delete must not prune the new one."""

    def shown(self) -> Iterable[Entry]:
        return (e for e in self.entries.values() if not e.erased)

    def checkpoints(self) -> Iterable[Entry]:
        return (e for e in self.shown() if e.kind is Kind.CHECKPOINT)


def from_url(rest: str) -> "MemoryStorage":
    """The storage of `memory:`, after which nothing follows."""
    if rest:
        raise InvalidArgument(f"memory: takes no argument, but got {rest!r}.", field="storage")
    return MemoryStorage()


class MemoryStorage:
    """One shard that lives as long as the process. See `storage.port.Storage` for each verb."""

    def __init__(self) -> None:
        self._threads: dict[ThreadKey, _Thread] = {}
        self._key = secrets.token_bytes(KEY_BYTES)
        self._shared = False
        self._actor = 0
        self._counters: dict[tuple[ThreadKey, int], int] = {}
        """The last n of the live actor in each thread and generation."""

    async def open(self) -> None:
        self._new_actor()

    async def close(self) -> None:
        pass

    def check(self) -> None:
        pass

    @property
    def actor(self) -> int:
        return self._actor

    @property
    def shared(self) -> bool:
        return self._shared

    async def facts(self) -> Facts:
        return Facts(
            url="memory:",
            promise="An acknowledged write ends with the router process: nothing is on disk.",
            details={"threads": str(len(self._threads))},
        )

    async def system_key(self) -> bytes:
        return self._key

    async def image(self, thread: ThreadKey, known: Known | None = None) -> ThreadImage:
        stored = self._look(thread)
        counts: dict[int, int] = {}
        for dot in stored.dots.values():
            counts[dot.actor] = max(counts.get(dot.actor, 0), dot.n)
        full = ThreadImage(
            gen=stored.gen,
            entries=tuple(stored.entries.values()),
            erasures=sum(e.erased for e in stored.entries.values()),
            counts=counts,
        )
        if (
            known is None
            or (known.gen, known.erasures) != (full.gen, full.erasures)
            or any(n > counts.get(actor, 0) for actor, n in known.counts.items())
        ):
            return full
        news = (d for d in stored.dots.items() if d[1].n > known.counts.get(d[1].actor, 0))
        return replace(full, entries=tuple(stored.entries[id] for id, _ in news), partial=True)

    async def append(self, append: Append) -> Appended:
        stored = self._look(append.thread)
        if append.gen != stored.gen:
            return OtherGeneration(stored.gen)
        known = stored.entries.get(append.entry.id)
        if known is not None:
            return Duplicate(known.digest)
        for segment, ranges in append.needs:
            if not covers(stored.indices.get(segment, ()), ranges):
                return MissingEvents()
        sent = {b.hash for b in append.blobs}
        missing = tuple(h for h in append.names if h not in stored.blobs and h not in sent)
        if missing:
            return MissingBlobs(missing)
        stored = self._touch(append.thread)
        id = append.entry.id
        stored.entries[id] = append.entry
        stored.indices[id.segment] = with_index(stored.indices.get(id.segment, ()), id.index)
        stored.payload[id] = append.packed
        stored.blobs.update((b.hash, b.value) for b in append.blobs)
        stored.dots[id] = dot = self._next_dot(append.thread, append.gen)
        return Stored(dot)

    async def put_blobs(self, thread: ThreadKey, gen: int, blobs: Sequence[NewBlob]) -> bool:
        if self._look(thread).gen != gen:
            return False
        self._touch(thread).blobs.update((b.hash, b.value) for b in blobs)
        return True

    async def missing_blobs(
        self, thread: ThreadKey, gen: int, hashes: Sequence[bytes]
    ) -> tuple[bytes, ...]:
        stored = self._blobs(thread, gen)
        return tuple(h for h in hashes if h not in stored)

    async def events(
        self, thread: ThreadKey, gen: int, ids: Sequence[EventId]
    ) -> Mapping[EventId, bytes]:
        stored = self._look(thread)
        if stored.gen != gen:
            return {}
        return {i: stored.payload[i] for i in ids if i in stored.payload}

    async def blobs(
        self, thread: ThreadKey, gen: int, hashes: Sequence[bytes], budget_bytes: int
    ) -> Blobs:
        stored = self._blobs(thread, gen)
        asked = [h for h in dict.fromkeys(hashes) if h in stored]
        found: dict[bytes, Typed] = {}
        left = budget_bytes
        for position, hash in enumerate(asked):
            left -= len(stored[hash].data)
            if left < 0 and found:
                return Blobs(found=found, rest=tuple(asked[position:]))
            found[hash] = stored[hash]
        return Blobs(found=found, rest=())

    async def records(
        self, thread: ThreadKey, gen: int, ids: Sequence[EventId], budget_bytes: int
    ) -> Records:
        events = await self.events(thread, gen, ids)
        blobs = await self.blobs(thread, gen, named(events.values()), budget_bytes)
        return Records(events=events, blobs=blobs)

    async def blob_sizes(
        self, thread: ThreadKey, gen: int, hashes: Sequence[bytes]
    ) -> Mapping[bytes, int]:
        stored = self._blobs(thread, gen)
        return {h: len(stored[h].data) for h in hashes if h in stored}

    async def delete(self, thread: ThreadKey, gen: int | None, operation: bytes = b"") -> int:
        stored = self._touch(thread)
        ended = stored.gen if gen is None else gen
        if ended >= stored.gen and operation not in stored.operations:
            self._threads[thread] = _Thread(gen=ended + 1, operations=stored.operations)
        if operation:
            stored.operations.add(operation)
        return self._threads[thread].gen

    async def erase(self, erase: Erase) -> bool:
        stored = self._look(erase.thread)
        if erase.operation in stored.operations:
            return True
        if stored.gen != erase.gen or len(stored.entries) > erase.stored:
            return False
        stored = self._touch(erase.thread)
        for event in erase.events:
            if event in stored.entries:
                stored.entries[event] = structs.replace(stored.entries[event], erased=True)
                stored.payload.pop(event, None)
        for hash in erase.blobs:
            stored.blobs.pop(hash, None)
        stored.operations.add(erase.operation)
        return True

    async def erased(self, thread: ThreadKey, operation: bytes) -> bool:
        return operation in self._look(thread).operations

    async def threads(self, tenant: str, after: str, limit: int) -> Sequence[str]:
        names = (t.thread for t, s in self._of(tenant) if t.thread > after and any(s.shown()))
        return sorted(names)[:limit]

    async def slot_threads(
        self, slot: int, after: tuple[int, str, str] | None, limit: int
    ) -> Sequence[tuple[int, ThreadKey]]:
        found = sorted((leaf_of(t.thread), t) for t in self._threads if slot_of(t.thread) == slot)
        return [
            (leaf, t) for leaf, t in found if after is None or (leaf, t.tenant, t.thread) > after
        ][:limit]

    async def newest(
        self, tenant: str, before: tuple[str, str] | None, limit: int
    ) -> Sequence[tuple[str, str]]:
        found = {(e.checkpoint_id, t.thread) for t, s in self._of(tenant) for e in s.checkpoints()}
        return sorted((f for f in found if before is None or f < before), reverse=True)[:limit]

    async def threads_of_runs(self, tenant: str, runs: Sequence[str]) -> Sequence[str]:
        wanted = set(runs)
        return sorted(
            t.thread
            for t, s in self._of(tenant)
            if any(e.run_id in wanted for e in s.checkpoints())
        )

    def _look(self, thread: ThreadKey) -> _Thread:
        """What is stored, or an empty thread that is not remembered: looking creates nothing."""
        return self._threads.get(thread) or _Thread()

    def _touch(self, thread: ThreadKey) -> _Thread:
        return self._threads.setdefault(thread, _Thread())

    def _blobs(self, thread: ThreadKey, gen: int) -> Mapping[bytes, Typed]:
        stored = self._look(thread)
        return stored.blobs if stored.gen == gen else {}

    def _of(self, tenant: str) -> Iterable[tuple[ThreadKey, _Thread]]:
        return ((t, s) for t, s in self._threads.items() if t.tenant == tenant)

    def _new_actor(self) -> None:
        self._actor = secrets.randbits(63)
        self._counters.clear()

    def _next_dot(self, thread: ThreadKey, gen: int) -> Dot:
        place = (thread, gen)
        if place not in self._counters and len(self._counters) >= limits.COUNTERS_MAX:
            self._new_actor()
        self._counters[place] = n = self._counters.get(place, 0) + 1
        return Dot(self._actor, n)
