"""Reading a thread's index so that what is shown once is shown always.

Rules: a row counts if all rows of its actor before it do, and if its batch does. The last batch
of each actor may still be on its way to a quorum: its rows count after their records and values
came from a quorum too, for a read repairs only the rows that it asked for. Earlier batches were
acknowledged before the next was sent. The state is read after the rows: a prune that it does not
show was begun later, and will look at these rows before it takes anything.
"""

import asyncio
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from msgspec import structs

from checkpoint_router.backends.cassandra import values
from checkpoint_router.backends.cassandra.place import Logged, State
from checkpoint_router.backends.cassandra.session import Row, Session
from checkpoint_router.backends.cassandra.statements import ERASED, LOG, RECORD, VOID, Name
from checkpoint_router.backends.cassandra.values import key_of
from checkpoint_router.core.ids import HASH_BYTES, Dot, EventId, ThreadKey
from checkpoint_router.core.records import unpack_entry
from checkpoint_router.storage.codec import open_envelope
from checkpoint_router.storage.port import named


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """A thread's stable rows of one generation, causes first, each event once."""

    rows: tuple[Logged, ...]
    counts: Mapping[int, int]
    """Actor to the last n that counts."""


def actor_key(actor: int) -> bytes:
    """An actor's key in a thread's log."""
    return actor.to_bytes(8, "big")


async def state_of(session: Session, thread: ThreadKey) -> State:
    """A thread's state, as a quorum has it."""
    rows = await session.read(Name.STATE, thread.tenant, thread.thread)
    return State(*rows[0]) if rows else State()


def ask_counts(session: Session, thread: ThreadKey, gen: int) -> Awaitable[list[Row]]:
    """Begins to read what `counts_in` takes."""
    return session.read(Name.COUNTS, thread.tenant, thread.thread, gen)


def counts_in(rows: Sequence[Row]) -> Mapping[int, int]:
    """Actor to the greatest n that was sent and may count."""
    return dict(rows[0][3] or {}) if rows else {}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    """One reading of a generation."""

    session: Session
    thread: ThreadKey
    gen: int
    own: Mapping[int, int]
    """Actors of this process to the n that they had acknowledged."""
    pruned: bool
    """Whether anything was ever pruned: only then may a value be gone that a row names."""

    def rows(self, name: Name, *values: Any) -> Awaitable[list[Row]]:
        return self.session.read(name, self.thread.tenant, self.thread.thread, self.gen, *values)


async def read(
    session: Session, thread: ThreadKey, gen: int, own: Mapping[int, int], *, pruned: bool
) -> Index:
    """All of a generation."""
    look = _Look(session=session, thread=thread, gen=gen, own=own, pruned=pruned)
    return await _stable(look, await look.rows(Name.INDEX), {})


async def read_after(
    session: Session,
    thread: ThreadKey,
    gen: int,
    own: Mapping[int, int],
    known: Mapping[int, int],
    actors: Iterable[int],
    *,
    pruned: bool,
) -> Index:
    """Of a generation what these actors wrote after the n that is known."""
    look = _Look(session=session, thread=thread, gen=gen, own=own, pruned=pruned)
    kinds = (LOG, VOID) if pruned else (LOG,)
    found = await asyncio.gather(
        *(
            look.rows(Name.LOG_AFTER, kind, actor_key(actor), known.get(actor, 0))
            for actor in actors
            for kind in kinds
        )
    )
    return await _stable(look, [row for some in found for row in some], known)


async def _stable(look: _Look, found: Sequence[Row], known: Mapping[int, int]) -> Index:
    erased = {row[1] for row in found if row[0] == ERASED}
    void = {(row[1], row[2]) for row in found if row[0] == VOID}
    logged = [_logged(look.thread, row) for row in found if row[0] == LOG]
    counts = dict(known)
    good: list[Logged] = []
    tail: list[Logged] = []
    for actor, mine in _by_actor(logged).items():
        start = counts.get(actor, 0)
        whole = [row for n, row in enumerate(mine, start + 1) if row.dot.n == n]
        if whole:
            sure = max(look.own.get(actor, 0), whole[-1].first - 1)
            good += [row for row in whole if row.dot.n <= sure]
            tail += [row for row in whole if row.dot.n > sure]
            counts[actor] = max(start, min(sure, whole[-1].dot.n))
    good = [row for row in good if (actor_key(row.dot.actor), row.dot.n) not in void]
    there = await _there(look, tail, erased)
    for row in there:
        counts[row.dot.actor] = max(counts[row.dot.actor], row.dot.n)
    good += await _shown(look, there, erased) if look.pruned else there
    return Index(rows=_folded(good, erased), counts=counts)


async def _there(look: _Look, tail: Sequence[Logged], erased: set[bytes]) -> list[Logged]:
    """Those rows whose record and values came from a quorum too. Of a batch all come, or none:
    one that lacks some is not there yet."""
    live = [row for row in tail if key_of(row.entry.id) not in erased]
    of = (look.session, look.thread, look.gen)
    records, news = await asyncio.gather(
        values.first_pieces(*of, RECORD, [key_of(row.entry.id) for row in live]),
        values.arrived(*of, [h for row in live for h in row.news], tails=True),
    )
    lacking = {
        row.dot.actor
        for row in live
        if key_of(row.entry.id) not in records or any(h not in news for h in row.news)
    }
    return [row for row in tail if row.dot.actor not in lacking]


async def _shown(look: _Look, there: Sequence[Logged], erased: set[bytes]) -> list[Logged]:
    """Those that name no value that was pruned before their writer came to send it again. The
    others were not acknowledged, and will be written anew if they are wanted."""
    of = (look.session, look.thread, look.gen)
    live = [row.entry.id for row in there if key_of(row.entry.id) not in erased]
    packed = await values.load_records(*of, live)
    absent = set(await values.missing(*of, named(packed.values())))
    held = {id for id, event in packed.items() if absent.intersection(named([event]))}
    return [row for row in there if row.entry.id not in held]


def _by_actor(rows: Iterable[Logged]) -> dict[int, list[Logged]]:
    found: dict[int, list[Logged]] = {}
    for row in rows:  # The slice has them by actor, then n.
        found.setdefault(row.dot.actor, []).append(row)
    return found


def _folded(rows: Sequence[Logged], erased: set[bytes]) -> tuple[Logged, ...]:
    """Causes first, the lowest digest of each event, marked where it was erased."""
    chosen: dict[EventId, Logged] = {}
    for row in sorted(rows, key=lambda r: (r.pos, r.dot)):
        other = chosen.get(row.entry.id)
        if other is None or row.entry.digest < other.entry.digest:
            chosen[row.entry.id] = row
    return tuple(
        replace(row, entry=structs.replace(row.entry, erased=True)) if key_of(id) in erased else row
        for id, row in chosen.items()
    )


def _logged(thread: ThreadKey, row: Row) -> Logged:
    key: Any = row[1]
    dot = Dot(int.from_bytes(key, "big"), row[2])
    sealed, pos, first, news = row[3:]
    entry = unpack_entry(open_envelope(sealed or b"", thread, f"log row {dot.actor:x}/{dot.n}"))
    hashes = news or b""
    return Logged(
        dot=dot,
        pos=pos or 0,
        first=first or 1,
        entry=entry,
        news=tuple(hashes[i : i + HASH_BYTES] for i in range(0, len(hashes), HASH_BYTES)),
    )
