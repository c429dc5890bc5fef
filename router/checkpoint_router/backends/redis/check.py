"""What a look through a whole Redis needs beside the port: every thread, and every index row.

Threads are found by their keys and by all lists, so that what any one of them lacks is seen. Names
of keys come in no order, so all are gone through as often as they fill the room for them. A
thread's index is compared with its log, and mended, by one script, so that no put comes between.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from checkpoint_router.backends.redis import layout
from checkpoint_router.backends.redis.backend import RedisStorage
from checkpoint_router.backends.redis.link import IMAGE, Link, Script
from checkpoint_router.backends.redis.place import parse
from checkpoint_router.core.errors import Unavailable
from checkpoint_router.core.ids import EventId, SegmentId, ThreadKey, slot_of
from checkpoint_router.core.limits import SLOTS
from checkpoint_router.core.records import Entry, Kind, unpack_entry
from checkpoint_router.storage.codec import open_envelope
from checkpoint_router.storage.port import ThreadImage
from checkpoint_router.storage.scrub import Fault, Page, Shard, place
from checkpoint_router.storage.scrub import Kind as Wrong

CHECK: Final = Script("check")

_AT_ONCE: Final = 1000
"""Rows of a list in one answer."""

_ROWS_AT_ONCE: Final = 250
"""Of a log, in one script. More: the server answers nobody else for longer than a few ms."""

_PAGE: Final = 64
"""Threads of a page, if the last slot of it has no more."""

_NAMES_MAX: Final = 200_000
"""Threads and tenants that are remembered at once, some 200 bytes each. Fewer: all names of keys
are gone through more often."""

_ROWS_MAX: Final = 200_000
"""Rows of lists that are remembered while their threads are looked at, unless one slot has more."""

_TRIES_MAX: Final = 20
"""For a thread that is pruned again and again meanwhile."""

_LISTS: Final = {
    "e": "the table of places in the log",
    "j": "the table of checkpoints",
    "n": "the list by checkpoint id",
    "r": "the list by run",
    "t": "the list of its tenant's threads",
    "i": "the list of its slot's threads",
    "c": "the table of counts",
}

_OF_THREAD: Final = frozenset(b"%c" % kind for kind in b"kcelpjbv")
_OF_TENANT: Final = frozenset(b"%c" % kind for kind in b"nrt")

Row = tuple[str, bytes, bytes]
"""List, member, event (empty: the thread)."""


class _Looked(RedisStorage):
    """A storage that puts nothing back."""

    @property
    def link(self) -> Link:
        return self._link

    def _noticed(self, what: str) -> None:
        raise Unavailable(f"Redis lost writes while it was read through: {what}. Begin again.")


@asynccontextmanager
async def opened(rest: str, *, repair: bool, scheme: str = "redis") -> AsyncIterator[Shard]:
    """The storage of `redis:rest`, to be looked through beside routers or without one."""
    storage = _Looked(parse(scheme, rest))
    try:
        await storage.open_to_look()
        await storage.check_format()
        yield RedisShard(storage)
    finally:
        await storage.close()


@asynccontextmanager
async def opened_tls(rest: str, *, repair: bool) -> AsyncIterator[Shard]:
    """The same over TLS."""
    async with opened(rest, repair=repair, scheme="rediss") as shard:
        yield shard


@dataclass(slots=True)
class _Slot:
    """What keys there are of a slot."""

    counted: int | None = None
    """Writes, as the slot's own state has them."""
    threads: set[ThreadKey] = field(default_factory=set)
    """Those with keys of their own."""
    tenants: set[str] = field(default_factory=set)
    """Those with lists."""
    listed: bool = False
    """It has the list of its threads, which says of each that it is lost."""

    def __len__(self) -> int:
        return len(self.threads) + len(self.tenants)


class RedisShard:
    """See `storage.scrub.Shard`."""

    grace_seconds = 0.0

    def __init__(self, storage: _Looked) -> None:
        self.storage = storage
        self._link = storage.link
        self._slots: dict[int, _Slot] = {}
        """What is remembered: those from `_first` on, up to `_end`."""
        self._first = self._end = 0
        self._rows: dict[int, asyncio.Future[dict[ThreadKey, set[Row]]]] = {}
        self._remembered = 0

    async def whole(self, *, repair: bool) -> list[Fault]:
        """The key that all slots share."""
        await self._scan(0)
        used = any(slot.threads for slot in self._slots.values())
        if used and await self._link.do("get", layout.SYSTEM_KEY) is None:
            text = "it is not there. A router that runs may put it back; else the next to start "
            text += "makes another, and every run begins anew"
            return [_fault(Wrong.RECORD, "the key that seals tokens", text)]
        return []

    async def page(self, cursor: str, *, repair: bool) -> Page | None:
        """Slot by slot."""
        begin = place(cursor, "redis")
        numbers: list[int] = []
        while not numbers:
            if begin >= SLOTS:
                return None
            if not self._first <= begin < self._end:
                await self._scan(begin)
            numbers = sorted(number for number in self._slots if number >= begin)
            begin = numbers[0] if numbers else self._end
        left = sum(len(self._slots[number].threads) for number in numbers)
        threads: list[ThreadKey] = []
        found: list[Fault] = []
        for number in numbers:
            found += await self._of_slot(number, repair=repair)
            threads += sorted(self._slots[number].threads | set(await self._rows_of(number)))
            begin = number + 1
            if len(threads) >= _PAGE:
                break
        left = max(left, len(threads))
        return Page(threads=threads, cursor=f"redis:{begin}", left=left, faults=found)

    async def _of_slot(self, number: int, *, repair: bool) -> list[Fault]:
        """What belongs to it and to none of its threads."""
        slot, found = self._slots[number], []
        # Keys that came while others were looked for may have been missed: asked once more.
        lost = slot.counted and not slot.threads and not slot.listed
        if lost and not await self._link.do("exists", layout.by_leaf(number)):
            text = f"it counted {slot.counted:,} writes, and there is nothing of any thread"
            found.append(_fault(Wrong.LOG, f"slot {number}", text))
        uncounted = slot.threads and slot.counted is None
        if uncounted and not await self._link.do("exists", layout.slot_key(number)):
            text = "it has threads, and its count of writes is gone: somebody removed keys"
            found.append(_fault(Wrong.NOTE, f"slot {number}", text))
        # In which slots a tenant may have threads.
        for tenant in sorted(slot.tenants | {thread.tenant for thread in slot.threads}):
            bit = layout.slots_key(tenant), number
            if not await self._link.do("getbit", *bit):
                if repair:
                    await self._link.do("setbit", *bit, 1)
                text = f"tenant {tenant!r} has threads in it, and the list of its slots lacks it"
                found.append(_fault(Wrong.INDEX, f"slot {number}", text, mended=repair))
        return found

    async def _scan(self, first: int) -> None:
        """Remembers as many slots from `first` on as there is room for. Every key that is there
        from the beginning to the end is seen at least once."""
        self._first = self._end = 0
        self._slots.clear()
        end, names = SLOTS, 0
        async for key in self._link.keys(b"cr:{*"):
            head, _, rest = key.partition(b"}:")
            number = int(head[4:])
            if not first <= number < end:
                continue
            slot = self._slots.setdefault(number, _Slot())
            names -= len(slot)
            await self._note(slot, key, rest)
            names += len(slot)
            while names > _NAMES_MAX and len(self._slots) > 1:
                end = max(self._slots)
                names -= len(self._slots.pop(end))
        self._first, self._end = first, end

    async def _note(self, slot: _Slot, key: bytes, rest: bytes) -> None:
        kind, _, name = rest.partition(b":")
        if kind == b"s":
            slot.counted = int(await self._link.do("hget", key, "seq") or 0)
        elif kind == b"i":
            slot.listed = True
        elif kind in _OF_THREAD:
            slot.threads.add(ThreadKey(*name.decode().split("\0", 1)))
        elif kind in _OF_TENANT:
            slot.tenants.add(name.decode())

    # The lists of a slot ---------------------------------------------------------------------

    async def _rows_of(self, slot: int) -> dict[ThreadKey, set[Row]]:
        """Rows by the thread that they name."""
        if slot not in self._rows:
            if self._remembered > _ROWS_MAX:
                self._rows.clear()
                self._remembered = 0
            self._rows[slot] = asyncio.ensure_future(self._read_rows(slot))
        return await self._rows[slot]

    async def _read_rows(self, slot: int) -> dict[ThreadKey, set[Row]]:
        found: dict[ThreadKey, set[Row]] = defaultdict(set)
        async for member in self._members(layout.by_leaf(slot)):
            tenant, _, name = member[2:].partition(b"\0")
            found.setdefault(ThreadKey(tenant.decode(), name.decode()), set())
        for tenant_name in self._slots[slot].tenants:
            async for member in self._members(layout.of_tenant("n", slot, tenant_name)):
                _, name, id = member.split(b"\0", 2)
                found[ThreadKey(tenant_name, name.decode())].add(("n", member, id))
            async for member in self._members(layout.of_tenant("r", slot, tenant_name)):
                name, _, id = member[16:].partition(b"\0")
                found[ThreadKey(tenant_name, name.decode())].add(("r", member, id))
            async for member in self._members(layout.of_tenant("t", slot, tenant_name)):
                found[ThreadKey(tenant_name, member.decode())].add(("t", member, b""))
        self._remembered += sum(1 + len(rows) for rows in found.values())
        return found

    async def _members(self, key: bytes) -> AsyncIterator[bytes]:
        low = b"-"
        while page := await self._link.do("zrangebylex", key, low, b"+", 0, _AT_ONCE):
            for member in page:
                yield member
            low = b"(" + page[-1]

    # One thread ------------------------------------------------------------------------------

    async def index(self, thread: ThreadKey, image: ThreadImage, *, repair: bool) -> list[Fault]:
        """By a script for each piece of the log, which answers for the moment in which it runs."""
        listed = (await self._rows_of(slot_of(thread.thread))).get(thread, set())
        for _ in range(_TRIES_MAX):
            places, members = await self._link.run(CHECK, thread, {"fields": True})
            log = await self._log(thread)
            found = log.gaps()
            for piece in log.pieces(places, members, listed):
                verdict, *said = await self._link.run(CHECK, thread, {**piece, "mend": repair})
                if verdict != b"done":
                    break
                found += [_said(thread, *one) for one in said[0]]
            else:
                return found
        raise Unavailable(f"thread {thread.thread!r} is pruned all the time. Look again later.")

    async def _log(self, thread: ThreadKey) -> "_Log":
        ask: dict[str, Any] = {"gen": "", "erased": 0, "counts": []}
        gen, _, flat, rows = await self._link.run(IMAGE, thread, ask)
        counts = dict(zip(flat[::2], map(int, flat[1::2]), strict=True))
        return _Log(thread, gen, counts, rows)


class _Log:
    """A thread's log at one moment, and what its index has to be for it."""

    def __init__(
        self, thread: ThreadKey, gen: bytes, counts: dict[bytes, int], rows: Sequence[bytes]
    ) -> None:
        self.thread = thread
        self._gen, self._counts = gen, counts
        self._numbers: dict[bytes, set[int]] = defaultdict(set)
        for row in rows:
            self._numbers[row[1:9]].add(int.from_bytes(row[9:17], "big"))
        self._erased = sum(row[0] for row in rows)
        self._entries = [
            (row[0], unpack_entry(open_envelope(row[17:], thread, "index entry"))) for row in rows
        ]

    def gaps(self) -> list[Fault]:
        """Actors whose rows are not 1, 2, 3 … up to what was counted."""
        found = []
        for actor in sorted(self._numbers.keys() | self._counts.keys() - {b"live", b"erased"}):
            numbers = self._numbers.get(actor, set())
            last = max(self._counts.get(actor, 0), *numbers, 0)
            if len(numbers) < last:
                text = f"the log lacks {last - len(numbers):,} of {last:,} events that it gave it"
                found.append(_fault(Wrong.LOG, f"router {actor.hex()}", text, self.thread))
        return found

    def pieces(
        self, places: Sequence[bytes], members: Sequence[bytes], listed: set[Row]
    ) -> Iterator[dict[str, Any]]:
        """For the script. What is handed in was there before the log was read."""
        asked = {
            "fields": False,
            "gen": self._gen,
            "erasures": self._counts.get(b"erased", 0),
            "last": False,
        }
        rows = [self._row(position, *one) for position, one in enumerate(self._entries)]
        for at in range(0, len(rows), _ROWS_AT_ONCE):
            yield {**asked, "rows": rows[at : at + _ROWS_AT_ONCE]}
        indices: dict[SegmentId, set[int]] = defaultdict(set)
        for _, entry in self._entries:
            indices[entry.id.segment].add(entry.id.index)
        live = len(self._entries) - self._erased
        wanted = {("n", row[3]) for row in rows} | {("r", row[4]) for row in rows}
        if live:
            wanted.add(("t", self.thread.thread.encode()))
        known = {row[0] for row in rows}
        shown = {row[0] for row in rows if row[2]}
        yield {
            **asked,
            "rows": (),
            "last": True,
            "places": [f[1:] for f in places if f[:1] == b"e" and f[1:] not in known],
            "members": [id for id in members if id not in shown],
            "beyond": [row for row in listed if row[:2] not in wanted],
            "erased": self._erased,
            "total": len(rows),
            "live": live,
            "counts": [(actor, max(numbers)) for actor, numbers in self._numbers.items()],
            "gapless": [(segment, _gapless(known)) for segment, known in indices.items()],
            "thread": self.thread.thread,
            "leaf": layout.leaf_of_thread(self.thread),
        }

    def _row(self, position: int, erased: int, entry: Entry) -> tuple[bytes, ...]:
        """Event, its place, and what tables and lists have to have of it, if it is listed."""
        field, place = layout.event_field(entry.id), position.to_bytes(8, "big") + entry.digest
        if erased or entry.kind is not Kind.CHECKPOINT:
            return field, place, b"", b"", b""
        run = b"" if entry.run_id is None else layout.run_hash(entry.run_id)
        cid, tail = (
            entry.checkpoint_id.encode() + b"\0",
            self.thread.thread.encode() + b"\0" + field,
        )
        return field, place, cid + run, cid + tail, run and run + tail


def _gapless(known: set[int]) -> int:
    last = 0
    while last + 1 in known:
        last += 1
    return last


_HOW: Final = {
    b"lacks": (Wrong.INDEX, "lacks it, or has it wrong"),
    b"beyond": (Wrong.INDEX, "has it, and it is not there"),
    b"lost": (Wrong.LOG, "has it, and nothing of it is there"),
}


def _said(thread: ThreadKey, list: bytes, id: bytes, how: bytes) -> Fault:
    record = f"event {EventId(SegmentId(id[:16]), int(id[16:]))}" if id else "the thread"
    kind, text = _HOW[how]
    return _fault(kind, record, f"{_LISTS[list.decode()]} {text}", thread)


def _fault(
    kind: Wrong, record: str, text: str, thread: ThreadKey | None = None, *, mended: bool = False
) -> Fault:
    return Fault(kind=kind, thread=thread, record=record, text=text, mended=mended)
