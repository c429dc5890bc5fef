"""What a look through a whole Cassandra needs beside the port: every thread, and every list.

Threads are found by their partitions and by all lists, so that what any one of them lacks is seen.
Rules: a row of a list is written as any router writes it, under the timestamp of rows, so it can
come too late for nothing; one is removed only if what it names can never come to be seen again.
"""

import asyncio
import secrets
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from itertools import groupby
from typing import Final

from checkpoint_router.backends.cassandra import index
from checkpoint_router.backends.cassandra.backend import CALL_SECONDS, CassandraStorage
from checkpoint_router.backends.cassandra.listings import (
    BEGINNING,
    Line,
    newest_line,
    run_line,
    slot_line,
    thread_line,
)
from checkpoint_router.backends.cassandra.parts import RENEWED, Parts, name_of, part_of
from checkpoint_router.backends.cassandra.session import Row, Session
from checkpoint_router.backends.cassandra.statements import LOG, RECORD, REMOVED, ROW, VOID, Name
from checkpoint_router.backends.cassandra.target import parse
from checkpoint_router.backends.cassandra.values import key_of
from checkpoint_router.core.ids import ThreadKey, slot_of
from checkpoint_router.core.limits import SLOTS
from checkpoint_router.core.records import Entry, Kind, unpack_entry
from checkpoint_router.storage.codec import open_envelope
from checkpoint_router.storage.port import ThreadImage
from checkpoint_router.storage.scrub import Fault, Page, Shard, place
from checkpoint_router.storage.scrub import Kind as Wrong

_AT_ONCE: Final = 32
"""Rows that are asked for together. More: a live server has others to answer."""

_PAGE: Final = 1000

_AT_ONCE_THREADS: Final = 1000
"""Of a page. Fewer: those that look broken in it are waited for more often."""

_NAMES_MAX: Final = 100_000
"""Threads and rows of lists that are remembered, some 1 KB each. More: more memory. Fewer: all
names are read more often."""

_BEFORE_ALL: Final = (-(2**63),)
"""The token before that of every partition."""

_LISTS: Final = {
    "s": "the list of its slot's threads",
    "t": "the list of its tenant's threads",
    "c": "the list by checkpoint id",
    "b": "the list of beginnings of checkpoint ids",
    "r": "the list by run",
}


class _Looked(CassandraStorage):
    """A storage whose session is lent."""

    @property
    def session(self) -> Session:
        return self._parts.session

    @property
    def parts(self) -> Parts:
        return self._parts.listings.parts


@asynccontextmanager
async def opened(rest: str, *, repair: bool) -> AsyncIterator[Shard]:
    """The storage of `cassandra:rest`, to be looked through beside routers or without one."""
    storage = _Looked(parse(rest))
    try:
        await storage.open_to_look()
        yield CassandraShard(storage)
    finally:
        await storage.close()


class CassandraShard:
    """See `storage.scrub.Shard`."""

    grace_seconds = CALL_SECONDS
    """A put's batch and its rows in the lists are sent side by side, and sent again that long."""

    def __init__(self, storage: _Looked) -> None:
        self.storage = storage
        self._session = storage.session
        self._parts = storage.parts
        self._slots: dict[int, dict[ThreadKey, set[Line]]] = {}
        """What is remembered: of the slots from `_first` on, up to `_end`, each thread, with the
        rows of lists that name it and may lead to nothing."""
        self._first = self._end = 0
        self._scanned = range(0)
        """The same slots, when all of them was read."""
        self._held = 0
        """Names and rows that are remembered."""
        self._later = 0
        """Threads of slots from `_end` on, as far as is known."""

    async def whole(self, *, repair: bool) -> list[Fault]:
        """Nothing: all belongs to a thread."""
        return []

    async def page(self, cursor: str, *, repair: bool) -> Page | None:
        """Slot by slot."""
        begin = place(cursor, "cassandra")
        numbers: list[int] = []
        while not numbers:
            if begin >= SLOTS:
                return None
            if begin not in self._scanned:
                await self._scan(begin)
            numbers = sorted(number for number in self._slots if number >= begin)
            begin = numbers[0] if numbers else self._end
        left = self._later + sum(len(self._slots[number]) for number in numbers)
        threads: list[ThreadKey] = []
        for number in numbers:
            threads += sorted(self._slots[number])
            begin = number + 1
            if len(threads) >= _AT_ONCE_THREADS:
                break
        return Page(threads=threads, cursor=f"cassandra:{begin}", left=left)

    async def _scan(self, first: int) -> None:
        """Remembers as many slots from `first` on as there is room for: Cassandra has the names in
        no order of ours, so all are read each time."""
        self._slots.clear()
        self._scanned = range(0)
        self._first, self._end = first, SLOTS
        self._held = self._later = 0
        async for tenant, name, _, _ in self._pages(Name.ALL_THREADS, (), _BEFORE_ALL):
            self._note(ThreadKey(tenant, name))
        async for tenant, part, _ in self._pages(Name.ALL_LISTS, (), _BEFORE_ALL):
            kind = "s" if not tenant else part_of(part)[0]
            if kind in "stc":
                await self._scan_list(tenant, part, kind)
        self._scanned = range(first, self._end)

    async def _scan_list(self, tenant: str, part: str, kind: str) -> None:
        events: list[Row] = []
        async for row in self._pages(Name.LIST_AFTER_ROW, (tenant, part), ("", "", "")):
            if kind == "s":
                self._note(ThreadKey(*row[1:]))
            elif kind == "t":
                self._note(ThreadKey(tenant, row[0]), (tenant, part, *row))
            elif self._first <= slot_of(row[1]) < self._end:
                events.append(row)
            if len(events) >= _PAGE:
                await self._lead_nowhere(tenant, part, events)
                events.clear()
        await self._lead_nowhere(tenant, part, events)

    def _note(self, thread: ThreadKey, *lines: Line) -> None:
        number = slot_of(thread.thread)
        if number >= self._end and not lines:
            self._later += 1
        if not self._first <= number < self._end:
            return
        threads = self._slots.setdefault(number, {})
        self._held += len(lines) + (thread not in threads)
        threads.setdefault(thread, set()).update(lines)
        while self._held > _NAMES_MAX and len(self._slots) > 1:
            self._end = max(self._slots)
            dropped = self._slots.pop(self._end)
            self._later += len(dropped)
            self._held -= len(dropped) + sum(len(lines) for lines in dropped.values())

    async def _pages(self, name: Name, of: Row, after: Row) -> AsyncIterator[Row]:
        """Rows of a list that ends each with where the next page begins."""
        while rows := await self._session.read(name, *of, *after, _PAGE):
            for row in rows:
                yield row
            after = rows[-1][-len(after) :]

    async def _lead_nowhere(self, tenant: str, part: str, rows: Iterable[Row]) -> None:
        """Keeps rows of the list by checkpoint id whose event has no record."""
        named = sorted(
            (thread, _event(k3), (tenant, part, cid, thread, k3)) for cid, thread, k3 in rows
        )
        for (thread, gen), some in groupby(named, lambda one: (one[0], one[1][0])):
            lines = {key: line for _, (_, key), line in some}
            keys = list(lines)
            for at in range(0, len(keys), _AT_ONCE):
                of = (tenant, thread, gen, RECORD, keys[at : at + _AT_ONCE])
                for key, *_ in await self._session.read(Name.FIRST_KEYS, *of):
                    lines.pop(key, None)
            if lines:
                self._note(ThreadKey(tenant, thread), *lines.values())

    # One thread ------------------------------------------------------------------------------

    async def index(self, thread: ThreadKey, image: ThreadImage, *, repair: bool) -> list[Fault]:
        """Its lists and its log. What is put meanwhile may be seen half: see `grace_seconds`."""
        shown = [entry for entry in image.entries if not entry.erased]
        lacking = await self._lacking(_needed(thread, image.gen, shown, bool(image.entries)))
        dead, unknown = await self._dead(thread, image)
        if repair:
            await self._mend(thread, lacking, dead)
        faults = [_fault(Wrong.INDEX, thread, line, "lacks it") for line in lacking]
        faults += [
            _fault(Wrong.INDEX, thread, line, "has it, and it is gone for ever") for line in dead
        ]
        text = "has it, and it is not there: its put was not finished, or the log lost it"
        faults += [_fault(Wrong.NOTE, thread, line, text) for line in unknown]
        return faults + await self._log(thread, image)

    async def _lacking(self, needed: Iterable[Line]) -> list[Line]:
        """Those of these rows that are not there; an empty last field stands for any."""
        lines = list(dict.fromkeys(needed))
        found: list[Line] = []
        for at in range(0, len(lines), _AT_ONCE):
            some = lines[at : at + _AT_ONCE]
            there = await asyncio.gather(*(self._rows_of(line) for line in some))
            for line, rows in zip(some, there, strict=True):
                if not any(line[1][0] == "t" or row[2] == line[4] for row in rows):
                    found.append(line)
        return found

    async def _rows_of(self, line: Line) -> list[Row]:
        """Those like it but for the last field, in any version of its part."""
        tenant, part, k1, k2, _ = line
        names = [part]
        if part[:1] in RENEWED:
            names = (await self._parts.look((tenant, part))).names((tenant, part))
        found = await asyncio.gather(
            *(self._session.read(Name.LIST_OF, tenant, name, k1, k2) for name in names)
        )
        return [row for rows in found for row in rows]

    async def _dead(self, thread: ThreadKey, image: ThreadImage) -> tuple[list[Line], list[Line]]:
        """Rows that name what was deleted or pruned; and those that name what was never seen."""
        keys = {key_of(entry.id): entry.erased for entry in image.entries}
        shown = any(not erased for erased in keys.values())
        dead: list[Line] = []
        unknown: list[Line] = []
        for line in self._slots[slot_of(thread.thread)][thread]:
            of_thread = part_of(line[1])[0] == "t"
            gen, key = (int(line[3]), b"") if of_thread else _event(line[4])
            seen = shown if of_thread else keys.get(key) is False
            if gen == image.gen and seen:
                continue
            rows = await self._session.read(Name.LIST_OF, *line[:4])
            if line[4] in (row[2] for row in rows):
                never_again = gen < image.gen or keys.get(key, False)
                (dead if never_again else unknown).append(line)
        return dead, unknown

    async def _mend(self, thread: ThreadKey, lacking: Sequence[Line], dead: Sequence[Line]) -> None:
        for line in dead:
            await self._session.write(Name.LIST_REMOVE, REMOVED, *line)
        for line in lacking:
            part = line[1]
            if part[:1] in RENEWED:
                # One that is renewed just now may lose it: the look that follows says so.
                part = name_of(part, (await self._parts.look(line[:2])).now)
            if line[1][0] != "t":
                await self._session.write(Name.LIST_PUT, line[0], part, *line[2:], ROW)
                continue
            mine = (line[0], part, *line[2:4], secrets.token_hex(8))
            await self._session.write(Name.LIST_PUT, *mine, ROW)
            # A removal that came between has not seen this one.
            image = await self.storage.image(thread)
            if str(image.gen) != line[3] or all(entry.erased for entry in image.entries):
                await self._session.write(Name.LIST_REMOVE, REMOVED, *mine)

    async def _log(self, thread: ThreadKey, image: ThreadImage) -> list[Fault]:
        """What of a thread's log is not there, or is there and not shown."""
        begun = index.begun_in(await index.ask_begun(self._session, thread, image.gen))
        counts = begun.counts
        rows = await self._session.read(Name.INDEX, thread.tenant, thread.thread, image.gen)
        numbers: dict[int, set[int]] = defaultdict(set)
        for row in rows:
            if row[0] == LOG:
                numbers[_actor(row)].add(row[2])
        found = []
        gaps = set()
        for actor in sorted(numbers.keys() | counts.keys()):
            last = max(counts.get(actor, 0), *numbers[actor], 0)
            if len(numbers[actor]) < last:
                gaps.add(actor)
                text = f"the log lacks {last - len(numbers[actor]):,} of {last:,} events of it"
                what = f"router {actor:016x}"
                found.append(Fault(kind=Wrong.LOG, thread=thread, record=what, text=text))
        logged = [row for row in rows if row[0] == LOG and _actor(row) not in gaps]
        return found + await self._hidden(thread, image, logged, rows)

    async def _hidden(
        self, thread: ThreadKey, image: ThreadImage, logged: Sequence[Row], rows: Sequence[Row]
    ) -> list[Fault]:
        """Events that stand in the log and are not shown."""
        void = {(row[1], row[2]) for row in rows if row[0] == VOID}
        shown = {entry.id for entry in image.entries}
        found = []
        for row in logged:
            entry = unpack_entry(open_envelope(row[3] or b"", thread, "log row"))
            if entry.id in shown or (row[1], row[2]) in void:
                continue
            of = (thread.tenant, thread.thread, image.gen, RECORD, [key_of(entry.id)])
            recorded = bool(await self._session.read(Name.FIRST_KEYS, *of))
            what = "a value of it is" if recorded else "its record is"
            text = f"it stands in the log, and {what} not there: it is lost, or was never answered"
            # A put that met a prune leaves such a row, if its router died before it could say so.
            kind = Wrong.NOTE if recorded and image.erasures else Wrong.RECORD
            found.append(Fault(kind=kind, thread=thread, record=f"event {entry.id}", text=text))
        return found


def _needed(thread: ThreadKey, gen: int, shown: Sequence[Entry], used: bool) -> list[Line]:
    lines = [slot_line(thread)] if used else []
    if shown:
        lines.append(thread_line(thread, gen, ""))
    for entry in shown:
        if entry.kind is Kind.CHECKPOINT:
            lines.append(newest_line(thread, gen, entry))
            lines.append((thread.tenant, "b", entry.checkpoint_id[:BEGINNING], "", ""))
            if entry.run_id:
                lines.append(run_line(thread, entry.run_id))
    return lines


def _event(k3: str) -> tuple[int, bytes]:
    """Generation and event of a row of the list by checkpoint id; none for a row of nobody."""
    gen, _, key = k3.partition(" ")
    try:
        return int(gen), bytes.fromhex(key)
    except ValueError:
        return 0, b""


def _actor(row: Row) -> int:
    return int.from_bytes(row[1], "big")


def _fault(kind: Wrong, thread: ThreadKey, line: Line, how: str) -> Fault:
    list_ = part_of(line[1])[0]
    record = f"checkpoint {line[2]}" if list_ == "c" else "the thread"
    return Fault(kind=kind, thread=thread, record=record, text=f"{_LISTS[list_]} {how}")
