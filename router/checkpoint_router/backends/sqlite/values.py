"""Reading values from SQLite: rows of their own, or versions over append logs.

Every function works inside the caller's transaction. What is read back is rebuilt and verified
against its content hash, so a broken row is an error that names it, never other bytes.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Final

from checkpoint_router.backends.sqlite.schema import LOG_OFFSET_BITS
from checkpoint_router.core.digests import blob_hash
from checkpoint_router.core.ids import ThreadKey
from checkpoint_router.core.records import Typed
from checkpoint_router.storage.codec import lost

_MANY: Final = 16
"""Hashes asked for in one statement; fewer are padded, so that few statements are prepared."""


def name(hash: bytes) -> str:
    """A value as an error names it."""
    return f"value {hash.hex()[:16]}"


def key(hash: bytes) -> int:
    """By which rows are found: the first 8 bytes of the name, as a signed number. An index of
    whole names would be thrice as large, and a put writes pages of it."""
    return int.from_bytes(hash[:8], "big", signed=True)


def absent(conn: sqlite3.Connection, t: int, hashes: Sequence[bytes]) -> tuple[bytes, ...]:
    """Those of `hashes` that the thread has no row of, in their order."""
    found: set[bytes] = set()
    for start in range(0, len(hashes), _MANY):
        some = hashes[start : start + _MANY]
        width = 1 << (len(some) - 1).bit_length()
        marks = ",".join("?" * width)
        padded = (*some, *[some[-1]] * (width - len(some)))
        asked = f"SELECT h FROM blob WHERE t = ? AND k IN ({marks})"  # noqa: S608  (marks only)
        rows = conn.execute(asked, (t, *map(key, padded)))
        found.update(h for (h,) in rows)
    return tuple(h for h in hashes if h not in found)


def bodies(conn: sqlite3.Connection, low: int, high: int) -> Iterator[bytes]:
    rows = conn.execute(
        "SELECT body FROM segment WHERE id >= ? AND id < ? ORDER BY id", (low, high)
    )
    return (body for (body,) in rows)


def size(conn: sqlite3.Connection, t: int, hash: bytes) -> int | None:
    """Bytes of a value, from its row alone."""
    found = conn.execute(
        "SELECT coalesce(length(data), length(head) + keep) FROM blob"
        " WHERE t = ? AND k = ? AND h = ?",
        (t, key(hash), hash),
    ).fetchone()
    return None if found is None else int(found[0])


def load(conn: sqlite3.Connection, t: int, hash: bytes, thread: ThreadKey) -> Typed | None:
    """A value, verified; None if there is none. Raises DataLoss."""
    found = conn.execute(
        "SELECT tag, head, log, keep, data FROM blob WHERE t = ? AND k = ? AND h = ?",
        (t, key(hash), hash),
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
        own = b"".join(bodies(conn, low, low + keep))
        parent, parent_keep = row
        parts.append(own[: max(0, keep - parent_keep)])
        log, keep = parent, min(keep, parent_keep)
    return b"".join(reversed(parts))
