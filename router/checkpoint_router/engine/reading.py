"""Answering reads: the history says what is shown, the storage brings the bytes.

Rules: a read outside a run shows the winner, a read inside one shows that run's own lineage;
a session's events must be known first; a checkpoint is shown with all of its values or not.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from msgspec import structs

from checkpoint_router.core import limits, view
from checkpoint_router.core.accept import missing_for_read
from checkpoint_router.core.answers import (
    CheckpointTuple,
    DeltaAnswer,
    DeltaHistory,
    Held,
    PendingWrite,
    ReadAnswer,
    Session,
    Values,
)
from checkpoint_router.core.digests import thread_hash
from checkpoint_router.core.errors import DataLoss, ThreadDeleted, TokenInvalid
from checkpoint_router.core.growing import growths
from checkpoint_router.core.history import History, Lineage
from checkpoint_router.core.ids import EventId, ThreadKey
from checkpoint_router.core.records import (
    EMPTY,
    Blob,
    ByVersion,
    ChannelEntry,
    Checkpoint,
    Content,
    Empty,
    Event,
    Typed,
    Version,
    WriteSet,
    unpack_event,
)
from checkpoint_router.core.token import Base, ReadToken, seal, unseal
from checkpoint_router.core.view import Shown
from checkpoint_router.engine.shard import Shard
from checkpoint_router.engine.threads import ThreadState

T = TypeVar("T")

_LOOKS = 3
"""Times that a read looks in vain at a thread from which nothing is taken before it calls
something lost. In one that is pruned all the time it looks until its deadline."""

_HELD_BYTES_MIN = 64 * limits.KIB
"""Of a reader's values; fewer are read along with the record, in one journey, and left out."""

_WALK = 16
"""Ancestors read ahead at once on a walk along parents."""


class Vanished(Exception):
    """The storage does not have what the history shows: look again, then call it lost."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """One shown checkpoint with its record and its folded writes."""

    checkpoint: Checkpoint
    writes: tuple[PendingWrite, ...]


class Reading:
    """Reads of one thread."""

    def __init__(self, shard: Shard) -> None:
        self._shard = shard

    async def get_tuple(
        self,
        thread: ThreadKey,
        ns: str,
        checkpoint_id: str | None,
        session: Session | None,
        with_blobs: bool,
        held: Sequence[Held],
        patience: float,
    ) -> ReadAnswer:
        """See `Engine.get_tuple`."""

        async def once(state: ThreadState) -> ReadAnswer:
            lineage = await self.lineage(state, session, patience)
            history = state.history
            shown = self.shown(history, ns, checkpoint_id, lineage)
            token = self.token(history, shown)
            clock = self._shard.clock(history)
            if shown is None:
                return ReadAnswer(tuple=None, blobs=(), clock=clock, token=token)
            if with_blobs and held:
                found, blobs = await self._beside(state, shown, held)
                grown, blobs = growths(found, blobs, held)
            else:
                found, blobs = await self._whole(state, shown, with_blobs=with_blobs)
                grown = ()
            values = tuple(blobs.items())
            return ReadAnswer(tuple=found, blobs=values, clock=clock, token=token, grown=grown)

        return await self.steadily(thread, once)

    async def _whole(
        self, state: ThreadState, shown: Shown, *, with_blobs: bool
    ) -> tuple[CheckpointTuple, Mapping[bytes, Typed]]:
        """A shown checkpoint and its values: from memory if all of it is there."""
        history, ids = state.history, (shown.checkpoint.id, *shown.writes)
        recent = state.recent.events(ids)
        if recent is not None:
            (found,) = await self.tuples(history, [shown], recent)
            values = state.recent.values(blobs_of([found])) if with_blobs else {}
            if values is not None:
                return found, values
        if not with_blobs:
            (found,) = await self.tuples(history, [shown])
            return found, {}
        records = await self._shard.storage.records(
            history.thread, history.gen, ids, limits.INLINE_BLOBS_BYTES_MAX
        )
        events = self.unpacked(ids, records.events)
        if state.history is history:
            sizes = ((e, len(records.events[i])) for i, e in events.items())
            state.recent.add(sizes, records.blobs.found.items())
        (found,) = await self.tuples(history, [shown], events)
        read = records.blobs
        blobs = {h: read.found[h] for h in blobs_of([found]) if h in read.found}
        # What stood under its version alone is not among what the records name.
        other = [h for h in blobs_of([found]) if h not in read.found and h not in read.rest]
        return found, blobs | dict(await self.values(history, other))

    async def _beside(
        self, state: ThreadState, shown: Shown, held: Sequence[Held]
    ) -> tuple[CheckpointTuple, Mapping[bytes, Typed]]:
        """As `_whole`, but the values that the reader has are not even read."""
        history, ids = state.history, (shown.checkpoint.id, *shown.writes)
        have = {h.hash for h in held}
        recent = state.recent.events(ids)
        if recent is None and sum(h.keep for h in held) < _HELD_BYTES_MIN:
            found, blobs = await self._whole(state, shown, with_blobs=True)
            return found, {h: v for h, v in blobs.items() if h not in have}
        if recent is None:
            stored = await self._shard.storage.events(history.thread, history.gen, ids)
            recent = self.unpacked(ids, stored)
            if state.history is history:
                state.recent.add(((e, len(stored[i])) for i, e in recent.items()), ())
        (found,) = await self.tuples(history, [shown], recent)
        wanted = [h for h in blobs_of([found]) if h not in have]
        known = state.recent.values(wanted)
        if known is not None:
            return found, known
        values = await self.values(history, wanted)
        if state.history is history:
            state.recent.add((), values.items())
        return found, values

    async def get_blobs(self, thread: ThreadKey, hashes: Sequence[bytes]) -> Values:
        """See `Engine.get_blobs`."""

        async def once(state: ThreadState) -> Values:
            return tuple((await self.values(state.history, hashes)).items())

        return await self.steadily(thread, once)

    async def delta_history(
        self,
        thread: ThreadKey,
        ns: str,
        checkpoint_id: str | None,
        channels: Sequence[str],
        session: Session | None,
        held: Sequence[bytes],
        patience: float,
    ) -> DeltaAnswer:
        """See `Engine.delta_history`."""

        async def once(state: ThreadState) -> DeltaAnswer:
            lineage = await self.lineage(state, session, patience)
            shown = self.shown(state.history, ns, checkpoint_id, lineage)
            histories = await self._walk(state.history, shown, channels)
            contents = [w.content for h in histories for w in h.writes]
            contents += [h.seed for h in histories if h.seed is not None]
            hashes = dict.fromkeys(c.hash for c in contents if isinstance(c, Blob))
            for hash in held:
                hashes.pop(hash, None)
            blobs = await self.values(state.history, tuple(hashes))
            return DeltaAnswer(channels=tuple(histories), blobs=tuple(blobs.items()))

        return await self.steadily(thread, once)

    # What listing and inspection share with reading -------------------------------------------

    async def steadily(self, thread: ThreadKey, once: Callable[[ThreadState], Awaitable[T]]) -> T:
        """Runs `once` on the thread's state. What it misses in the storage may have been deleted
        or pruned since it looked, so it looks again; what is missing although nothing was taken
        away is lost."""
        async with self._shard.threads.use(thread) as state:
            looks = 0
            while True:
                before = _removed(state.history)
                try:
                    return await once(state)
                except Vanished as e:
                    vanished = e
                state.doubtful = True
                await self._shard.threads.settle(thread, state)
                looks += _removed(state.history) == before
                if looks == _LOOKS:
                    raise DataLoss(
                        f"thread {thread.thread!r}: the storage no longer has {vanished}. Other "
                        f"threads are not affected. Restore a backup, or delete or prune the "
                        f"thread.",
                        thread=thread.thread,
                        record=str(vanished),
                    )

    async def lineage(
        self, state: ThreadState, session: Session | None, patience: float
    ) -> Lineage | None:
        """The lineage of the run that reads, None outside a run; waits for what it rests on."""
        if session is None:
            return None
        token = unseal(session.token, self._shard.key)
        while True:
            history = state.history
            if token.thread != thread_hash(history.thread):
                raise TokenInvalid(
                    f"the causal token is for another thread than {history.thread.thread!r}."
                )
            if token.gen != history.gen:
                raise ThreadDeleted.of(history.thread.thread, token.gen, history.gen)
            missing = missing_for_read(history, token, session.segment, session.acknowledged)
            if not missing:
                return history.lineage_from(token, session.segment) if session.inside else None
            await self._shard.wait(state, missing, patience)

    def shown(
        self, history: History, ns: str, checkpoint_id: str | None, lineage: Lineage | None
    ) -> Shown | None:
        """What a read of one checkpoint shows."""
        if checkpoint_id:
            return view.by_id(history, ns, checkpoint_id, lineage)
        return view.newest(history, ns, lineage)

    def token(self, history: History, shown: Shown | None) -> bytes:
        """The token of a read: for the segment that goes on from it."""
        winner = history.winner()
        if shown is not None:
            base: Base | None = shown.base
        else:
            base = None if winner is None else Base(segment=winner)
        clock = self._shard.clock(history)
        return seal(
            ReadToken(
                thread=thread_hash(history.thread),
                gen=history.gen,
                base=base,
                seen=history.frontier(None if base is None else base.segment),
                hlc=clock.hlc,
                term=clock.term,
                epoch=clock.epoch,
            ),
            self._shard.key,
        )

    async def tuples(
        self,
        history: History,
        shown: Sequence[Shown],
        events: Mapping[EventId, Event] | None = None,
    ) -> list[CheckpointTuple]:
        """The tuples of what is shown, in order; from `events` if they were read already."""
        loaded = await self.load(history, shown, events)
        return [
            CheckpointTuple(
                ns=s.checkpoint.ns,
                checkpoint_id=s.checkpoint.checkpoint_id,
                checkpoint=one.checkpoint,
                pending_writes=one.writes,
                token=self.token(history, s),
                hlc=s.checkpoint.hlc,
                event=s.checkpoint.id,
            )
            for s, one in zip(shown, loaded, strict=True)
        ]

    async def load(
        self,
        history: History,
        shown: Sequence[Shown],
        events: Mapping[EventId, Event] | None = None,
    ) -> list[Loaded]:
        """Records and folded writes of what is shown, values by version resolved."""
        if events is None:
            ids = [i for s in shown for i in (s.checkpoint.id, *s.writes)]
            events = await self.events(history, ids)
        known = dict(events)
        out = []
        for s in shown:
            checkpoint = known[s.checkpoint.id].content
            assert isinstance(checkpoint, Checkpoint)
            manifest = await self._resolved(history, s, checkpoint, known)
            out.append(
                Loaded(
                    structs.replace(checkpoint, parent_id=s.parent_id, manifest=manifest),
                    _folded([known[w] for w in s.writes]),
                )
            )
        return out

    async def events(self, history: History, ids: Sequence[EventId]) -> dict[EventId, Event]:
        """Events by id. Raises Vanished if one is gone."""
        wanted = tuple(dict.fromkeys(ids))
        stored = await self._shard.storage.events(history.thread, history.gen, wanted)
        return self.unpacked(wanted, stored)

    @staticmethod
    def unpacked(ids: Sequence[EventId], stored: Mapping[EventId, bytes]) -> dict[EventId, Event]:
        """Events by id. Raises Vanished if one was not stored."""
        for id in ids:
            if id not in stored:
                raise Vanished(f"event {id}")
        return {i: unpack_event(stored[i]) for i in ids}

    async def values(self, history: History, hashes: Sequence[bytes]) -> Mapping[bytes, Typed]:
        """Values by hash, as far as one message goes. Raises Vanished if one is gone."""
        if not hashes:
            return {}
        blobs = await self._shard.storage.blobs(
            history.thread, history.gen, hashes, limits.INLINE_BLOBS_BYTES_MAX
        )
        if len(blobs.found) + len(blobs.rest) < len(hashes):
            known = {*blobs.found, *blobs.rest}
            raise Vanished(f"value {next(h for h in hashes if h not in known).hex()}")
        return blobs.found

    async def _resolved(
        self,
        history: History,
        shown: Shown,
        checkpoint: Checkpoint,
        known: dict[EventId, Event],
    ) -> tuple[ChannelEntry, ...]:
        """The manifest with each value that was stored by version alone looked up, mostly in the
        checkpoint before. Adds what it read to `known`: that is the next one to be looked at."""
        open_: set[tuple[str, Version]] = {
            (e.channel, e.version) for e in checkpoint.manifest if isinstance(e.content, ByVersion)
        }
        if not open_:
            return checkpoint.manifest
        found: dict[tuple[str, Version], Content] = {}
        before = view.earlier(history, shown.lineage, shown.checkpoint)
        while open_ and (ids := [e.id for e in islice(before, _WALK)]):
            for id in ids:
                if id not in known:
                    known |= await self.events(history, [i for i in ids if i not in known])
                content = known[id].content
                assert isinstance(content, Checkpoint)
                for e in content.manifest:
                    name = (e.channel, e.version)
                    if name in open_ and not isinstance(e.content, ByVersion):
                        found[name] = e.content
                        open_.discard(name)
                if not open_:
                    break
        return tuple(
            structs.replace(e, content=found.get((e.channel, e.version), EMPTY))
            if isinstance(e.content, ByVersion)
            else e
            for e in checkpoint.manifest
        )

    async def _walk(
        self, history: History, shown: Shown | None, channels: Sequence[str]
    ) -> list[DeltaHistory]:
        """Along the parents of `shown` (not along ids), each channel to its own nearest value."""
        names = list(dict.fromkeys(channels))
        writes: dict[str, list[PendingWrite]] = {c: [] for c in names}
        seeds: dict[str, Content] = {}
        open_ = set(names)
        walked = set() if shown is None else {shown.checkpoint.checkpoint_id}
        at = shown
        while open_ and at is not None:
            ahead: list[Shown] = []
            while len(ahead) < _WALK and at is not None:
                at = self._parent_of(history, at, walked)
                if at is not None:
                    ahead.append(at)
            for one in await self.load(history, ahead):
                for write in reversed(one.writes):
                    if write.channel in open_:
                        writes[write.channel].append(write)
                for entry in one.checkpoint.manifest:
                    if entry.channel in open_ and not isinstance(entry.content, Empty):
                        seeds[entry.channel] = entry.content
                        open_.discard(entry.channel)
                if not open_:
                    break
        return [
            DeltaHistory(channel=c, writes=tuple(reversed(writes[c])), seed=seeds.get(c))
            for c in names
        ]

    def _parent_of(self, history: History, at: Shown, walked: set[str]) -> Shown | None:
        parent = at.parent_id
        if parent is None or parent in walked:
            return None
        walked.add(parent)
        return view.by_id(history, at.checkpoint.ns, parent, at.lineage)


def blobs_of(tuples: Sequence[CheckpointTuple]) -> tuple[bytes, ...]:
    """Hashes that the tuples name, each once, in order."""
    found: dict[bytes, None] = {}
    for one in tuples:
        for entry in one.checkpoint.manifest:
            if isinstance(entry.content, Blob):
                found[entry.content.hash] = None
        for write in one.pending_writes:
            if isinstance(write.content, Blob):
                found[write.content.hash] = None
    return tuple(found)


def _removed(history: History) -> tuple[int, int]:
    """Grows with all that is deleted or pruned."""
    return history.gen, history.erased.bit_count()


def _folded(events: Sequence[Event]) -> tuple[PendingWrite, ...]:
    calls = [t for e in events if isinstance(e.content, WriteSet) for t in e.content.tasks]
    return tuple(
        PendingWrite(
            task_id=task, task_path=path, idx=row.idx, channel=row.channel, content=row.content
        )
        for task, path, row in view.fold(calls)
    )
