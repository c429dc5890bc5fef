"""One shard in one Redis, or in one Redis Cluster: the storage port over five scripts.

Owner of the truth: the server. Any number of routers use it at once; each has its own actor. What
a server lost that it had acknowledged is noticed by whoever looks next, said, and never hidden.
"""

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace

from msgspec import structs

from checkpoint_router.backends.redis import facts, layout, values
from checkpoint_router.backends.redis.link import DELETE, ERASE, IMAGE, READ, Link, starting
from checkpoint_router.backends.redis.listing import Listing
from checkpoint_router.backends.redis.place import Place
from checkpoint_router.backends.redis.writer import Writer
from checkpoint_router.core.answers import NewBlob
from checkpoint_router.core.errors import Refused, Unavailable
from checkpoint_router.core.ids import EventId, ThreadKey
from checkpoint_router.core.records import Entry, unpack_entry
from checkpoint_router.core.token import KEY_BYTES
from checkpoint_router.storage.codec import lost, open_envelope
from checkpoint_router.storage.port import (
    Append,
    Appended,
    Blobs,
    Erase,
    Facts,
    Known,
    Records,
    ThreadImage,
)
from checkpoint_router.telemetry.logging import logger

_ENTRY_HEAD = 17
"""Flag, actor, n: before the sealed entry in a row of the log."""


class RedisStorage:
    """See `storage.port.Storage` for each verb. Nothing is touched before `open`."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._link = Link(place, self._noticed)
        self._writer = Writer(self._link, self._noticed)
        self._listing = Listing(self._link)
        self._key = b""
        self._losses: list[str] = []
        self._mending: set[asyncio.Task[None]] = set()

    # Life ------------------------------------------------------------------------------------

    async def open(self) -> None:
        try:
            (await self.open_to_look()).check()
            with starting(self._place):
                await self._prepare()
        except BaseException:
            await self.close()
            raise
        self._writer.new_actor()

    async def open_to_look(self) -> facts.Found:
        """Connects, and changes nothing: for whoever only reads."""
        with starting(self._place):
            await self._link.open()
            return await facts.read(self._link)

    async def check_format(self) -> None:
        """Raises Refused for a database of another format; one that has none yet will do."""
        found = await self._link.do("get", layout.FORMAT_KEY)
        if found not in (None, layout.FORMAT):
            raise Refused(
                f"{self._place.url} has storage format {found.decode(errors='replace')}; this "
                f"version knows {layout.FORMAT.decode()}. Nothing was changed. Start the version "
                f"that wrote it, or name another database."
            )

    async def _prepare(self) -> None:
        link = self._link
        await link.do("setnx", layout.FORMAT_KEY, layout.FORMAT)
        await self.check_format()
        await link.do("setnx", layout.SYSTEM_KEY, secrets.token_bytes(KEY_BYTES))
        self._key = bytes(await link.do("get", layout.SYSTEM_KEY))

    async def close(self) -> None:
        await self._writer.stop()
        while self._mending:
            await asyncio.wait(self._mending)
        await self._link.close()

    def _noticed(self, what: str) -> None:
        """The server lost writes: no dot of this actor is given again, and what this process
        made once for all is made again."""
        logger("redis").warning("lost acknowledged writes", storage=self._place.url, what=what)
        self._losses = [*self._losses[:1], what]
        self._writer.new_actor()
        task = asyncio.ensure_future(self._put_back())
        self._mending.add(task)
        task.add_done_callback(self._mending.discard)

    async def _put_back(self) -> None:
        try:
            await self._link.do("setnx", layout.FORMAT_KEY, layout.FORMAT)
            await self._link.do("setnx", layout.SYSTEM_KEY, self._key)
            await self._writer.announce_again()
        except Unavailable:
            logger("redis").warning("what all threads share could not be put back")

    def check(self) -> None:
        pass

    @property
    def actor(self) -> int:
        return self._writer.actor

    @property
    def shared(self) -> bool:
        return True

    async def system_key(self) -> bytes:
        return self._key

    async def facts(self) -> Facts:
        found = (await facts.read(self._link)).facts()
        if not self._losses:
            return found
        text = (
            f"Redis lost writes that it had acknowledged: {'; then '.join(self._losses)}. What "
            f"this router held of a thread is put back when the thread is used; what it did not "
            f"hold is gone. Look for a restart, a fail-over, a restored dump or FLUSHALL."
        )
        return replace(found, alarms=(text, *found.alarms))

    # Writing ---------------------------------------------------------------------------------

    async def append(self, append: Append) -> Appended:
        answer: Appended = await self._writer.do(append.thread, append, append.gen, append.blobs)
        return answer

    async def put_blobs(self, thread: ThreadKey, gen: int, blobs: Sequence[NewBlob]) -> bool:
        answer: bool = await self._writer.do(thread, None, gen, blobs)
        return answer

    async def delete(self, thread: ThreadKey, gen: int | None, operation: bytes = b"") -> int:
        ask = {
            "inc": self._writer.incarnation,
            "gen": "" if gen is None else str(gen),
            "next": "" if gen is None else str(gen + 1),
            "operation": operation,
            "thread": thread.thread,
            "leaf": layout.leaf_of_thread(thread),
        }
        await self._writer.announce(thread)
        (live,) = await self._link.run(DELETE, thread, ask)
        return int(live)

    async def erase(self, erase: Erase) -> bool:
        ask = {
            "inc": self._writer.incarnation,
            "gen": str(erase.gen),
            "operation": erase.operation,
            "stored": erase.stored,
            "ids": [layout.event_field(e) for e in erase.events],
            "hashes": erase.blobs,
            "thread": erase.thread.thread,
            "leaf": layout.leaf_of_thread(erase.thread),
        }
        await self._writer.announce(erase.thread)
        (done,) = await self._link.run(ERASE, erase.thread, ask)
        return bool(done)

    # Reading ---------------------------------------------------------------------------------

    async def image(self, thread: ThreadKey, known: Known | None = None) -> ThreadImage:
        counts = [] if known is None else known.counts.items()
        ask = {
            "gen": "" if known is None else str(known.gen),
            "erased": 0 if known is None else known.erasures,
            "counts": [(actor.to_bytes(8, "big"), n) for actor, n in counts],
        }
        gen, partial, flat, rows = await self._link.run(IMAGE, thread, ask)
        found = dict(zip(flat[::2], map(int, flat[1::2]), strict=True))
        return ThreadImage(
            gen=int(gen),
            entries=tuple(_entry(thread, row) for row in rows),
            erasures=found.pop(b"erased", 0),
            counts={int.from_bytes(a, "big"): n for a, n in found.items() if a != b"live"},
            partial=bool(partial),
        )

    async def missing_blobs(
        self, thread: ThreadKey, gen: int, hashes: Sequence[bytes]
    ) -> tuple[bytes, ...]:
        stored = await self.blob_sizes(thread, gen, hashes)
        return tuple(h for h in hashes if h not in stored)

    async def events(
        self, thread: ThreadKey, gen: int, ids: Sequence[EventId]
    ) -> Mapping[EventId, bytes]:
        return (await self._read(thread, gen, ids=ids)).events

    async def blobs(
        self, thread: ThreadKey, gen: int, hashes: Sequence[bytes], budget_bytes: int
    ) -> Blobs:
        return (await self._read(thread, gen, hashes=hashes, budget=budget_bytes)).blobs

    async def records(
        self, thread: ThreadKey, gen: int, ids: Sequence[EventId], budget_bytes: int
    ) -> Records:
        return await self._read(thread, gen, ids=ids, named=True, budget=budget_bytes)

    async def _read(
        self,
        thread: ThreadKey,
        gen: int,
        *,
        ids: Sequence[EventId] = (),
        hashes: Sequence[bytes] = (),
        named: bool = False,
        budget: int = 0,
    ) -> Records:
        by_field = {layout.event_field(i): i for i in ids}
        ask = {
            "gen": str(gen),
            "ids": tuple(by_field),
            "hashes": tuple(hashes),
            "named": named,
            "rows": False,
            "budget": budget,
        }
        records, found, rest = await self._link.run(READ, thread, ask)
        return Records(
            events={by_field[f]: _record(thread, by_field[f], row) for f, row in records},
            blobs=Blobs(
                found={h: values.value(thread, h, row, data) for h, row, data in found},
                rest=tuple(rest),
            ),
        )

    async def blob_sizes(
        self, thread: ThreadKey, gen: int, hashes: Sequence[bytes]
    ) -> Mapping[bytes, int]:
        ask = {
            "gen": str(gen),
            "ids": (),
            "hashes": tuple(hashes),
            "named": False,
            "rows": True,
            "budget": 0,
        }
        _, rows, _ = await self._link.run(READ, thread, ask)
        versions = (values.version(thread, row) for row in rows)
        return {v.hash: len(v.head) + v.keep for v in versions}

    async def erased(self, thread: ThreadKey, operation: bytes) -> bool:
        kept = layout.keys(thread)[1]
        return bool(await self._link.do("hexists", kept, b"o" + operation))

    # Over many threads -----------------------------------------------------------------------

    async def threads(self, tenant: str, after: str, limit: int) -> Sequence[str]:
        return await self._listing.threads(tenant, after, limit)

    async def slot_threads(
        self, slot: int, after: tuple[int, str, str] | None, limit: int
    ) -> Sequence[tuple[int, ThreadKey]]:
        return await self._listing.slot_threads(slot, after, limit)

    async def newest(
        self, tenant: str, before: tuple[str, str] | None, limit: int
    ) -> Sequence[tuple[str, str]]:
        return await self._listing.newest(tenant, before, limit)

    async def threads_of_runs(self, tenant: str, runs: Sequence[str]) -> Sequence[str]:
        return await self._listing.threads_of_runs(tenant, runs)


def _entry(thread: ThreadKey, row: bytes) -> Entry:
    dot = f"{row[1:9].hex()}/{int.from_bytes(row[9:_ENTRY_HEAD], 'big')}"
    entry = unpack_entry(open_envelope(row[_ENTRY_HEAD:], thread, f"index entry {dot}"))
    return structs.replace(entry, erased=True) if row[:1] == b"\1" else entry


def _record(thread: ThreadKey, id: EventId, row: bytes) -> bytes:
    record = f"event {id}"
    if not row:
        raise lost(thread, record, "its record is not there")
    return open_envelope(layout.record_body(row), thread, record)
