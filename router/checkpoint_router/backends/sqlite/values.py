"""Values in SQLite: rows of their own, or versions over append logs (`storage.logs` decides).

Every function works inside the caller's transaction. What is read back is rebuilt and verified
against its content hash, so a broken row is an error that names it, never other bytes.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from checkpoint_router.backends.sqlite.schema import LOG_OFFSET_BITS
from checkpoint_router.core import limits
from checkpoint_router.core.answers import NewBlob
from checkpoint_router.core.digests import blob_hash, head_length
from checkpoint_router.core.ids import ThreadKey
from checkpoint_router.core.records import Typed
from checkpoint_router.storage.codec import lost
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

_MANY: Final = 16
"""Hashes asked for in one statement; fewer are padded, so that few statements are prepared."""


def name(hash: bytes) -> str:
    """A value as an error names it."""
    return f"value {hash.hex()[:16]}"


def absent(conn: sqlite3.Connection, t: int, hashes: Sequence[bytes]) -> tuple[bytes, ...]:
    """Those of `hashes` that the thread has no row of, in their order."""
    found: set[bytes] = set()
    for start in range(0, len(hashes), _MANY):
        some = hashes[start : start + _MANY]
        width = 1 << (len(some) - 1).bit_length()
        marks = ",".join("?" * width)
        padded = (*some, *[some[-1]] * (width - len(some)))
        asked = f"SELECT h FROM blob WHERE t = ? AND h IN ({marks})"  # noqa: S608  (marks only)
        rows = conn.execute(asked, (t, *padded))
        found.update(h for (h,) in rows)
    return tuple(h for h in hashes if h not in found)


def store(conn: sqlite3.Connection, t: int, blobs: Iterable[NewBlob]) -> None:
    """Stores values that are not stored yet; the others cost a look."""
    whole = []
    growing = []
    for blob in blobs:
        if worth_a_log(blob):
            growing.append(blob)
        else:
            whole.append((t, blob.hash, blob.value.tag, blob.value.data))
    if whole:
        conn.executemany("INSERT OR IGNORE INTO blob (t, h, tag, data) VALUES (?, ?, ?, ?)", whole)
    for blob in growing:
        _store_growing(conn, t, blob)


def _store_growing(conn: sqlite3.Connection, t: int, blob: NewBlob) -> None:
    if not absent(conn, t, (blob.hash,)):
        return
    row, base = _version(conn, t, blob.continues or b"")
    match place(blob, base):
        case Start(head, tail):
            assert base is not None
            log = _start(conn, t, row, base)
        case Extend(log, head, tail):
            pass
        case Branch(parent, keep, head, tail):
            log = _new_log(conn, t, parent.id, keep, parent.depth + 1)
        case _:
            conn.execute(
                "INSERT INTO blob (t, h, tag, data) VALUES (?, ?, ?, ?)",
                (t, blob.hash, blob.value.tag, blob.value.data),
            )
            return
    _add(conn, log, tail)
    conn.execute(
        "INSERT INTO blob (t, h, tag, head, log, keep) VALUES (?, ?, ?, ?, ?, ?)",
        (t, blob.hash, blob.value.tag, head, log.id, log.length + len(tail)),
    )


def _version(conn: sqlite3.Connection, t: int, hash: bytes) -> tuple[int, Version | None]:
    found = conn.execute(
        "SELECT b.id, b.tag, b.head, b.keep, substr(b.data, 1, ?), length(b.data),"
        " l.id, l.depth, l.length, l.appends FROM blob b LEFT JOIN log l ON l.id = b.log"
        " WHERE b.t = ? AND b.h = ?",
        (HEAD_BYTES_MAX, t, hash),
    ).fetchone()
    if found is None:
        return 0, None
    row, tag, head, keep, first, size, log, depth, length, appends = found
    if first is not None:
        head = first[: head_length(tag, first)]
        return row, Version(hash=hash, tag=tag, head=head, keep=size - len(head), log=None)
    if log is None:
        return 0, None
    held = Log(id=log, depth=depth, length=length, appends=appends)
    return row, Version(hash=hash, tag=tag, head=head, keep=keep, log=held)


def _new_log(conn: sqlite3.Connection, t: int, parent: int | None, keep: int, depth: int) -> Log:
    made = conn.execute(
        "INSERT INTO log (t, parent, parent_keep, depth, length, appends)"
        " VALUES (?, ?, ?, ?, ?, 0)",
        (t, parent, keep, depth, keep),
    )
    assert made.lastrowid is not None
    return Log(id=made.lastrowid, depth=depth, length=keep, appends=0)


def _start(conn: sqlite3.Connection, t: int, row: int, base: Version) -> Log:
    """A log that begins with the body of `base`, which becomes its first version."""
    log = _new_log(conn, t, None, 0, 0)
    conn.execute(
        "INSERT INTO segment (id, tier, body) SELECT ?, 0, substr(data, ?) FROM blob WHERE id = ?",
        (log.id << LOG_OFFSET_BITS, len(base.head) + 1, row),
    )
    conn.execute(
        "UPDATE blob SET head = ?, log = ?, keep = ?, data = NULL WHERE id = ?",
        (base.head, log.id, base.keep, row),
    )
    conn.execute("UPDATE log SET length = ?, appends = 1 WHERE id = ?", (base.keep, log.id))
    return Log(id=log.id, depth=0, length=base.keep, appends=1)


def _add(conn: sqlite3.Connection, log: Log, tail: bytes) -> None:
    if not tail:
        return
    conn.execute(
        "INSERT INTO segment (id, tier, body) VALUES (?, 0, ?)",
        (log.id << LOG_OFFSET_BITS | log.length, tail),
    )
    conn.execute(
        "UPDATE log SET length = length + ?, appends = appends + 1 WHERE id = ?",
        (len(tail), log.id),
    )
    if log.merge_due():
        _merge(conn, log.id)


def _merge(conn: sqlite3.Connection, log: int) -> None:
    low, high = log << LOG_OFFSET_BITS, (log + 1) << LOG_OFFSET_BITS
    while True:
        rows = conn.execute(
            "SELECT id - ?, tier, length(body) FROM segment WHERE id >= ? AND id < ?"
            " ORDER BY id DESC LIMIT ?",
            (low, low, high, limits.LOG_SEGMENTS_MAX),
        ).fetchall()
        merged = merge([SegmentRow(*row) for row in rows])
        if merged is None:
            return
        first = low + merged.offset
        body = b"".join(_bodies(conn, first, high))
        conn.execute("DELETE FROM segment WHERE id >= ? AND id < ?", (first, high))
        conn.execute("INSERT INTO segment VALUES (?, ?, ?)", (first, merged.tier, body))


def _bodies(conn: sqlite3.Connection, low: int, high: int) -> Iterator[bytes]:
    rows = conn.execute(
        "SELECT body FROM segment WHERE id >= ? AND id < ? ORDER BY id", (low, high)
    )
    return (body for (body,) in rows)


def size(conn: sqlite3.Connection, t: int, hash: bytes) -> int | None:
    """Bytes of a value, from its row alone."""
    found = conn.execute(
        "SELECT coalesce(length(data), length(head) + keep) FROM blob WHERE t = ? AND h = ?",
        (t, hash),
    ).fetchone()
    return None if found is None else int(found[0])


def load(conn: sqlite3.Connection, t: int, hash: bytes, thread: ThreadKey) -> Typed | None:
    """A value, verified; None if there is none. Raises DataLoss."""
    found = conn.execute(
        "SELECT tag, head, log, keep, data FROM blob WHERE t = ? AND h = ?", (t, hash)
    ).fetchone()
    if found is None:
        return None
    tag, head, log, keep, data = found
    if data is None:
        data = head + _body(conn, log, keep)
    if blob_hash(tag, data) != hash:
        raise lost(thread, name(hash), "its bytes do not have the hash that names it")
    return Typed(tag, data)


def _body(conn: sqlite3.Connection, log: int | None, keep: int) -> bytes:
    """The first `keep` bytes of a log, through its parents. Shorter if something is missing."""
    parts: list[bytes] = []
    while log is not None:
        row = conn.execute("SELECT parent, parent_keep FROM log WHERE id = ?", (log,)).fetchone()
        if row is None:
            break
        low = log << LOG_OFFSET_BITS
        own = b"".join(_bodies(conn, low, low + keep))
        parent, parent_keep = row
        parts.append(own[: max(0, keep - parent_keep)])
        log, keep = parent, min(keep, parent_keep)
    return b"".join(reversed(parts))


def erase(conn: sqlite3.Connection, t: int, hashes: Iterable[bytes]) -> None:
    """Removes values, and of logs what no remaining version reads."""
    touched: set[int] = set()
    for hash in hashes:
        row = conn.execute("SELECT id, log FROM blob WHERE t = ? AND h = ?", (t, hash)).fetchone()
        if row is not None:
            conn.execute("DELETE FROM blob WHERE id = ?", (row[0],))
            if row[1] is not None:
                touched.add(row[1])
    while touched:
        touched = {p for log in touched if (p := _cut(conn, t, log)) is not None}


def _cut(conn: sqlite3.Connection, t: int, log: int) -> int | None:
    """Cuts a log behind its longest reader, or drops it; then returns its parent."""
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


def erase_all(conn: sqlite3.Connection, t: int) -> None:
    """Removes every value of a thread."""
    for (log,) in conn.execute("SELECT id FROM log WHERE t = ?", (t,)).fetchall():
        conn.execute(
            "DELETE FROM segment WHERE id >= ? AND id < ?",
            (log << LOG_OFFSET_BITS, (log + 1) << LOG_OFFSET_BITS),
        )
    conn.execute("DELETE FROM log WHERE t = ?", (t,))
    conn.execute("DELETE FROM blob WHERE t = ?", (t,))
