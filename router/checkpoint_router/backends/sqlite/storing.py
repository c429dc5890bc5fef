"""Writing values to SQLite: as rows of their own, or versions over append logs (`storage.logs`).

Owner of the state: one `Storing`, the writer's, inside its transactions. It remembers which
values are stored, and the newest version of each log, so that most puts look nothing up; a
rollback and a removal forget all of it. Whole values wait for `flush`, which stores those of all
puts of a transaction with one statement; whatever reads rows flushes first.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Final

from checkpoint_router.backends.sqlite.schema import LOG_OFFSET_BITS
from checkpoint_router.backends.sqlite.values import absent, bodies, key
from checkpoint_router.core import limits
from checkpoint_router.core.answers import NewBlob
from checkpoint_router.core.digests import head_length
from checkpoint_router.core.errors import InvalidArgument
from checkpoint_router.storage.logs import (
    Branch,
    Extend,
    Log,
    SegmentRow,
    Start,
    Version,
    merge,
    place,
    worth_a_log,
)

assert limits.LOG_BYTES_MAX <= 1 << LOG_OFFSET_BITS

HEAD_BYTES_MAX: Final = 5
"""Of a msgpack array header."""

REMEMBERED_MAX: Final = 50_000
"""Values, threads and segments that are remembered; all are forgotten beyond that."""

_INSERT: Final = (
    "INSERT INTO blob (t, k, h, tag, data) VALUES (?, ?, ?, ?, ?) ON CONFLICT (t, k) DO NOTHING"
)
_INSERT_VERSION: Final = (
    "INSERT INTO blob (t, k, h, tag, head, log, keep) VALUES (?, ?, ?, ?, ?, ?, ?)"
    " ON CONFLICT (t, k) DO NOTHING"
)


class Storing:
    """The values of all threads, as the writer sees them."""

    def __init__(self, conn: sqlite3.Connection) -> None:
        self._conn = conn
        self._whole: list[tuple[int, int, bytes, str, bytes]] = []
        self._known: dict[tuple[int, bytes], Version | None] = {}
        """Values that are stored, by thread row and name: the newest version of a log; None for
        any other, of which no more is remembered."""

    def forget(self) -> None:
        """The transaction did not happen, or removed rows."""
        self._whole.clear()
        self._known.clear()

    def committed(self) -> None:
        """The transaction is on disk."""
        if len(self._known) > REMEMBERED_MAX:
            self._known.clear()

    def flush(self) -> None:
        """Stores the whole values that wait."""
        if self._whole:
            rows, self._whole = self._whole, []
            if self._conn.executemany(_INSERT, rows).rowcount < len(rows):
                for t, _, hash, *_ in rows:
                    self._see_that_it_is(t, hash)

    def missing(self, t: int, hashes: Sequence[bytes]) -> tuple[bytes, ...]:
        """Those of `hashes` that the thread does not have, in their order."""
        unknown = [h for h in hashes if (t, h) not in self._known]
        if not unknown:
            return ()
        self.flush()
        lacking = absent(self._conn, t, unknown)
        self._known.update(((t, hash), None) for hash in set(unknown).difference(lacking))
        return lacking

    def store(self, t: int, blobs: Iterable[NewBlob]) -> None:
        """Stores values that are not stored yet."""
        for blob in blobs:
            if (t, blob.hash) in self._known:
                continue
            if worth_a_log(blob):
                self._store_growing(t, blob)
            else:
                self._store_whole(t, blob)

    def _see_that_it_is(self, t: int, hash: bytes) -> None:
        """Raises InvalidArgument if the row that kept a value out is that of another one: chance
        makes no such two in one thread, but patience may."""
        if absent(self._conn, t, (hash,)):
            raise InvalidArgument(
                f"the name of a value, {hash.hex()[:16]}…, begins as that of another value of this "
                f"thread. Nothing was written. Change the value, or put it into another thread."
            )

    def _store_whole(self, t: int, blob: NewBlob) -> None:
        self._whole.append((t, key(blob.hash), blob.hash, blob.value.tag, blob.value.data))
        self._known[t, blob.hash] = None

    def _store_growing(self, t: int, blob: NewBlob) -> None:
        base = self._version(t, blob.continues or b"")
        placement = place(blob, base)
        if isinstance(placement, Start | Branch) and not self.missing(t, (blob.hash,)):
            return
        match placement:
            case Start(head, tail):
                assert base is not None
                log = self._start(t, base)
            case Extend(log, head, tail):
                pass
            case Branch(parent, keep, head, tail):
                log = self._new_log(t, parent.id, keep, parent.depth + 1)
            case _:
                self._store_whole(t, blob)
                return
        keep = log.length + len(tail)
        row = (t, key(blob.hash), blob.hash, blob.value.tag, head, log.id, keep)
        if not self._conn.execute(_INSERT_VERSION, row).rowcount:
            self._see_that_it_is(t, blob.hash)
            self._known[t, blob.hash] = None
            return
        if base is not None and (t, base.hash) in self._known:
            self._known[t, base.hash] = None
        grown = self._add(log, tail)
        self._known[t, blob.hash] = Version(
            hash=blob.hash, tag=blob.value.tag, head=head, keep=keep, log=grown
        )

    def _version(self, t: int, hash: bytes) -> Version | None:
        known = self._known.get((t, hash))
        if known is not None:
            return known
        self.flush()
        found = self._conn.execute(
            "SELECT b.tag, b.head, b.keep, substr(b.data, 1, ?), length(b.data),"
            " l.id, l.depth, l.length, l.appends FROM blob b LEFT JOIN log l ON l.id = b.log"
            " WHERE b.t = ? AND b.k = ? AND b.h = ?",
            (HEAD_BYTES_MAX, t, key(hash), hash),
        ).fetchone()
        if found is None:
            return None
        tag, head, keep, first, size, log, depth, length, appends = found
        if first is not None:
            head = first[: head_length(tag, first)]
            return Version(hash=hash, tag=tag, head=head, keep=size - len(head), log=None)
        if log is None:
            return None
        held = Log(id=log, depth=depth, length=length, appends=appends)
        return Version(hash=hash, tag=tag, head=head, keep=keep, log=held)

    def _new_log(self, t: int, parent: int | None, keep: int, depth: int) -> Log:
        made = self._conn.execute(
            "INSERT INTO log (t, parent, parent_keep, depth, length, appends)"
            " VALUES (?, ?, ?, ?, ?, 0)",
            (t, parent, keep, depth, keep),
        )
        assert made.lastrowid is not None
        return Log(id=made.lastrowid, depth=depth, length=keep, appends=0)

    def _start(self, t: int, base: Version) -> Log:
        """A log that begins with the body of `base`, which becomes its first version."""
        log = self._new_log(t, None, 0, 0)
        row = (t, key(base.hash), base.hash)
        self._conn.execute(
            "INSERT INTO segment (id, tier, body) SELECT ?, 0, substr(data, ?) FROM blob"
            " WHERE t = ? AND k = ? AND h = ?",
            (log.id << LOG_OFFSET_BITS, len(base.head) + 1, *row),
        )
        self._conn.execute(
            "UPDATE blob SET head = ?, log = ?, keep = ?, data = NULL"
            " WHERE t = ? AND k = ? AND h = ?",
            (base.head, log.id, base.keep, *row),
        )
        self._conn.execute(
            "UPDATE log SET length = ?, appends = 1 WHERE id = ?", (base.keep, log.id)
        )
        return Log(id=log.id, depth=0, length=base.keep, appends=1)

    def _add(self, log: Log, tail: bytes) -> Log:
        """The log with `tail` at its end."""
        if not tail:
            return log
        self._conn.execute(
            "INSERT INTO segment (id, tier, body) VALUES (?, 0, ?)",
            (log.id << LOG_OFFSET_BITS | log.length, tail),
        )
        longer = Log(
            id=log.id, depth=log.depth, length=log.length + len(tail), appends=log.appends + 1
        )
        self._conn.execute(
            "UPDATE log SET length = ?, appends = ? WHERE id = ?",
            (longer.length, longer.appends, log.id),
        )
        if log.merge_due():
            self._merge(log.id)
        return longer

    def _merge(self, log: int) -> None:
        low, high = log << LOG_OFFSET_BITS, (log + 1) << LOG_OFFSET_BITS
        while True:
            rows = self._conn.execute(
                "SELECT id - ?, tier, length(body) FROM segment WHERE id >= ? AND id < ?"
                " ORDER BY id DESC LIMIT ?",
                (low, low, high, limits.LOG_SEGMENTS_MAX),
            ).fetchall()
            merged = merge([SegmentRow(*row) for row in rows])
            if merged is None:
                return
            first = low + merged.offset
            body = b"".join(bodies(self._conn, first, high))
            self._conn.execute("DELETE FROM segment WHERE id >= ? AND id < ?", (first, high))
            self._conn.execute("INSERT INTO segment VALUES (?, ?, ?)", (first, merged.tier, body))

    # Removing --------------------------------------------------------------------------------

    def erase(self, t: int, hashes: Iterable[bytes]) -> None:
        """Removes values, and of logs what no remaining version reads."""
        self.flush()
        self.forget()
        conn = self._conn
        touched: set[int] = set()
        for hash in hashes:
            row = conn.execute(
                "SELECT id, log FROM blob WHERE t = ? AND k = ? AND h = ?", (t, key(hash), hash)
            ).fetchone()
            if row is not None:
                conn.execute("DELETE FROM blob WHERE id = ?", (row[0],))
                if row[1] is not None:
                    touched.add(row[1])
        while touched:
            touched = {p for log in touched if (p := self._cut(t, log)) is not None}

    def _cut(self, t: int, log: int) -> int | None:
        """Cuts a log behind its longest reader, or drops it; then returns its parent."""
        conn = self._conn
        row = conn.execute("SELECT parent, length FROM log WHERE id = ?", (log,)).fetchone()
        if row is None:
            return None
        parent, length = row
        (keep,) = conn.execute(
            "SELECT max(k) FROM (SELECT max(keep) AS k FROM blob WHERE log = ? UNION ALL"
            " SELECT max(parent_keep) FROM log WHERE t = ? AND parent = ?)",
            (log, t, log),
        ).fetchone()
        low, high = log << LOG_OFFSET_BITS, (log + 1) << LOG_OFFSET_BITS
        if keep is None:
            conn.execute("DELETE FROM segment WHERE id >= ? AND id < ?", (low, high))
            conn.execute("DELETE FROM log WHERE id = ?", (log,))
            return None if parent is None else int(parent)
        if keep < length:
            conn.execute("DELETE FROM segment WHERE id >= ? AND id < ?", (low + keep, high))
            conn.execute(
                "UPDATE segment SET body = substr(body, 1, ? - id) WHERE id ="
                " (SELECT max(id) FROM segment WHERE id >= ? AND id < ?)",
                (low + keep, low, low + keep),
            )
            conn.execute("UPDATE log SET length = ? WHERE id = ?", (keep, log))
        return None

    def erase_all(self, t: int) -> None:
        """Removes every value of a thread."""
        self.flush()
        self.forget()
        conn = self._conn
        for (log,) in conn.execute("SELECT id FROM log WHERE t = ?", (t,)).fetchall():
            conn.execute(
                "DELETE FROM segment WHERE id >= ? AND id < ?",
                (log << LOG_OFFSET_BITS, (log + 1) << LOG_OFFSET_BITS),
            )
        conn.execute("DELETE FROM log WHERE t = ?", (t,))
        conn.execute("DELETE FROM blob WHERE t = ?", (t,))
