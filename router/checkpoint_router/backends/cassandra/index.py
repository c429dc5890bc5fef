"""Reading a thread's index so that what is shown once is shown always.

Rules: a row counts if all rows of its actor before it do, and if its batch does. The last batch
of each actor may still be on its way to a quorum: its rows count after their records and values
came from a quorum too, for a read repairs only the rows that it asked for. Earlier batches were
acknowledged before the next was sent.

The state is read after the counts of actors, and with the records and values: a prune that it
does not show was begun later. Such a prune meets those counts when it looks at the thread again,
and leaves all values alone if a batch that they tell of is not wholly there (`removal`). Where
something is not wholly there for the reader, he reads the state once more, after it.
"""

import asyncio
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from msgspec import structs

from checkpoint_router.backends.cassandra import values
from checkpoint_router.backends.cassandra.ahead import Ahead, Hint, hint_in
from checkpoint_router.backends.cassandra.growing import unpack_path
from checkpoint_router.backends.cassandra.place import Logged, State
from checkpoint_router.backends.cassandra.session import Row, Session
from checkpoint_router.backends.cassandra.statements import ERASED, LOG, PRUNED, RECORD, VOID, Name
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
    doubtful: bool = False
    """A batch was begun, and not all of it is there."""
    ahead: Ahead | None = None
    """What was read beside it."""


@dataclass(frozen=True, slots=True)
class Begun:
    """What stands beside the rows of a generation."""

    counts: Mapping[int, int] = field(default_factory=dict)
    """Actor to the greatest n that was sent and may count."""
    packed: bytes | None = None

    @property
    def hint(self) -> Hint:
        """Of its last writer. It is unpacked for who wants it: most looks find nothing new."""
        return hint_in(self.packed)


def actor_key(actor: int) -> bytes:
    """An actor's key in a thread's log."""
    return actor.to_bytes(8, "big")


async def state_of(session: Session, thread: ThreadKey) -> State:
    """A thread's state, as a quorum has it."""
    rows = await session.read(Name.STATE, thread.tenant, thread.thread)
    return State(*rows[0]) if rows else State()


def ask_begun(session: Session, thread: ThreadKey, gen: int) -> Awaitable[list[Row]]:
    """Begins to read what `begun_in` takes."""
    return session.read(Name.COUNTS, thread.tenant, thread.thread, gen)


def begun_in(rows: Sequence[Row]) -> Begun:
    """What was read."""
    return Begun(dict(rows[0][3] or {}), rows[0][4]) if rows else Begun()


def ask_all(
    session: Session, thread: ThreadKey, gen: int
) -> Awaitable[tuple[list[Row], list[Row]]]:
    """Begins to read all rows, and what stands beside them."""
    rows = session.read(Name.INDEX, thread.tenant, thread.thread, gen)
    return asyncio.gather(rows, ask_begun(session, thread, gen))


def prunes_in(rows: Sequence[Row]) -> int:
    """The number of the last prune of whose marks none is missing."""
    return max((row[2] for row in rows if row[0] == ERASED and row[1] == PRUNED), default=0)


class Look:
    """One reading of a generation."""

    def __init__(
        self,
        session: Session,
        thread: ThreadKey,
        gen: int,
        own: Mapping[int, int],
        *,
        pruned: bool,
    ) -> None:
        """`own`: actors of this process to the n that they had acknowledged. `pruned`: whether
        anything was ever pruned, for only then may a value be gone that a row names."""
        self._session = session
        self._thread = thread
        self._gen = gen
        self._own = own
        self._pruned = pruned
        self._ahead = Ahead(session, thread, gen)
        self._of = (self._ahead, thread, gen)

    async def all(self, rows: Sequence[Row], begun: Begun) -> Index:
        """What of all these is stable."""
        return await self._stable(rows, {}, begun)

    async def after(self, known: Mapping[int, int], begun: Begun) -> Index:
        """What was begun after the n that are known."""
        of = (self._thread.tenant, self._thread.thread, self._gen)
        asked = [
            self._session.read(Name.LOG_AFTER, *of, kind, actor_key(actor), known.get(actor, 0))
            for actor, n in begun.counts.items()
            for kind in ((LOG, VOID) if self._pruned else (LOG,))
            if n > known.get(actor, 0)
        ]
        beside = self._ahead.bring(hint=begun.hint)
        found, _ = await asyncio.gather(asyncio.gather(*asked), beside)
        # What came after the counts were read is for the next look: see above.
        rows = [row for some in found for row in some if row[2] <= begun.counts[_actor(row)]]
        return await self._stable(rows, known, begun)

    async def _stable(self, found: Sequence[Row], known: Mapping[int, int], begun: Begun) -> Index:
        erased = {row[1] for row in found if row[0] == ERASED}
        void = {(row[1], row[2]) for row in found if row[0] == VOID}
        logged = [_logged(self._thread, row) for row in found if row[0] == LOG]
        counts = dict(known)
        good: list[Logged] = []
        tail: list[Logged] = []
        for actor, mine in _by_actor(logged).items():
            start = counts.get(actor, 0)
            whole = [row for n, row in enumerate(mine, start + 1) if row.dot.n == n]
            if whole:
                sure = max(self._own.get(actor, 0), whole[-1].first - 1)
                good += [row for row in whole if row.dot.n <= sure]
                tail += [row for row in whole if row.dot.n > sure]
                counts[actor] = max(start, min(sure, whole[-1].dot.n))
        good = [row for row in good if (actor_key(row.dot.actor), row.dot.n) not in void]
        there = await self._there(tail, erased, begun.hint)
        for row in there:
            counts[row.dot.actor] = max(counts[row.dot.actor], row.dot.n)
        good += await self._shown(there, erased) if self._pruned else there
        shown = {row.dot for row in good}
        doubtful = any(n > counts.get(actor, 0) for actor, n in begun.counts.items()) or any(
            row.dot not in shown and (actor_key(row.dot.actor), row.dot.n) not in void
            for row in logged
        )
        return Index(
            rows=_folded(good, erased), counts=counts, doubtful=doubtful, ahead=self._ahead
        )

    async def _there(self, tail: Sequence[Logged], erased: set[bytes], hint: Hint) -> list[Logged]:
        """Those rows whose record and values came from a quorum too. Of a batch all come, or none:
        one that lacks some is not there yet."""
        live = [row for row in tail if key_of(row.entry.id) not in erased]
        keys = [key_of(row.entry.id) for row in live]
        news = [h for row in live for h in row.news]
        await self._ahead.bring(keys, news, [r for row in live for r in row.tails], hint)
        records, arrived = await asyncio.gather(
            values.first_pieces(*self._of, RECORD, keys),
            values.arrived(*self._of, news, tails=True),
        )
        lacking = {
            row.dot.actor
            for row in live
            if key_of(row.entry.id) not in records or any(h not in arrived for h in row.news)
        }
        return [row for row in tail if row.dot.actor not in lacking]

    async def _shown(self, there: Sequence[Logged], erased: set[bytes]) -> list[Logged]:
        """Those that name no value that was pruned before their writer came to send it again. The
        others were not acknowledged, and will be written anew if they are wanted."""
        live = [row.entry.id for row in there if key_of(row.entry.id) not in erased]
        packed = await values.load_records(*self._of, live)
        absent = set(await values.missing(*self._of, named(packed.values())))
        held = {id for id, event in packed.items() if absent.intersection(named([event]))}
        return [row for row in there if row.entry.id not in held]


async def read(session: Session, thread: ThreadKey, gen: int, *, pruned: bool) -> Index:
    """All of a generation, without a hint."""
    rows, beside = await ask_all(session, thread, gen)
    look = Look(session, thread, gen, {}, pruned=pruned)
    return await look.all(rows, Begun(begun_in(beside).counts))


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
    dot = Dot(_actor(row), row[2])
    sealed, pos, first, news, path = row[3:]
    entry = unpack_entry(open_envelope(sealed or b"", thread, f"log row {dot.actor:x}/{dot.n}"))
    hashes = news or b""
    spans = iter(unpack_path(path or b""))
    return Logged(
        dot=dot,
        pos=pos or 0,
        first=first or 1,
        entry=entry,
        news=tuple(hashes[i : i + HASH_BYTES] for i in range(0, len(hashes), HASH_BYTES)),
        # Two spans of the same log for each: where what was appended begins, and where it ends.
        tails=tuple((low.key, low.end, end.end) for low, end in zip(spans, spans, strict=True)),
    )


def _actor(row: Row) -> int:
    return int.from_bytes(row[1], "big")
