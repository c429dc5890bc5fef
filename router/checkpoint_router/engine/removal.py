"""Deletes, prunes and copies: operations with an id of their own, in no segment and no lineage.

Rules: a delete names the generation that it ends; a prune names the events that it saw, and is
looked at again if the thread changed meanwhile; a repeat of any of them has the effect of one.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any

from checkpoint_router.core import retention
from checkpoint_router.core.answers import NewBlob, PruneStrategy, Removed, ThreadClock
from checkpoint_router.core.copying import Copy
from checkpoint_router.core.digests import event_digest, operation_id
from checkpoint_router.core.errors import InvalidArgument, ThreadDeleted, Unavailable
from checkpoint_router.core.history import History, bits
from checkpoint_router.core.ids import EventId, ThreadKey
from checkpoint_router.core.records import (
    ByVersion,
    Checkpoint,
    Empty,
    Event,
    entry_of,
    pack_event,
    unpack_event,
)
from checkpoint_router.core.retention import Needs
from checkpoint_router.engine.shard import Shard
from checkpoint_router.engine.threads import ThreadState
from checkpoint_router.storage.port import Append, Duplicate, Erase, OtherGeneration, Stored

_AT_ONCE = 64
"""Records read from the storage together."""

_LOOKS_MAX = 50
"""Times that a prune looks at a thread that keeps changing."""

Choice = Callable[[History, retention.NeedsOf], int]


class Removal:
    """What takes things away, and what doubles them."""

    def __init__(self, shard: Shard) -> None:
        self._shard = shard

    async def delete_thread(
        self, thread: ThreadKey, gen: int | None, request_id: bytes
    ) -> ThreadClock:
        """See `Engine.delete_thread`."""
        async with self._shard.threads.use(thread) as state:
            operation = operation_id(request_id, thread) if request_id else b""
            await self._shard.finish(self._end(state, thread, gen, operation))
            return self._shard.clock(state.history)

    async def delete_for_runs(
        self, tenant: str, run_ids: Sequence[str], request_id: bytes
    ) -> Removed:
        """See `Engine.delete_for_runs`."""
        if not run_ids:
            return Removed(threads=0, events=0)
        runs = frozenset(run_ids)

        def choose(history: History, needs: retention.NeedsOf) -> int:
            wanted = 0
            for position in bits(history.all & ~history.erased):
                if history.entries[position].run_id in runs:
                    wanted |= 1 << position
            return retention.removable(history, wanted, needs) if wanted else 0

        names = await self._shard.storage.threads_of_runs(tenant, tuple(runs))
        return await self._over(tenant, names, request_id, choose)

    async def prune(
        self, tenant: str, thread_ids: Sequence[str], strategy: PruneStrategy, request_id: bytes
    ) -> Removed:
        """See `Engine.prune`."""
        names = tuple(dict.fromkeys(thread_ids))
        if strategy is PruneStrategy.KEEP_LATEST:
            return await self._over(tenant, names, request_id, retention.prunable)
        events = threads = 0
        for name in names:
            thread = ThreadKey.of(tenant, name)
            async with self._shard.threads.use(thread) as state:
                size = (state.history.all & ~state.history.erased).bit_count()
                if size:
                    operation = operation_id(request_id, thread)
                    await self._shard.finish(self._end(state, thread, None, operation))
                    gone = size - (state.history.all & ~state.history.erased).bit_count()
                    events, threads = events + gone, threads + (gone > 0)
        return Removed(threads=threads, events=events)

    async def copy_thread(self, source: ThreadKey, target: ThreadKey) -> int:
        """See `Engine.copy_thread`."""
        if source == target:
            raise InvalidArgument(
                f"thread {source.thread!r} cannot be copied into itself. Name another target."
            )
        async with (
            self._shard.threads.use(source) as from_,
            self._shard.threads.use(target) as into,
        ):
            history, records = await self._of_one_moment(source, from_)
            # All before the first is stored: what a prune takes from the history between two of
            # them, the earlier ones would rest on and the later ones not.
            copy = Copy(history, into.history, self._shard.key)
            events = copy.events(records.values())
            for event in events:
                await self._shard.finish(self._copy_one(source, history.gen, into, target, event))
            outdated = [into.history.entries[p].digest for p in bits(copy.outdated(into.history))]
            if outdated:
                operation = operation_id(b"".join(outdated), target)
                await self._erase(into, target, operation, lambda now, _: copy.outdated(now))
        return len(events)

    async def _of_one_moment(
        self, thread: ThreadKey, state: ThreadState
    ) -> tuple[History, dict[int, Event]]:
        """A history, and all that is not erased in it, by position."""
        for _ in range(_LOOKS_MAX):
            history = state.history
            records = await self._records(history)
            erased = records is None or any(history.erased >> p & 1 for p in records)
            if records is not None and not erased and history is state.history:
                return history, records
            await self._look_again(state, thread)
        raise Unavailable(
            f"thread {thread.thread!r} kept being pruned while it was read for a copy. Nothing was "
            f"copied. Try again when it is quieter."
        )

    async def _end(
        self, state: ThreadState, thread: ThreadKey, gen: int | None, operation: bytes
    ) -> None:
        try:
            current = await self._shard.storage.delete(thread, gen, operation)
        except BaseException:
            state.doubtful = True
            raise
        if current != state.history.gen:
            state.begin(current)

    async def _over(
        self, tenant: str, names: Sequence[str], request_id: bytes, choose: Choice
    ) -> Removed:
        events = threads = 0
        for name in names:
            thread = ThreadKey.of(tenant, name)
            async with self._shard.threads.use(thread) as state:
                removed = await self._erase(state, thread, operation_id(request_id, thread), choose)
            events, threads = events + removed, threads + (removed > 0)
        return Removed(threads=threads, events=events)

    async def _erase(
        self, state: ThreadState, thread: ThreadKey, operation: bytes, choose: Choice
    ) -> int:
        storage = self._shard.storage
        for _ in range(_LOOKS_MAX):
            if await storage.erased(thread, operation):
                return 0
            history = state.history
            seen = len(history.entries)
            records = await self._records(history)
            if records is None or history is not state.history or seen != len(history.entries):
                await self._look_again(state, thread)
                continue
            doomed = choose(history, lambda p, r=records: _needs(r[p]))  # type: ignore[misc] # r is bound now, not when called
            if not doomed:
                return 0
            erase = Erase(
                thread=thread,
                gen=history.gen,
                operation=operation,
                events=tuple(history.entries[p].id for p in bits(doomed)),
                blobs=_freed(records, doomed),
                stored=seen,
            )
            if await self._shard.finish(self._commit(state, erase)):
                return doomed.bit_count()
            await self._look_again(state, thread)
        raise Unavailable(
            f"thread {thread.thread!r} kept changing while it was pruned. Nothing was removed "
            f"from it. Try again when its runs are quieter."
        )

    async def _commit(self, state: ThreadState, erase: Erase) -> bool:
        try:
            done = await self._shard.storage.erase(erase)
        except BaseException:
            state.doubtful = True
            raise
        if done and state.history.gen == erase.gen:
            state.history.erase(erase.events)
            state.recent.clear()
            state.changed()
        return done

    async def _look_again(self, state: ThreadState, thread: ThreadKey) -> None:
        state.doubtful = True
        await self._shard.threads.settle(thread, state)

    async def _records(self, history: History) -> dict[int, Event] | None:
        """Every event that is not erased, by position; None if one vanished meanwhile."""
        out: dict[int, Event] = {}
        positions = list(bits(history.all & ~history.erased))
        for at in range(0, len(positions), _AT_ONCE):
            chunk = positions[at : at + _AT_ONCE]
            ids: list[EventId] = [history.entries[p].id for p in chunk]
            stored = await self._shard.storage.events(history.thread, history.gen, ids)
            for position, id in zip(chunk, ids, strict=True):
                if id not in stored:
                    return None
                out[position] = unpack_event(stored[id])
        return out

    async def _copy_one(
        self, source: ThreadKey, gen: int, into: ThreadState, target: ThreadKey, event: Event
    ) -> None:
        storage = self._shard.storage
        packed = pack_event(event)
        entry = entry_of(event, event_digest(packed))
        blobs: list[NewBlob] = []
        wanted = await storage.missing_blobs(target, event.gen, event.blobs())
        while wanted:
            read = await storage.blobs(source, gen, wanted, _BLOBS_BYTES)
            if not read.found:
                raise Unavailable(
                    f"thread {source.thread!r} was pruned or deleted while it was copied. A part "
                    f"of it is in {target.thread!r}. Copy again: that brings the rest."
                )
            new = [NewBlob(hash=h, value=v) for h, v in read.found.items()]
            if read.rest:
                await storage.put_blobs(target, event.gen, new)
            else:
                blobs = new
            wanted = read.rest
        outcome = await storage.append(
            Append(
                thread=target,
                gen=event.gen,
                entry=entry,
                packed=packed,
                needs=(),
                names=event.blobs(),
                blobs=tuple(blobs),
            )
        )
        match outcome:
            case Stored() | Duplicate() if into.history.gen != event.gen:
                raise ThreadDeleted.of(target.thread, event.gen, into.history.gen)
            case Stored() | Duplicate(entry.digest):
                into.history.apply(entry)
                into.changed()
            case Duplicate():  # of another copy at the same time, from which less was pruned
                await self._look_again(into, target)
            case OtherGeneration(current):
                raise ThreadDeleted.of(target.thread, event.gen, current)
            case _:
                into.doubtful = True
                raise Unavailable(f"thread {target.thread!r} changed while it was copied to.")


def _needs(event: Event) -> Needs:
    content = event.content
    if not isinstance(content, Checkpoint):
        return _NOTHING
    metadata = {m.key: m.value for m in content.metadata}
    return Needs(
        delta_channels=frozenset(_json_object(metadata.get(retention.COUNTERS))),
        stored=frozenset(
            e.channel for e in content.manifest if not isinstance(e.content, Empty | ByVersion)
        ),
        by_version=frozenset(
            (e.channel, e.version) for e in content.manifest if isinstance(e.content, ByVersion)
        ),
        holds=frozenset(
            (e.channel, e.version) for e in content.manifest if not isinstance(e.content, ByVersion)
        ),
        root_id=_json_object(metadata.get("parents")).get(""),
    )


def _json_object(text: object) -> dict[str, Any]:
    value = json.loads(text) if isinstance(text, str) else None
    return value if isinstance(value, dict) else {}


def _freed(records: dict[int, Event], doomed: int) -> tuple[bytes, ...]:
    """Blobs that only doomed events name."""
    kept: set[bytes] = set()
    gone: dict[bytes, None] = {}
    for position, event in records.items():
        if doomed >> position & 1:
            gone.update(dict.fromkeys(event.blobs()))
        else:
            kept.update(event.blobs())
    return tuple(h for h in gone if h not in kept)


_NOTHING = Needs(
    delta_channels=frozenset(),
    stored=frozenset(),
    by_version=frozenset(),
    holds=frozenset(),
    root_id=None,
)

_BLOBS_BYTES = 4 * 1024 * 1024
"""Values copied at once."""
