"""Rows over many threads: what a tenant has, what stands in a slot, what is newest.

A row is written before its put is acknowledged, in another partition than the thread: puts that
wait together share the writing. It may name what is gone for a crash's length (a put or a removal
that ended half way); it never lacks what was acknowledged.

Of parts from which rows are removed there are versions (`parts`).

Parts of a tenant: `t` with a digit, which a thread's name makes, has a sixteenth of its threads;
`c` with the first characters of a checkpoint id has the checkpoints that begin so, and `b` those
beginnings, so that no part grows for ever (seven characters of a version 6 UUID are seven minutes);
`r` with a run has its threads, which a reader looks at. `s` with a slot, of no tenant, has the
slot's threads, and is never removed from.
"""

import asyncio
import contextlib
import math
from collections.abc import Iterable, Sequence
from typing import Any, Final

import xxhash

from checkpoint_router.backends.cassandra.fences import Fences
from checkpoint_router.backends.cassandra.gather import Gather
from checkpoint_router.backends.cassandra.parts import RENEWED, Part, Parts, name_of, part_of
from checkpoint_router.backends.cassandra.place import Place
from checkpoint_router.backends.cassandra.session import Row, Session
from checkpoint_router.backends.cassandra.statements import REMOVED, ROW, Name
from checkpoint_router.backends.cassandra.values import key_of
from checkpoint_router.core.errors import RouterError
from checkpoint_router.core.ids import ThreadKey, leaf_of, slot_of
from checkpoint_router.core.records import Entry, Kind

Line = tuple[str, str, str, str, str]
"""tenant, part, k1, k2, k3."""

Written = list[tuple[Line, int]]
"""Lines with the version of their part that they were written to."""

BEGINNING: Final = 7
"""Characters of a checkpoint id that name its part. Fewer: a part has more of a busy tenant, at
some 150 bytes each, and 100 MB with 1,500 a second. More: who lists what a tenant that does little
has newest looks into more parts."""

_ABOVE_ALL: Final = "\U0010ffff" * 257
"""Above each id: an id has at most 1,024 bytes."""

_PARTS: Final = 32
"""Parts that are removed from at once."""

_TOGETHER_PARTS: Final = 10
_TOGETHER_BYTES: Final = 2_048
"""Of several parts in one request. Cassandra warns in its log above 10 and 5 KiB, and refuses more
than 50 KiB; one part alone has no such bound."""

SHARES: Final = 16
"""Parts that a tenant's threads are spread over, for good: a thread's part follows from its name
and this. More: a list of them looks into more. Fewer: a partition becomes
large earlier; at 80 bytes a thread these reach 100 MB each with twenty million threads."""

_ROWS_MAX: Final = 4_096
"""Of parts that are read at once."""

_BEGINNINGS_MAX: Final = 10_000
"""Parts that are remembered as written."""


class Listings:
    """All of them."""

    def __init__(self, session: Session, fences: Fences) -> None:
        self._session = session
        self._fences = fences
        self.parts = Parts(session, fences)
        self._renewals: dict[Part, asyncio.Task[None]] = {}
        self._writes: Gather[Sequence[Line], None] = Gather(self._round, most=64)
        self._beginnings: set[tuple[str, str]] = set()

    async def write(self, place: Place, entries: Iterable[Entry], writer: int) -> Written:
        """What these entries of the live generation need, if it is not there. Durable on
        return, and to be confirmed after the fence was read."""
        thread, state = place.thread, place.state
        gen = state.live
        lines: list[Line] = []
        beginnings: set[tuple[str, str]] = set()
        runs: set[str] = set()
        if not place.announced:
            lines.append(slot_line(thread))
            lines.append(thread_line(thread, gen, f"{writer:016x}"))
        for entry in entries:
            if entry.kind is not Kind.CHECKPOINT:
                continue
            lines.append(newest_line(thread, gen, entry))
            begins = thread.tenant, entry.checkpoint_id[:BEGINNING]
            if begins not in self._beginnings | beginnings:
                beginnings.add(begins)
                lines.append((begins[0], "b", begins[1], "", ""))
            if entry.run_id and entry.run_id not in place.runs | runs:
                runs.add(entry.run_id)
                lines.append(run_line(thread, entry.run_id))
        written = await self._put(lines)
        if place.state == state:  # Else a prune may have taken what was written here.
            place.announced = True
            place.runs |= runs
        if len(self._beginnings) > _BEGINNINGS_MAX:
            self._beginnings.clear()
        self._beginnings |= beginnings
        return written

    async def confirm(self, written: Written) -> None:
        """After a read of the fence that began after `written` was: all of it stands where
        readers look."""
        while True:
            stale = []
            for line, version in written:
                part = line[:2]
                if not self.parts.sure(part):
                    await self.parts.look(part)
                if (await self.parts.versions(part)).now != version:
                    stale.append(line)
            if not stale:
                return
            written = await self._put(stale)
            await self._fences.read()

    async def _put(self, lines: Iterable[Line]) -> Written:
        """The same with the versions that they were written to, if their parts have any."""
        written: list[tuple[Line, int]] = []
        rows: list[Line] = []
        for line in lines:
            if _renewed(line):
                version = (await self.parts.versions(line[:2])).now
                written.append((line, version))
                rows.append(_in(line, name_of(line[1], version)))
            else:
                rows.append(line)
        if rows:
            await self._writes.ask(rows)
        return written

    async def _round(self, asked: list[Sequence[Line]]) -> list[None]:
        parts: dict[tuple[str, str], list[Line]] = {}
        for lines in asked:
            for line in lines:
                parts.setdefault(line[:2], []).append(line)
        sent = [
            asyncio.ensure_future(
                self._session.together([(Name.LIST_PUT, (*line, ROW)) for line in lines])
            )
            for lines in _requests(parts.values())
        ]
        for one in sent:
            await one
        return [None] * len(asked)

    async def remove(
        self, thread: ThreadKey, gen: int, entries: Iterable[Entry], *, thread_too: bool
    ) -> None:
        """What names these entries; and, if nothing else is left, what names the thread. A row
        of the thread that is written meanwhile has another key, and stays."""
        lines = [newest_line(thread, gen, e) for e in entries if e.kind is Kind.CHECKPOINT]
        if thread_too:
            tenant, share, *of, _ = thread_line(thread, gen, "")
            names = (await self.parts.look((tenant, share))).names((tenant, share))
            found = await asyncio.gather(
                *(self._session.read(Name.LIST_OF, tenant, name, *of) for name in names)
            )
            rows = dict.fromkeys(row for some in found for row in some)
            lines += [(tenant, share, *row) for row in rows]
        parts: dict[Part, list[Line]] = {}
        for line in lines:
            parts.setdefault(line[:2], []).append(line)
        doomed = list(parts.items())
        for at in range(0, len(doomed), _PARTS):
            some = doomed[at : at + _PARTS]
            await asyncio.gather(*(self._remove_from(part, lines) for part, lines in some))

    async def _remove_from(self, part: Part, lines: Sequence[Line]) -> None:
        while True:
            for name in (await self.parts.look(part)).names(part):
                for at in range(0, len(lines), 200):
                    await self._session.together(
                        (Name.LIST_REMOVE, (REMOVED, *_in(line, name)))
                        for line in lines[at : at + 200]
                    )
            await self._fences.read()
            if self.parts.sure(part):
                break
        if self.parts.removed(part, len(lines)) and part not in self._renewals:
            self._renewals[part] = task = asyncio.ensure_future(self._renew(part))
            task.add_done_callback(lambda _: self._renewals.pop(part, None))

    async def _renew(self, part: Part) -> None:
        # One that fails stays as it is: the next to remove from the part goes on.
        with contextlib.suppress(RouterError):
            await self.parts.renew(part)

    async def close(self) -> None:
        """Leaves what is being renewed as it is: whoever comes next goes on with it."""
        renewals = list(self._renewals.values())
        for task in renewals:
            task.cancel()
        await asyncio.gather(*renewals, return_exceptions=True)

    async def _rows(
        self, tenant: str, parts: Sequence[str], name: Name, *bound: Any
    ) -> dict[str, list[Row]]:
        """Rows of some parts of a tenant, each in order and as if it had no versions."""
        versions = await self.parts.versions_of(tenant, parts)
        while True:
            there = [one for part in parts for one in versions[part].names((tenant, part))]
            rows = await self._session.read(name, tenant, there, *bound)
            before, versions = versions, await self.parts.look_at(tenant, parts)
            if versions == before:
                break  # Else rows may have gone to a version that was not read.
        found: dict[str, set[Row]] = {part: set() for part in parts}
        for part, *row in rows:
            found[part_of(part)].add(tuple(row))
        return {part: sorted(some) for part, some in found.items()}

    async def threads(self, tenant: str, after: str, limit: int) -> list[str]:
        """See `Storage.threads`."""
        found: list[str] = []
        parts, each = [f"t{share:x}" for share in range(SHARES)], _of_each(limit)
        while len(found) < limit:
            read = await self._rows(tenant, parts, Name.LISTS_AFTER, after, each)
            shares = list(read.values())
            # Up to the first of these nothing is missing.
            ends = [rows[each - 1][0] for rows in shares if len(rows) >= each]
            names = {k1 for rows in shares for k1, _, _ in rows if not ends or k1 <= min(ends)}
            found += sorted(names)
            if not ends:
                break
            after = min(ends)
        return found[:limit]

    async def slot_threads(
        self, slot: int, after: tuple[int, str, str] | None, limit: int
    ) -> list[tuple[int, ThreadKey]]:
        """See `Storage.slot_threads`."""
        begin = ("", "", "") if after is None else (f"{after[0]:04x}", after[1], after[2])
        rows = await self._session.read(Name.LIST_AFTER_ROW, "", f"s{slot}", *begin, limit)
        return [(int(leaf, 16), ThreadKey(tenant, name)) for leaf, tenant, name in rows]

    async def newest(
        self, tenant: str, before: tuple[str, str] | None, limit: int
    ) -> list[tuple[str, str]]:
        """See `Storage.newest`."""
        found: list[tuple[str, str]] = []
        below = before or (_ABOVE_ALL, "")
        bound = (_ABOVE_ALL, "") if before is None else (before[0][:BEGINNING], "\x01")
        together = 1
        while len(found) < limit:
            some = await self._session.read(Name.LIST_BELOW, tenant, "b", *bound, together)
            parts = [f"c{begins}" for begins, _, _ in some]
            found += await self._newest_of(tenant, parts, below, limit - len(found))
            if len(some) < together:
                break
            bound = (some[-1][0], "")
            # A tenant that does little has few rows in each part, and more parts are asked at once.
            together = min(4 * together, max(1, _ROWS_MAX // limit))
        return found

    async def _newest_of(
        self, tenant: str, parts: Sequence[str], below: tuple[str, str], limit: int
    ) -> list[tuple[str, str]]:
        """Of these parts, of which each is older than the one before."""
        found: list[tuple[str, str]] = []
        while parts and len(found) < limit:
            read = await self._rows(tenant, parts, Name.LISTS_BELOW, *below, limit)
            for at, part in enumerate(parts):
                rows = read[part][: -limit - 1 : -1]
                # One checkpoint may be stored in several namespaces; equal ones follow each other.
                found += dict.fromkeys((cid, thread) for cid, thread, _ in rows)
                if len(rows) == limit:  # It may have more, that come before the next part's.
                    parts, below = parts[at:], found[-1]
                    break
            else:
                break
        return found[:limit]

    async def threads_of_run(self, tenant: str, run: str) -> list[str]:
        """Threads in which the run once wrote a checkpoint."""
        found: list[str] = []
        while True:
            after = found[-1] if found else ""
            rows = await self._session.read(Name.LIST_AFTER, tenant, f"r{run}", after, 1000)
            found += [k1 for k1, _, _ in rows]
            if len(rows) < 1000:
                return found


def _of_each(limit: int) -> int:
    """Rows to ask each part of a tenant's threads for, so that the first of them to end has mostly
    not ended before so many names: names fall into the parts like chance, so what one of them has
    lies about the mean, by its root. Fewer: another journey for nearly each name."""
    mean = limit / SHARES
    return math.ceil(mean + 3 * math.sqrt(mean) + 2)


def _requests(parts: Iterable[list[Line]]) -> list[list[Line]]:
    """Lines of the same part in the same request, and several parts in one while they are small:
    a new thread has a line in each of four or five."""
    found: list[list[Line]] = []
    count, size = _TOGETHER_PARTS, 0
    for lines in parts:
        more = sum(len(text) for line in lines for text in line)
        if count == _TOGETHER_PARTS or size + more > _TOGETHER_BYTES:
            found.append([])
            count = size = 0
        found[-1] += lines
        count, size = count + 1, size + more
    return found


def _renewed(line: Line) -> bool:
    """Whether rows are ever removed from its part."""
    return line[1][:1] in RENEWED


def _in(line: Line, name: str) -> Line:
    return line[0], name, *line[2:]


def slot_line(thread: ThreadKey) -> Line:
    """The row of a thread in its slot."""
    leaf = f"{leaf_of(thread.thread):04x}"
    return "", f"s{slot_of(thread.thread)}", leaf, thread.tenant, thread.thread


def thread_line(thread: ThreadKey, gen: int, writer: str) -> Line:
    """A row of a thread among those of its tenant. The slot would not do for its part: names that
    say so have one slot, and may be all of a tenant's."""
    share = xxhash.xxh3_64_intdigest(thread.thread.encode()) % SHARES
    return thread.tenant, f"t{share:x}", thread.thread, str(gen), writer


def run_line(thread: ThreadKey, run: str) -> Line:
    """The row of a thread in a run's list."""
    return thread.tenant, f"r{run}", thread.thread, "", ""


def newest_line(thread: ThreadKey, gen: int, entry: Entry) -> Line:
    """The row of a checkpoint in the list by checkpoint id."""
    cid = entry.checkpoint_id
    part = f"c{cid[:BEGINNING]}"
    return thread.tenant, part, cid, thread.thread, f"{gen} {key_of(entry.id).hex()}"
