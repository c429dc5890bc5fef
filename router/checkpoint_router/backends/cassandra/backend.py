"""One shard in one keyspace: the storage port over the parts of this folder.

Owner of the truth: Cassandra. Any number of routers may have it open. Every call is bounded in
time: one that is not answered within `CALL_SECONDS` is Unavailable, and goes on behind the scenes
if it was a put (`writing`).
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from checkpoint_router.backends.cassandra import facts, schema, values
from checkpoint_router.backends.cassandra.ahead import Ahead, Asks
from checkpoint_router.backends.cassandra.fences import Fences
from checkpoint_router.backends.cassandra.listings import Listings
from checkpoint_router.backends.cassandra.removal import Removal
from checkpoint_router.backends.cassandra.session import Session
from checkpoint_router.backends.cassandra.target import Target, login
from checkpoint_router.backends.cassandra.threads import Threads
from checkpoint_router.backends.cassandra.writing import Writing
from checkpoint_router.core.answers import NewBlob
from checkpoint_router.core.errors import DataLoss, Refused, Unavailable
from checkpoint_router.core.ids import EventId, ThreadKey
from checkpoint_router.core.records import Kind
from checkpoint_router.storage.codec import lost
from checkpoint_router.storage.port import (
    Append,
    Appended,
    Blobs,
    Erase,
    Facts,
    Known,
    Records,
    ThreadImage,
    named,
)

T = TypeVar("T")

CALL_SECONDS: Final = 10.0
"""For one verb. Shorter: a member that restarts makes calls fail. Longer: callers wait for one
that will not come back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """What is there between `open` and `close`."""

    session: Session
    removal: Removal
    listings: Listings
    threads: Threads
    writing: Writing


class CassandraStorage:
    """See `storage.port.Storage` for each verb. Nothing is touched before `open`."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._session: Session | None = None
        self._open_parts: _Parts | None = None

    # Life ------------------------------------------------------------------------------------

    async def open(self) -> None:
        try:
            session = await self._connect()
            await schema.prepare(session, self.target)
            self._open_parts = parts = await self._made(session)
            await parts.writing.open()
        except BaseException:
            await self.close()
            raise

    async def open_to_look(self) -> None:
        """Opens it for whoever only reads: nothing is made and nothing changed. Raises Refused
        for a keyspace that is not there."""
        try:
            session = await self._connect()
            if not await schema.check(session, self.target):
                raise Refused(
                    f"keyspace {self.target.keyspace} has no tables of checkpoint-router yet. The "
                    f"first router that starts on it makes them."
                )
            self._open_parts = await self._made(session)
        except BaseException:
            await self.close()
            raise

    async def _connect(self) -> Session:
        self._session = session = Session(self.target, login())
        await session.open()
        return session

    async def _made(self, session: Session) -> _Parts:
        await session.prepare()
        fences = Fences(session)
        listings = Listings(session, fences)
        removal = Removal(session, fences, listings)
        threads = Threads(session, fences, removal)
        return _Parts(
            session=session,
            removal=removal,
            listings=listings,
            threads=threads,
            writing=Writing(session, fences, listings, removal, threads),
        )

    async def close(self) -> None:
        parts, self._open_parts = self._open_parts, None
        if parts is not None:
            await parts.writing.close()
            await parts.listings.close()
        if self._session is not None:
            await self._session.close()

    @property
    def _parts(self) -> _Parts:
        if self._open_parts is None:
            raise Unavailable("the storage is closed. Nothing was written or read.")
        return self._open_parts

    def check(self) -> None:
        pass

    @property
    def actor(self) -> int:
        return self._parts.writing.actor

    @property
    def shared(self) -> bool:
        return True

    async def facts(self) -> Facts:
        return await _bounded(facts.read(self._parts.session, self.target))

    async def system_key(self) -> bytes:
        return await _bounded(schema.system_key(self._parts.session))

    # Writing ---------------------------------------------------------------------------------

    async def append(self, append: Append) -> Appended:
        return await _bounded(self._parts.writing.append(append))

    async def put_blobs(self, thread: ThreadKey, gen: int, blobs: Sequence[NewBlob]) -> bool:
        return await _bounded(self._parts.writing.put_blobs(thread, gen, blobs))

    async def delete(self, thread: ThreadKey, gen: int | None, operation: bytes = b"") -> int:
        return await _bounded(self._parts.removal.delete(thread, gen, operation))

    async def erase(self, erase: Erase) -> bool:
        return await _bounded(self._parts.removal.erase(erase))

    # Reading ---------------------------------------------------------------------------------

    async def image(self, thread: ThreadKey, known: Known | None = None) -> ThreadImage:
        parts = self._parts
        with parts.threads.use(thread) as place:
            return await _bounded(parts.threads.look(place, known))

    async def missing_blobs(
        self, thread: ThreadKey, gen: int, hashes: Sequence[bytes]
    ) -> tuple[bytes, ...]:
        return await _bounded(values.missing(self._parts.session, thread, gen, hashes))

    async def events(
        self, thread: ThreadKey, gen: int, ids: Sequence[EventId]
    ) -> Mapping[EventId, bytes]:
        return await self._events(self._parts.threads.ahead(thread, gen), thread, gen, ids)

    async def _events(
        self, ahead: Ahead, thread: ThreadKey, gen: int, ids: Sequence[EventId]
    ) -> Mapping[EventId, bytes]:
        found = await self._sure(ahead, lambda a: values.load_records(a, thread, gen, ids))
        absent = [id for id in ids if id not in found]
        if absent:
            await self._must_be_gone(thread, gen, absent)
        return found

    async def _must_be_gone(self, thread: ThreadKey, gen: int, ids: Sequence[EventId]) -> None:
        """Raises DataLoss for an event that the index has and whose record is not there."""
        image = await self.image(thread)
        known = {e.id for e in image.entries if not e.erased} if image.gen == gen else set()
        wanted = [id for id in ids if id in known]
        # Looked for again: an index that was read later may have what was written between.
        found = await _bounded(values.load_records(self._parts.session, thread, gen, wanted))
        for id in wanted:
            if id not in found:
                raise lost(thread, f"event {id}", "its record is not there")

    async def blobs(
        self, thread: ThreadKey, gen: int, hashes: Sequence[bytes], budget_bytes: int
    ) -> Blobs:
        ahead = self._parts.threads.take_ahead(thread, gen)
        return await self._blobs(ahead, thread, gen, hashes, budget_bytes)

    async def _blobs(
        self, ahead: Ahead, thread: ThreadKey, gen: int, hashes: Sequence[bytes], budget_bytes: int
    ) -> Blobs:
        load = values.load
        return await self._sure(ahead, lambda a: load(a, thread, gen, hashes, budget_bytes))

    async def _sure(self, ahead: Ahead, work: Callable[[Asks], Coroutine[Any, Any, T]]) -> T:
        """What it reads. What was read ahead may be older than a value that was stored again, so
        nothing is called lost on the word of that."""
        try:
            return await _bounded(work(ahead))
        except DataLoss:
            return await _bounded(work(self._parts.session))

    async def records(
        self, thread: ThreadKey, gen: int, ids: Sequence[EventId], budget_bytes: int
    ) -> Records:
        threads, keys = self._parts.threads, [values.key_of(id) for id in ids]
        ahead = threads.take_ahead(thread, gen)
        await _bounded(ahead.bring(keys, hint=threads.hint(thread, keys)))
        events = await self._events(ahead, thread, gen, ids)
        blobs = await self._blobs(ahead, thread, gen, named(events.values()), budget_bytes)
        return Records(events=events, blobs=blobs)

    async def blob_sizes(
        self, thread: ThreadKey, gen: int, hashes: Sequence[bytes]
    ) -> Mapping[bytes, int]:
        return await _bounded(values.sizes(self._parts.session, thread, gen, hashes))

    async def erased(self, thread: ThreadKey, operation: bytes) -> bool:
        return await _bounded(self._parts.removal.done(thread, operation))

    async def threads(self, tenant: str, after: str, limit: int) -> Sequence[str]:
        return await _bounded(self._parts.listings.threads(tenant, after, limit))

    async def slot_threads(
        self, slot: int, after: tuple[int, str, str] | None, limit: int
    ) -> Sequence[tuple[int, ThreadKey]]:
        return await _bounded(self._parts.listings.slot_threads(slot, after, limit))

    async def newest(
        self, tenant: str, before: tuple[str, str] | None, limit: int
    ) -> Sequence[tuple[str, str]]:
        return await _bounded(self._parts.listings.newest(tenant, before, limit))

    async def threads_of_runs(self, tenant: str, runs: Sequence[str]) -> Sequence[str]:
        wanted = set(runs)
        found: set[str] = set()
        for run in sorted(wanted):
            found.update(await _bounded(self._parts.listings.threads_of_run(tenant, run)))
        # The list says who once wrote; what is not erased since, the threads say.
        images = [(name, await self.image(ThreadKey(tenant, name))) for name in sorted(found)]
        return [
            name
            for name, image in images
            if any(
                e.run_id in wanted and e.kind is Kind.CHECKPOINT and not e.erased
                for e in image.entries
            )
        ]


async def _bounded(work: Coroutine[Any, Any, T]) -> T:
    try:
        async with asyncio.timeout(CALL_SECONDS):
            return await work
    except TimeoutError:
        raise Unavailable(
            f"Cassandra did not answer within {CALL_SECONDS:.0f} s. If it was a write, its outcome "
            f"is unknown; the same call may be repeated. Look at the members of the datacentre."
        ) from None
