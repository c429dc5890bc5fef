"""One router: takes events in, and hands every other question to the file that answers it.

Owner of the state: the storage below. Rules: a put is acknowledged after its transaction; a
history in memory takes an event in after the storage did; a call leaves no difference
between the two; the router decides nothing that the client has fixed.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from checkpoint_router.core import limits
from checkpoint_router.core.answers import (
    DeltaAnswer,
    Growth,
    Held,
    ListQuery,
    NewBlob,
    Page,
    PruneStrategy,
    PutAnswer,
    ReadAnswer,
    Removed,
    RouterFacts,
    Session,
    ThreadClock,
    ThreadConflicts,
    ThreadSummary,
    Tree,
    Values,
)
from checkpoint_router.core.conflicts import conflicts
from checkpoint_router.core.ids import ThreadKey
from checkpoint_router.core.records import Event, pack_event
from checkpoint_router.engine.inspection import Inspection
from checkpoint_router.engine.listing import Listing
from checkpoint_router.engine.reading import Reading
from checkpoint_router.engine.removal import Removal
from checkpoint_router.engine.shard import TABLE_EPOCH, Shard, patience
from checkpoint_router.engine.writing import Writing
from checkpoint_router.storage.port import (
    Storage,
)


class Engine:
    """One router over one shard."""

    def __init__(
        self,
        storage: Storage,
        *,
        now_ms: Callable[[], int],
        version: str,
        events_max: int = limits.HISTORY_EVENTS_MAX,
    ) -> None:
        self.shard = Shard(storage, now_ms, events_max)
        self._version = version
        self._writing = Writing(self.shard)
        self._reading = Reading(self.shard)
        self._listing = Listing(self.shard, self._reading)
        self._removal = Removal(self.shard)
        self._inspection = Inspection(self.shard, self._reading)

    @property
    def storing(self) -> AbstractSet[asyncio.Task[Any] | None]:
        """Tasks that must not be cancelled now: the storage may take in what they brought."""
        return self.shard.storing

    async def open(self) -> None:
        """Takes the storage. Errors as `Storage.open`."""
        await self.shard.open()

    async def close(self) -> None:
        """Waits for the commits under way, then releases the storage."""
        await self.shard.close()

    def put(
        self,
        thread: ThreadKey,
        event: Event,
        digest: bytes | None,
        blobs: Sequence[NewBlob | Growth],
        *,
        deadline: float,
        packed: bytes = b"",
    ) -> Coroutine[Any, Any, PutAnswer]:
        """Stores one event; durable on return unless the answer names missing blobs.

        `packed` are its canonical bytes, where they are at hand. A repeat with the same bytes has
        the effect of one call. Raises Stale, ThreadDeleted, DigestMismatch, TokenInvalid,
        InvalidArgument, or what the storage raises.
        """
        packed = packed or pack_event(event)
        return self._writing.put(thread, event, packed, digest, blobs, patience(deadline))

    async def put_blobs(self, thread: ThreadKey, gen: int, blobs: Sequence[NewBlob]) -> ThreadClock:
        """Stores blobs ahead of the put that names them. Durable on return."""
        return await self._writing.put_blobs(thread, gen, blobs)

    async def get_tuple(
        self,
        thread: ThreadKey,
        ns: str,
        checkpoint_id: str | None,
        session: Session | None,
        *,
        with_blobs: bool = True,
        held: Sequence[Held] = (),
        deadline: float,
    ) -> ReadAnswer:
        """The newest checkpoint of `ns`, or exactly the one named; `tuple` None if there is none.

        Values that the reader has are left out; of those that grew from one, the rest is given.
        Raises Stale where the session's events are not known here, ThreadDeleted, TokenInvalid.
        """
        return await self._reading.get_tuple(
            thread, ns, checkpoint_id, session, with_blobs, held, patience(deadline)
        )

    async def get_blobs(self, thread: ThreadKey, hashes: Sequence[bytes]) -> Values:
        """As many of these values as fit one message, in order. Raises DataLoss for one that is
        not stored."""
        return await self._reading.get_blobs(thread, hashes)

    async def delta_history(
        self,
        thread: ThreadKey,
        ns: str,
        checkpoint_id: str | None,
        channels: Sequence[str],
        session: Session | None,
        held: Sequence[bytes] = (),
        *,
        deadline: float,
    ) -> DeltaAnswer:
        """What each channel is rebuilt from: its writes since the nearest ancestor with a value. Of
        the values, those that are not `held`."""
        return await self._reading.delta_history(
            thread, ns, checkpoint_id, channels, session, held, patience(deadline)
        )

    async def list_tuples(self, query: ListQuery, *, deadline: float) -> Page:
        """A page of checkpoints, greatest id first, over one thread or all of a tenant."""
        return await self._listing.page(query, patience(deadline))

    async def delete_thread(
        self, thread: ThreadKey, gen: int | None, request_id: bytes
    ) -> ThreadClock:
        """Ends a generation, by default the current one. Durable on return; a repeat is no-op."""
        return await self._removal.delete_thread(thread, gen, request_id)

    async def delete_for_runs(
        self, tenant: str, run_ids: Sequence[str], request_id: bytes
    ) -> Removed:
        """Removes the checkpoints of these runs with their writes, in every thread."""
        return await self._removal.delete_for_runs(tenant, run_ids, request_id)

    async def prune(
        self, tenant: str, thread_ids: Sequence[str], strategy: PruneStrategy, request_id: bytes
    ) -> Removed:
        """Keeps each namespace's newest checkpoint and its closure, or deletes the threads."""
        return await self._removal.prune(tenant, thread_ids, strategy, request_id)

    async def copy_thread(self, source: ThreadKey, target: ThreadKey) -> int:
        """Copies every event that was not pruned and that no earlier copy brought. Returns how
        many these were."""
        return await self._removal.copy_thread(source, target)

    async def list_threads(
        self, tenant: str, limit: int, cursor: bytes
    ) -> tuple[tuple[ThreadSummary, ...], bytes]:
        """A page of a tenant's threads by id, and the cursor of the next (empty at the end)."""
        return await self._inspection.list_threads(tenant, limit, cursor)

    async def conflicts(self, thread: ThreadKey) -> ThreadConflicts:
        """The thread's conflict records, open and closed."""
        async with self.shard.threads.use(thread) as state:
            return ThreadConflicts(
                conflicts=conflicts(state.history), clock=self.shard.clock(state.history)
            )

    async def tree(self, thread: ThreadKey) -> Tree:
        """The thread as it can be drawn, without values."""
        return await self._inspection.tree(thread)

    async def facts(self) -> RouterFacts:
        """What this router is and what its storage promises."""
        stored = await self.shard.storage.facts()
        return RouterFacts(
            version=self._version,
            actor=self.shard.storage.actor,
            storage=stored.url,
            promises=(stored.promise,),
            alarms=stored.alarms,
            epoch=TABLE_EPOCH,
            facts=tuple(sorted(stored.details.items())),
        )
