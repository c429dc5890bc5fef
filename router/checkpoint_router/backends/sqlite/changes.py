"""What a transaction of the writer changes, verb by verb.

Owner: the writer; nobody else writes the file, so what this remembers of it (row numbers,
generations, indices that are stored, dot counters) is true as long as the transaction that made
it so was committed: a rollback takes both back. The dot counters are the truth, not a copy: a
storage that lost rows must not make them start again. Events, like values, are stored by one
statement for all of a transaction; whatever reads their rows flushes first.
"""

import secrets
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from checkpoint_router.backends.sqlite.storing import REMEMBERED_MAX, Storing
from checkpoint_router.core import limits
from checkpoint_router.core.answers import NewBlob
from checkpoint_router.core.clock import Ranges, covers, ranges_of, with_index
from checkpoint_router.core.ids import (
    Dot,
    EventId,
    SegmentId,
    ThreadKey,
    leaf_of,
    slot_of,
)
from checkpoint_router.core.records import Kind, pack_entry, unpack_entry
from checkpoint_router.storage.codec import open_envelope, seal_envelope, seal_record
from checkpoint_router.storage.port import (
    Append,
    Appended,
    Duplicate,
    Erase,
    MissingBlobs,
    MissingEvents,
    OtherGeneration,
    Stored,
)

_ABSENT: Final = object()

_INSERT_EVENT: Final = (
    "INSERT INTO event (t, gen, actor, n, seg, idx, seq, tenant, cid, run, entry, body)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


class WentBack(Exception):
    """The file has fewer events of this actor than it was given: somebody changed it below us."""


@dataclass(frozen=True, slots=True)
class _Place:
    """A thread's row."""

    t: int
    tenant: int
    gen: int


_NOWHERE: Final = _Place(0, 0, 1)
"""A thread that was never written to."""


class Changes:
    """The verbs that write, inside a transaction that the writer began."""

    def __init__(self, conn: sqlite3.Connection) -> None:
        self._conn = conn
        self.actor = 0
        self._actor_row = 0
        self._counters: dict[tuple[int, int], int] = {}
        """The last n of the live actor, by thread row and generation."""
        self._places: dict[ThreadKey, _Place] = {}
        self._tenants: dict[str, int] = {}
        self._known: dict[tuple[int, int, SegmentId], Ranges] = {}
        """All stored indices of a segment."""
        self._undo: list[tuple[dict[Any, Any], Any, Any]] = []
        self._newest = self._top = 0
        """The newest event row, committed and in this transaction; 0 after a removal."""
        self._events: list[tuple[object, ...]] = []
        self._values = Storing(conn)
        self._seq = 0
        self._seq_is_due = False

    # Around a transaction --------------------------------------------------------------------

    def begun(self, seq: int) -> None:
        """A transaction has begun, which will be commit `seq` if it changes anything."""
        self._seq = seq
        self._seq_is_due = False

    def look(self) -> None:
        """Sees that the file has all that was committed. Raises WentBack."""
        (self._top,) = self._conn.execute("SELECT coalesce(max(id), 0) FROM event").fetchone()
        if self._top < self._newest:
            raise WentBack

    def finish(self) -> None:
        """Stores what waits, and numbers the commit if it did more than store events, which carry
        the number."""
        self._flush()
        if self._seq_is_due:
            self._conn.execute("UPDATE meta SET value = ? WHERE key = 'commit_seq'", (self._seq,))

    def committed(self) -> None:
        """The transaction is on disk."""
        self._undo.clear()
        self._newest = self._top
        self._values.committed()
        for memory in (self._places, self._known):
            if len(memory) > REMEMBERED_MAX:
                memory.clear()

    def rolled_back(self) -> None:
        """The transaction did not happen."""
        for memory, key, before in reversed(self._undo):
            if before is _ABSENT:
                memory.pop(key, None)
            else:
                memory[key] = before
        self._undo.clear()
        self._events.clear()
        self._values.forget()

    def actor_is_full(self) -> bool:
        """Whether it is time for a new actor."""
        return len(self._counters) >= limits.COUNTERS_MAX

    def record_actor(self) -> tuple[int, int]:
        """Draws an actor and stores it; `take_actor` with the result once that is committed."""
        actor = secrets.randbits(63)
        self._seq_is_due = True
        made = self._conn.execute(
            "INSERT INTO actor (actor, first_seq) VALUES (?, ?)", (actor, self._seq)
        )
        assert made.lastrowid is not None
        return actor, made.lastrowid

    def take_actor(self, actor: int, row: int) -> None:
        """All dots from now on are of this actor, and the file is taken as it is now."""
        self.actor, self._actor_row = actor, row
        self._newest = 0
        self._counters.clear()
        self._known.clear()
        self._values.forget()

    def _flush(self) -> None:
        self._values.flush()
        if self._events:
            self._conn.executemany(_INSERT_EVENT, self._events)
            self._top += len(self._events)
            self._events.clear()

    def _set(self, memory: dict[Any, Any], key: Any, value: Any) -> None:
        self._undo.append((memory, key, memory.get(key, _ABSENT)))
        memory[key] = value

    # Verbs -----------------------------------------------------------------------------------

    def append(self, append: Append) -> Appended:
        """See `Storage.append`. All looks come before the first change."""
        place = self._place(append.thread)
        if append.gen != place.gen:
            return OtherGeneration(place.gen)
        id = append.entry.id
        known = self._indices(place, id.segment)
        if covers(known, ((id.index, id.index),)):
            return Duplicate(self._digest(append.thread, place, id))
        for segment, ranges in append.needs:
            if not covers(self._indices(place, segment), ranges):
                return MissingEvents()
        sent = {b.hash for b in append.blobs}
        unsent = [h for h in append.names if h not in sent]
        missing = self._values.missing(place.t, unsent) if unsent else ()
        if missing:
            return MissingBlobs(missing)
        place = self._made(append.thread, place)
        if append.blobs:
            self._values.store(place.t, append.blobs)
        n = self._insert(append, place)
        self._set(self._known, (place.t, place.gen, id.segment), with_index(known, id.index))
        return Stored(Dot(self.actor, n))

    def put_blobs(self, thread: ThreadKey, gen: int, blobs: Sequence[NewBlob]) -> bool:
        """See `Storage.put_blobs`."""
        place = self._place(thread)
        if place.gen != gen:
            return False
        if blobs:
            self._seq_is_due = True
            self._values.store(self._made(thread, place).t, blobs)
        return True

    def delete(self, thread: ThreadKey, gen: int | None, operation: bytes) -> int:
        """See `Storage.delete`."""
        place, conn = self._place(thread), self._conn
        ended = place.gen if gen is None else gen
        if self._done(place, operation) or (ended < place.gen and not operation):
            return place.gen
        self._seq_is_due = True
        place = self._made(thread, place)
        t = place.t
        if operation:
            conn.execute("INSERT INTO operation VALUES (?, ?)", (t, operation))
        if ended < place.gen:
            return place.gen
        self._flush()
        conn.execute("DELETE FROM event WHERE t = ?", (t,))
        self._top = 0
        self._values.erase_all(t)
        conn.execute("UPDATE thread SET gen = ? WHERE id = ?", (ended + 1, t))
        self._set(self._places, thread, _Place(t, place.tenant, ended + 1))
        return ended + 1

    def erase(self, erase: Erase) -> bool:
        """See `Storage.erase`."""
        place, conn = self._place(erase.thread), self._conn
        if self._done(place, erase.operation):
            return True
        self._flush()
        (stored,) = conn.execute(
            "SELECT count(*) FROM event WHERE t = ? AND gen = ?", (place.t, place.gen)
        ).fetchone()
        if place.gen != erase.gen or stored > erase.stored:
            return False
        self._seq_is_due = True
        place = self._made(erase.thread, place)
        keys = [(place.t, place.gen, e.segment, e.index) for e in erase.events]
        conn.executemany(
            "UPDATE event SET erased = 1, cid = NULL, run = NULL, body = NULL"
            " WHERE t = ? AND gen = ? AND seg = ? AND idx = ?",
            keys,
        )
        self._values.erase(place.t, erase.blobs)
        conn.execute("INSERT INTO operation VALUES (?, ?)", (place.t, erase.operation))
        return True

    # Parts -----------------------------------------------------------------------------------

    def _done(self, place: _Place, operation: bytes) -> bool:
        found = self._conn.execute(
            "SELECT 1 FROM operation WHERE t = ? AND id = ?", (place.t, operation)
        ).fetchone()
        return found is not None

    def _place(self, thread: ThreadKey) -> _Place:
        place = self._places.get(thread)
        if place is None:
            row = self._conn.execute(
                "SELECT th.id, th.tenant, th.gen FROM thread th JOIN tenant tn ON tn.id = th.tenant"
                " WHERE tn.name = ? AND th.name = ?",
                (thread.tenant, thread.thread),
            ).fetchone()
            if row is None:
                return _NOWHERE
            place = _Place(*row)
            self._set(self._places, thread, place)
        return place

    def _made(self, thread: ThreadKey, place: _Place) -> _Place:
        """`place`, with a row if it had none."""
        if place.t:
            return place
        tenant = self._tenant(thread.tenant)
        made = self._conn.execute(
            "INSERT INTO thread (tenant, name, slot, leaf, gen) VALUES (?, ?, ?, ?, 1)",
            (tenant, thread.thread, slot_of(thread.thread), leaf_of(thread.thread)),
        )
        assert made.lastrowid is not None
        place = _Place(made.lastrowid, tenant, 1)
        self._set(self._places, thread, place)
        return place

    def _tenant(self, name: str) -> int:
        known = self._tenants.get(name)
        if known is None:
            self._conn.execute("INSERT OR IGNORE INTO tenant (name) VALUES (?)", (name,))
            (known,) = self._conn.execute(
                "SELECT id FROM tenant WHERE name = ?", (name,)
            ).fetchone()
            self._set(self._tenants, name, known)
        return int(known)

    def _indices(self, place: _Place, segment: SegmentId) -> Ranges:
        if not place.t:
            return ()
        key = (place.t, place.gen, segment)
        known = self._known.get(key)
        if known is None:
            rows = self._conn.execute(
                # Of no other generation: their rows are gone.
                "SELECT DISTINCT idx FROM event WHERE t = ? AND seg = ?",
                (place.t, segment),
            )
            known = ranges_of(index for (index,) in rows)
            self._set(self._known, key, known)
        return known

    def _digest(self, thread: ThreadKey, place: _Place, id: EventId) -> bytes:
        self._flush()
        (sealed,) = self._conn.execute(
            "SELECT entry FROM event WHERE t = ? AND gen = ? AND seg = ? AND idx = ? LIMIT 1",
            (place.t, place.gen, id.segment, id.index),
        ).fetchone()
        return unpack_entry(open_envelope(sealed, thread, f"index entry of event {id}")).digest

    def _insert(self, append: Append, place: _Place) -> int:
        entry = append.entry
        counter = (place.t, place.gen)
        n = self._counters.get(counter, 0) + 1
        shown = entry.kind is Kind.CHECKPOINT
        self._events.append(
            (
                place.t,
                place.gen,
                self._actor_row,
                n,
                entry.id.segment,
                entry.id.index,
                self._seq,
                place.tenant,
                entry.checkpoint_id if shown else None,
                entry.run_id if shown else None,
                seal_envelope(pack_entry(entry)),
                seal_record(append.packed),
            )
        )
        self._set(self._counters, counter, n)
        return n
