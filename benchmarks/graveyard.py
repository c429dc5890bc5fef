"""`python -m benchmarks.graveyard URL`: do deletes and prunes make reads slower and slower?

Threads come, grow, are pruned and go, as those of agents that are asked one thing and forgotten;
a few stay for ever. All of it goes to the storage itself, without a router. In windows along the
way it says how long reads take: a look at a thread that never was, for comparison, one at a thread
that stays, its newest value, the newest checkpoints of the tenant, and its threads; on Cassandra
also how many tombstones such a read met at the most, as the server traced it, or a question mark
where it had no time to. It asserts nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import re
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import ormsgpack
from cassandra.query import TraceUnavailable

from checkpoint_router.backends.cassandra import CassandraStorage
from checkpoint_router.core.answers import NewBlob
from checkpoint_router.core.digests import blob_hash, event_digest
from checkpoint_router.core.errors import Unavailable
from checkpoint_router.core.ids import EventId, SegmentId, ThreadKey
from checkpoint_router.core.records import (
    Blob,
    ChannelEntry,
    Checkpoint,
    Event,
    Typed,
    entry_of,
    pack_event,
)
from checkpoint_router.storage.open import storage_from_url
from checkpoint_router.storage.port import Append, Duplicate, Erase, Storage, Stored

TENANT: Final = "graveyard"

AT_ONCE: Final = 16
"""Threads that grow beside each other."""

LIFE: Final = 20
"""Checkpoints of a thread, which is pruned once half way, and deleted after them."""

STAY_EACH: Final = 500
"""One thread in so many stays, as it was after its prune."""

TRIES: Final = 5

READS: Final = 30
"""Of each kind in a window."""


T = TypeVar("T")


async def again(work: Callable[[], Awaitable[T]]) -> T:
    """What it returns, after as many tries as a busy machine takes: each has the effect of one."""
    for _ in range(TRIES - 1):
        with contextlib.suppress(Unavailable):
            return await work()
    return await work()


class Life:
    """One thread: a list that grows by a message with each checkpoint."""

    def __init__(self, storage: Storage, name: str, chance: random.Random) -> None:
        self._storage = storage
        self._segment = SegmentId(chance.randbytes(16))
        self._chance = chance
        self._messages: list[str] = []
        self._events: list[EventId] = []
        self._values: list[NewBlob] = []
        self.thread = ThreadKey(TENANT, name)

    @property
    def newest(self) -> bytes:
        """The hash of its last value."""
        return self._values[-1].hash

    async def put(self, checkpoint_id: str) -> None:
        """One checkpoint more."""
        self._messages.append(self._chance.randbytes(128).hex())
        data = ormsgpack.packb(self._messages)
        before = self._values[-1].hash if self._values else None
        value = NewBlob(
            hash=blob_hash("msgpack", data), value=Typed("msgpack", data), continues=before
        )
        event = Event(
            id=EventId(self._segment, len(self._events) + 1),
            ns="",
            checkpoint_id=checkpoint_id,
            gen=1,
            term=0,
            hlc=1 + len(self._events),
            after=(),
            header=None,
            content=Checkpoint(
                parent_id=None,
                body=Typed("msgpack", bytes(500)),
                manifest=(ChannelEntry("messages", len(self._events), Blob(value.hash)),),
                metadata=(),
            ),
        )
        packed = pack_event(event)
        append = Append(
            thread=self.thread,
            gen=1,
            entry=entry_of(event, event_digest(packed)),
            packed=packed,
            needs=(),
            names=(value.hash,),
            blobs=(value,),
        )
        answer = await again(lambda: self._storage.append(append))
        if not isinstance(answer, Stored | Duplicate):
            raise RuntimeError(f"a put was answered with {answer}")
        self._events.append(event.id)
        self._values.append(value)

    async def prune(self) -> None:
        """Leaves the newest checkpoint."""
        erase = Erase(
            thread=self.thread,
            gen=1,
            operation=self._chance.randbytes(16),
            events=tuple(self._events[:-1]),
            blobs=tuple(v.hash for v in self._values[:-1]),
            stored=len(self._events),
        )
        if not await again(lambda: self._storage.erase(erase)):
            raise RuntimeError("a prune was refused")

    async def delete(self) -> None:
        """All of it."""
        await again(lambda: self._storage.delete(self.thread, 1))


class Graveyard:
    """All lives."""

    def __init__(self, storage: Storage, seed: int) -> None:
        self._storage = storage
        self._chance = random.Random(seed)  # noqa: S311 - no secrets here
        self._born = 0
        self.puts = self.deletes = self.prunes = 0
        self.stays: list[Life] = []

    async def go_on(self, puts: int) -> None:
        """Until so many are done in all."""
        await asyncio.gather(*(self._lives(puts) for _ in range(AT_ONCE)))

    async def _lives(self, puts: int) -> None:
        while self.puts < puts:
            self._born += 1
            stays = self._born % STAY_EACH == 1
            # Names as agents choose them, so that those that stay lie between those that went.
            life = Life(self._storage, f"{self._chance.getrandbits(64):016x}", self._chance)
            for number in range(LIFE):
                await life.put(self._next_id())
                self.puts += 1
                if number == LIFE // 2:
                    await life.prune()
                    self.prunes += 1
                    if stays:
                        self.stays.append(life)
                        break
            else:
                await life.delete()
                self.deletes += 1

    def _next_id(self) -> str:
        """Ids grow with time, as those of LangGraph do: the first characters of a version 6
        UUID are the time in steps of 27 seconds."""
        ticks = int(time.time() * 1e7) + 0x01B21DD213814000
        text = f"{ticks >> 12:012x}6{ticks & 0xFFF:03x}{self._chance.getrandbits(64):016x}"
        return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


class Tombstones:
    """The most that one request met, while it is open; a server of another kind has none."""

    def __init__(self, storage: Storage) -> None:
        self._cassandra = storage if isinstance(storage, CassandraStorage) else None

    async def met(self, read: Callable[[], Awaitable[Any]]) -> str:
        """By `read`, which is done once, as a column."""
        if self._cassandra is None:
            return ""
        driver = self._cassandra._parts.session._open_driver
        asked, send = [], driver.execute_async

        def traced(statement: Any, **how: Any) -> Any:
            response = send(statement, trace=True, **how)
            asked.append(response)
            return response

        driver.execute_async = traced
        try:
            await read()
        finally:
            del driver.execute_async
        try:
            most = await asyncio.to_thread(lambda: max(map(_tombstones, asked), default=0))
        except TraceUnavailable:
            return "       ?"
        return f"{most:>8,}"


def _tombstones(response: Any) -> int:
    said = (event.description for event in response.get_query_trace(max_wait=20).events)
    found = [re.search(r"and (\d+) tombstone", text) for text in said]
    return sum(int(match[1]) for match in found if match)


async def window(storage: Storage, yard: Graveyard) -> str:
    """One line: milliseconds of each kind of read, the median and the worst of some."""
    life = yard.stays[0]
    kinds: dict[str, Callable[[], Awaitable[Any]]] = {
        "nobody": lambda: storage.image(ThreadKey(TENANT, "nobody")),
        "look": lambda: storage.image(life.thread),
        "value": lambda: storage.blobs(life.thread, 1, [life.newest], 1 << 30),
        "newest": lambda: storage.newest(TENANT, None, 10),
        "threads": lambda: storage.threads(TENANT, "", 10),
    }
    parts = [f"{yard.puts:>8,} {yard.prunes:>7,} {yard.deletes:>7,}"]
    for read in kinds.values():
        times = []
        for _ in range(READS):
            began = time.perf_counter()
            await read()
            times.append((time.perf_counter() - began) * 1e3)
        dead = await Tombstones(storage).met(read)
        parts.append(f"{statistics.median(times):>7.2f} {max(times):>7.1f}{dead}")
    return " |".join(parts)


async def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.graveyard", description=__doc__)
    parser.add_argument("url", help="of an empty storage: sqlite:DIR, redis://…, cassandra://…")
    parser.add_argument("--puts", type=int, default=100_000)
    parser.add_argument("--windows", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    storage = storage_from_url(options.url)
    await storage.open()
    yard = Graveyard(storage, options.seed)
    dead = "  tombst." if isinstance(storage, CassandraStorage) else ""
    kinds = ("nobody", "look", "value", "newest", "threads")
    print("    puts  prunes deletes | " + " | ".join(f"{k:>7} worst{dead}" for k in kinds))
    try:
        for number in range(1, options.windows + 1):
            await yard.go_on(options.puts * number // options.windows)
            print(await window(storage, yard), flush=True)
    finally:
        await storage.close()


if __name__ == "__main__":
    asyncio.run(main())
