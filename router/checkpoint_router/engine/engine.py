"""One router: takes events in, and hands every other question to the file that answers it.

Owner of the state: the storage below. Rules: a put is acknowledged after its transaction; a
history in memory takes an event in after the storage did; a call that is cancelled leaves no
difference between the two; the router decides nothing that the client has fixed.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from checkpoint_router.core import limits
from checkpoint_router.core.accept import Accepted, Known, Refused, Wait, accept
from checkpoint_router.core.answers import (
    DeltaAnswer,
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
from checkpoint_router.core.clock import hlc_at
from checkpoint_router.core.conflicts import conflicts
from checkpoint_router.core.digests import blob_hash, event_digest
from checkpoint_router.core.errors import InvalidArgument, RouterError, Stale, ThreadDeleted
from checkpoint_router.core.history import History
from checkpoint_router.core.ids import EventId, ThreadKey
from checkpoint_router.core.records import Event, entry_of, pack_event
from checkpoint_router.core.token import unseal
from checkpoint_router.engine.inspection import Inspection
from checkpoint_router.engine.listing import Listing
from checkpoint_router.engine.reading import Reading
from checkpoint_router.engine.removal import Removal
from checkpoint_router.engine.threads import Threads, ThreadState
from checkpoint_router.storage.port import (
    Append,
    Appended,
    Duplicate,
    MissingBlobs,
    Storage,
    Stored,
)

T = TypeVar("T")

TABLE_EPOCH = 1
"""Of the slot table: one shard, for ever, until there are more."""


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
        self.storage = storage
        self.threads = Threads(storage, events_max=events_max)
        self.key = b""
        self._now_ms = now_ms
        self._version = version
        self._commits: set[asyncio.Task[Any]] = set()
        self._reading = Reading(self)
        self._listing = Listing(self, self._reading)
        self._removal = Removal(self)
        self._inspection = Inspection(self)

    async def open(self) -> None:
        """Takes the storage. Errors as `Storage.open`."""
        await self.storage.open()
        self.key = await self.storage.system_key()

    async def close(self) -> None:
        """Waits for the commits under way, then releases the storage."""
        while self._commits:
            await asyncio.wait(self._commits)
        await self.storage.close()

    # Puts -----------------------------------------------------------------------------

    async def put(
        self,
        thread: ThreadKey,
        event: Event,
        digest: bytes | None,
        blobs: Sequence[NewBlob],
        *,
        deadline: float,
    ) -> PutAnswer:
        """Stores one event; durable on return unless the answer names missing blobs.

        A repeat with the same bytes has the effect of one call. Raises Stale, ThreadDeleted,
        DigestMismatch, TokenInvalid, InvalidArgument, or what the storage raises.
        """
        packed = pack_event(event)
        actual = event_digest(packed)
        if digest and digest != actual:
            raise InvalidArgument(
                f"event {event.id} does not have the digest that it came with. Nothing was "
                f"written. Its bytes changed on the way, or the client encodes it otherwise.",
                event=str(event.id),
            )
        _check_hashes(blobs)
        token = None if event.header is None else unseal(event.header.token, self.key)
        entry = entry_of(event, packed, actual)
        until = patience(deadline)
        async with self.threads.use(thread) as state:
            while True:
                await self.threads.settle(thread, state)
                verdict = accept(state.history, event, actual, token, now_ms=self._now_ms())
                match verdict:
                    case Known():
                        return PutAnswer(missing=(), clock=self.clock(state.history))
                    case Refused(error):
                        raise error
                    case Wait(missing):
                        await self.wait(state, missing, until)
                    case Accepted(needs):
                        append = Append(
                            thread=thread,
                            gen=event.gen,
                            entry=entry,
                            packed=packed,
                            needs=needs,
                            names=event.blobs(),
                            blobs=tuple(blobs),
                        )
                        answer = await self.finish(self._append(state, append))
                        if answer is not None:
                            return answer

    async def _append(self, state: ThreadState, append: Append) -> PutAnswer | None:
        """Commits, then lets the history know. None: decide again, the storage knew better."""
        try:
            outcome = await self.storage.append(append)
        except RouterError:
            state.doubtful = True
            raise
        return self._take(state, append, outcome)

    def _take(self, state: ThreadState, append: Append, outcome: Appended) -> PutAnswer | None:
        history = state.history
        match outcome:
            case MissingBlobs(hashes):
                return PutAnswer(missing=hashes, clock=self.clock(history))
            case Stored() | Duplicate(append.entry.digest) if history.gen == append.gen:
                history.apply(append.entry)
                state.changed()
                return PutAnswer(missing=(), clock=self.clock(history))
            case Stored():  # a delete was applied while this was on its way back
                raise ThreadDeleted.of(append.thread.thread, append.gen, history.gen)
            case _:
                state.doubtful = True
                return None

    async def put_blobs(self, thread: ThreadKey, gen: int, blobs: Sequence[NewBlob]) -> ThreadClock:
        """Stores blobs ahead of the put that names them. Durable on return."""
        _check_hashes(blobs)
        async with self.threads.use(thread) as state:
            if not await self.finish(self.storage.put_blobs(thread, gen, blobs)):
                state.doubtful = True
                await self.threads.settle(thread, state)
                raise ThreadDeleted.of(thread.thread, gen, state.history.gen)
            return self.clock(state.history)

    # What every part needs ------------------------------------------------------------

    def clock(self, history: History) -> ThreadClock:
        """Where the thread stands: its stamp is above the clock here and above every event."""
        return ThreadClock(
            gen=history.gen,
            hlc=max(hlc_at(self._now_ms()), history.hlc) + 1,
            term=history.term,
            epoch=TABLE_EPOCH,
        )

    async def finish(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs `work` to its end even if the caller is cancelled meanwhile: what the storage
        took in, the history must take in."""
        task = asyncio.ensure_future(work)
        self._commits.add(task)
        task.add_done_callback(self._commits.discard)
        return await asyncio.shield(task)

    async def wait(self, state: ThreadState, missing: tuple[EventId, ...], patience: float) -> None:
        """Until the thread changes. Raises Stale, naming what is missing, when patience ends."""
        left = patience - asyncio.get_running_loop().time()
        if left <= 0:
            raise _stale(state.history, missing)
        await state.wait(min(left, 0.05) if not missing else left)

    # Everything else ------------------------------------------------------------------

    async def get_tuple(
        self,
        thread: ThreadKey,
        ns: str,
        checkpoint_id: str | None,
        session: Session | None,
        *,
        with_blobs: bool = True,
        deadline: float,
    ) -> ReadAnswer:
        """The newest checkpoint of `ns`, or exactly the one named; `tuple` None if there is none.

        Raises Stale where the session's events are not known here, ThreadDeleted, TokenInvalid.
        """
        return await self._reading.get_tuple(
            thread, ns, checkpoint_id, session, with_blobs, patience(deadline)
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
        *,
        deadline: float,
    ) -> DeltaAnswer:
        """What each channel is rebuilt from: its writes since the nearest ancestor with a value."""
        return await self._reading.delta_history(
            thread, ns, checkpoint_id, channels, session, patience(deadline)
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

    async def copy_thread(self, source: ThreadKey, target: ThreadKey, request_id: bytes) -> int:
        """Copies every event that was not pruned. Returns how many; a repeat makes no more."""
        return await self._removal.copy_thread(source, target, request_id)

    async def list_threads(
        self, tenant: str, limit: int, cursor: bytes
    ) -> tuple[tuple[ThreadSummary, ...], bytes]:
        """A page of a tenant's threads by id, and the cursor of the next (empty at the end)."""
        return await self._inspection.list_threads(tenant, limit, cursor)

    async def conflicts(self, thread: ThreadKey) -> ThreadConflicts:
        """The thread's conflict records, open and closed."""
        async with self.threads.use(thread) as state:
            return ThreadConflicts(
                conflicts=conflicts(state.history), clock=self.clock(state.history)
            )

    async def tree(self, thread: ThreadKey) -> Tree:
        """The thread as it can be drawn, without values."""
        return await self._inspection.tree(thread)

    async def facts(self) -> RouterFacts:
        """What this router is and what its storage promises."""
        stored = await self.storage.facts()
        return RouterFacts(
            version=self._version,
            actor=self.storage.actor,
            storage=stored.url,
            promises=(stored.promise,),
            alarms=stored.alarms,
            epoch=TABLE_EPOCH,
            facts=tuple(sorted(stored.details.items())),
        )


def patience(deadline: float) -> float:
    """Until when a call waits for what it misses: not to its deadline, so that it can still say
    what was missing. `deadline` and result are readings of the loop's clock, in seconds."""
    return min(deadline, asyncio.get_running_loop().time() + limits.STALE_WAIT_SECONDS_MAX)


def _check_hashes(blobs: Sequence[NewBlob]) -> None:
    for blob in blobs:
        if blob_hash(blob.value.tag, blob.value.data) != blob.hash:
            raise InvalidArgument(
                f"a value of {len(blob.value.data)} bytes does not have the hash "
                f"{blob.hash.hex()[:16]}… that it came with. Nothing was written."
            )


def _stale(history: History, missing: tuple[EventId, ...]) -> Stale:
    named = ", ".join(str(e) for e in missing[:8]) or "the header of its segment"
    more = f" and {len(missing) - 8} more" if len(missing) > 8 else ""
    return Stale(
        f"this router does not know {named}{more} of thread {history.thread.thread!r}, on which "
        f"the call rests. Nothing was written or shown. If its storage lost data, `checkpoint-"
        f"router doctor` says so; a new run starts from what is there.",
        thread=history.thread.thread,
        missing=",".join(str(e) for e in missing[:64]),
    )
