"""Rows over many threads: what a tenant has, what stands in a slot, what is newest.

A row is written before its put is acknowledged, in another partition than the thread: puts that
wait together share the writing. It may name what is gone for a crash's length (a put or a removal
that ended half way); it never lacks what was acknowledged.

Parts of a tenant: `t` has its threads; `c` with the first characters of a checkpoint id has the
checkpoints that begin so, and `b` those beginnings, so that no part grows for ever (five
characters of a version 6 UUID are about 30 hours); `r` with a run has its threads, which a reader
looks at. `s` with a slot, of no tenant, has the slot's threads, and is never removed from.
"""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Final

from checkpoint_router.backends.cassandra.gather import Gather
from checkpoint_router.backends.cassandra.place import Place
from checkpoint_router.backends.cassandra.session import Session
from checkpoint_router.backends.cassandra.statements import REMOVED, ROW, Name
from checkpoint_router.backends.cassandra.values import key_of
from checkpoint_router.core.ids import ThreadKey, leaf_of, slot_of
from checkpoint_router.core.records import Entry, Kind

Line = tuple[str, str, str, str, str]
"""tenant, part, k1, k2, k3."""

BEGINNING: Final = 5
"""Characters of a checkpoint id that name its part."""

_ABOVE_ALL: Final = "\U0010ffff" * 257
"""Above each id: an id has at most 1,024 bytes."""

_BEGINNINGS_MAX: Final = 10_000
"""Parts that are remembered as written."""


class Listings:
    """All of them."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._writes: Gather[Sequence[Line], None] = Gather(self._round, most=64)
        self._beginnings: set[tuple[str, str]] = set()

    async def write(self, place: Place, entries: Iterable[Entry], writer: int) -> None:
        """What these entries of the live generation need, if it is not there. Durable on
        return."""
        thread, state = place.thread, place.state
        gen = state.live
        lines: list[Line] = []
        beginnings: set[tuple[str, str]] = set()
        runs: set[str] = set()
        if not place.announced:
            leaf = f"{leaf_of(thread.thread):04x}"
            lines.append(("", f"s{slot_of(thread.thread)}", leaf, thread.tenant, thread.thread))
            lines.append((thread.tenant, "t", thread.thread, str(gen), f"{writer:016x}"))
        for entry in entries:
            if entry.kind is not Kind.CHECKPOINT:
                continue
            lines.append(_newest(thread, gen, entry))
            begins = thread.tenant, entry.checkpoint_id[:BEGINNING]
            if begins not in self._beginnings | beginnings:
                beginnings.add(begins)
                lines.append((begins[0], "b", begins[1], "", ""))
            if entry.run_id and entry.run_id not in place.runs | runs:
                runs.add(entry.run_id)
                lines.append((thread.tenant, f"r{entry.run_id}", thread.thread, "", ""))
        if lines:
            await self._writes.ask(lines)
        if place.state == state:  # Else a prune may have taken what was written here.
            place.announced = True
            place.runs |= runs
        if len(self._beginnings) > _BEGINNINGS_MAX:
            self._beginnings.clear()
        self._beginnings |= beginnings

    async def _round(self, asked: list[Sequence[Line]]) -> list[None]:
        parts: dict[tuple[str, str], list[Line]] = {}
        for line in (line for lines in asked for line in lines):
            parts.setdefault(line[:2], []).append(line)
        await asyncio.gather(
            *(
                self._session.together((Name.LIST_PUT, (*line, ROW)) for line in lines)
                for lines in parts.values()
            )
        )
        return [None] * len(asked)

    async def remove(
        self, thread: ThreadKey, gen: int, entries: Iterable[Entry], *, thread_too: bool
    ) -> None:
        """What names these entries; and, if nothing else is left, what names the thread. A row
        of the thread that is written meanwhile has another key, and stays."""
        lines = [_newest(thread, gen, e) for e in entries if e.kind is Kind.CHECKPOINT]
        if thread_too:
            of = (thread.tenant, "t", thread.thread, str(gen))
            rows = await self._session.read(Name.LIST_OF, *of)
            lines += [(*of, k3) for _, _, k3 in rows]
        parts: dict[tuple[str, str], list[Line]] = {}
        for line in lines:
            parts.setdefault(line[:2], []).append(line)
        for some in parts.values():
            for at in range(0, len(some), 200):
                await self._session.together(
                    (Name.LIST_REMOVE, (REMOVED, *line)) for line in some[at : at + 200]
                )

    async def threads(self, tenant: str, after: str, limit: int) -> list[str]:
        """See `Storage.threads`."""
        found: list[str] = []
        while len(found) < limit:
            rows = await self._session.read(Name.LIST_AFTER, tenant, "t", after, limit)
            found += dict.fromkeys(k1 for k1, _, _ in rows)
            if len(rows) < limit:
                break
            after = found[-1]
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
        begins = "" if before is None else before[0][:BEGINNING]
        bound = (_ABOVE_ALL, "") if before is None else (begins, "\x01")
        while len(found) < limit:
            some = await self._session.read(Name.LIST_BELOW, tenant, "b", *bound, 16)
            for begins, _, _ in some:
                found += await self._newest_of(tenant, begins, below, limit - len(found))
                if len(found) >= limit:
                    return found
            if len(some) < 16:
                break
            bound = (some[-1][0], "")
        return found

    async def _newest_of(
        self, tenant: str, begins: str, below: tuple[str, str], limit: int
    ) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = []
        while len(found) < limit:
            rows = await self._session.read(Name.LIST_BELOW, tenant, f"c{begins}", *below, limit)
            # One checkpoint may be stored in several namespaces; equal ones follow each other.
            found += dict.fromkeys((cid, thread) for cid, thread, _ in rows)
            if len(rows) < limit:
                break
            below = found[-1]
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


def _newest(thread: ThreadKey, gen: int, entry: Entry) -> Line:
    cid = entry.checkpoint_id
    part = f"c{cid[:BEGINNING]}"
    return thread.tenant, part, cid, thread.thread, f"{gen} {key_of(entry.id).hex()}"
