"""The verbs that read, each on a connection of its own thread, in one snapshot.

Rules: no transaction outlives one call, so that the write-ahead log can always be copied into the
file; every record is verified before it is given back.
"""

import sqlite3
from collections.abc import Mapping, Sequence

from msgspec import structs

from checkpoint_router.backends.sqlite import values
from checkpoint_router.backends.sqlite.faults import naming
from checkpoint_router.core.errors import DataLoss
from checkpoint_router.core.ids import EventId, SegmentId, ThreadKey
from checkpoint_router.core.records import Entry, Typed, unpack_entry
from checkpoint_router.storage.codec import lost, open_envelope
from checkpoint_router.storage.port import Blobs, Records, ThreadImage, named

_THREAD = (
    "SELECT th.id, th.gen FROM thread th JOIN tenant tn ON tn.id = th.tenant"
    " WHERE tn.name = ? AND th.name = ?"
)

_EVENT = "SELECT erased, body FROM event WHERE t = ? AND gen = ? AND seg = ? AND idx = ?"
_NEWEST = (
    "SELECT e.cid, th.name FROM event e JOIN thread th ON th.id = e.t"
    " WHERE e.tenant = (SELECT id FROM tenant WHERE name = ?) AND e.cid IS NOT NULL"
    " ORDER BY e.cid DESC, th.name DESC"
)
_NEWEST_BELOW = (
    "SELECT e.cid, th.name FROM event e JOIN thread th ON th.id = e.t"
    " WHERE e.tenant = (SELECT id FROM tenant WHERE name = ?)"
    " AND e.cid <= ? AND (e.cid, th.name) < (?, ?)"
    " ORDER BY e.cid DESC, th.name DESC"
)


def _find(conn: sqlite3.Connection, thread: ThreadKey) -> tuple[int, int]:
    """Row number and live generation; (0, 1) for a thread that was never written to."""
    row = conn.execute(_THREAD, (thread.tenant, thread.thread)).fetchone()
    return (0, 1) if row is None else (row[0], row[1])


def image(conn: sqlite3.Connection, thread: ThreadKey) -> ThreadImage:
    """See `Storage.image`."""
    t, gen = _find(conn, thread)
    rows = conn.execute(
        "SELECT id, erased, entry FROM event WHERE t = ? AND gen = ?", (t, gen)
    ).fetchall()
    rows.sort()
    return ThreadImage(gen=gen, entries=tuple(_entry(conn, thread, *row) for row in rows))


def _entry(
    conn: sqlite3.Connection, thread: ThreadKey, row: int, erased: int, sealed: bytes
) -> Entry:
    try:
        entry = unpack_entry(open_envelope(sealed, thread, "index entry"))
    except DataLoss:
        seg, idx = conn.execute("SELECT seg, idx FROM event WHERE id = ?", (row,)).fetchone()
        id = EventId(SegmentId(seg), idx)
        raise lost(thread, f"index entry of event {id}", "it fails its checksum") from None
    return structs.replace(entry, erased=True) if erased else entry


def events(
    conn: sqlite3.Connection, thread: ThreadKey, gen: int, ids: Sequence[EventId]
) -> Mapping[EventId, bytes]:
    """See `Storage.events`."""
    t, live = _find(conn, thread)
    found: dict[EventId, bytes] = {}
    for id in ids if live == gen else ():
        record = f"event {id}"
        with naming(thread, record):
            row = conn.execute(_EVENT, (t, gen, id.segment, id.index)).fetchone()
        if row is None or row[0]:
            continue
        if row[1] is None:
            raise lost(thread, record, "its record is not there")
        found[id] = open_envelope(row[1], thread, record)
    return found


def missing_blobs(
    conn: sqlite3.Connection, thread: ThreadKey, gen: int, hashes: Sequence[bytes]
) -> tuple[bytes, ...]:
    """See `Storage.missing_blobs`."""
    t, live = _find(conn, thread)
    return values.absent(conn, t if live == gen else 0, hashes)


def blobs(
    conn: sqlite3.Connection,
    thread: ThreadKey,
    gen: int,
    hashes: Sequence[bytes],
    budget_bytes: int,
) -> Blobs:
    """See `Storage.blobs`."""
    sizes = blob_sizes(conn, thread, gen, tuple(dict.fromkeys(hashes)))
    t, _ = _find(conn, thread)
    found: dict[bytes, Typed] = {}
    asked = tuple(sizes)
    for position, hash in enumerate(asked):
        budget_bytes -= sizes[hash]
        if budget_bytes < 0 and found:
            return Blobs(found=found, rest=asked[position:])
        with naming(thread, values.name(hash)):
            value = values.load(conn, t, hash, thread)
        assert value is not None, "sizes and values are of one snapshot"
        found[hash] = value
    return Blobs(found=found, rest=())


def records(
    conn: sqlite3.Connection,
    thread: ThreadKey,
    gen: int,
    ids: Sequence[EventId],
    budget_bytes: int,
) -> Records:
    """See `Storage.records`."""
    found = events(conn, thread, gen, ids)
    return Records(
        events=found, blobs=blobs(conn, thread, gen, named(found.values()), budget_bytes)
    )


def blob_sizes(
    conn: sqlite3.Connection, thread: ThreadKey, gen: int, hashes: Sequence[bytes]
) -> Mapping[bytes, int]:
    """See `Storage.blob_sizes`."""
    t, live = _find(conn, thread)
    if live != gen:
        return {}
    sizes = ((h, values.size(conn, t, h)) for h in hashes)
    return {h: size for h, size in sizes if size is not None}


def erased(conn: sqlite3.Connection, thread: ThreadKey, operation: bytes) -> bool:
    """See `Storage.erased`."""
    t, _ = _find(conn, thread)
    row = conn.execute("SELECT 1 FROM operation WHERE t = ? AND id = ?", (t, operation)).fetchone()
    return row is not None


def threads(conn: sqlite3.Connection, tenant: str, after: str, limit: int) -> Sequence[str]:
    """See `Storage.threads`."""
    rows = conn.execute(
        "SELECT th.name FROM thread th JOIN tenant tn ON tn.id = th.tenant"
        " WHERE tn.name = ? AND th.name > ? AND EXISTS (SELECT 1 FROM event e"
        " WHERE e.t = th.id AND e.gen = th.gen AND NOT e.erased)"
        " ORDER BY th.name LIMIT ?",
        (tenant, after, limit),
    )
    return [name for (name,) in rows]


def slot_threads(
    conn: sqlite3.Connection, slot: int, after: tuple[int, str, str] | None, limit: int
) -> Sequence[tuple[int, ThreadKey]]:
    """See `Storage.slot_threads`."""
    rows = conn.execute(
        "SELECT th.leaf, tn.name, th.name FROM thread th JOIN tenant tn ON tn.id = th.tenant"
        " WHERE th.slot = ? AND th.leaf >= ? AND (th.leaf, tn.name, th.name) > (?, ?, ?)"
        " ORDER BY th.leaf, tn.name, th.name LIMIT ?",
        (slot, after[0] if after else 0, *(after or (-1, "", "")), limit),
    )
    return [(leaf, ThreadKey(tenant, name)) for leaf, tenant, name in rows]


def newest(
    conn: sqlite3.Connection, tenant: str, before: tuple[str, str] | None, limit: int
) -> Sequence[tuple[str, str]]:
    """See `Storage.newest`."""
    if before:
        rows = conn.execute(_NEWEST_BELOW, (tenant, before[0], *before))
    else:
        rows = conn.execute(_NEWEST, (tenant,))
    found: list[tuple[str, str]] = []
    for row in rows:
        if len(found) == limit:
            break
        # Equal ones follow each other: a checkpoint may be stored more than once.
        if not found or found[-1] != row:
            found.append(row)
    rows.close()
    return found


def threads_of_runs(conn: sqlite3.Connection, tenant: str, runs: Sequence[str]) -> Sequence[str]:
    """See `Storage.threads_of_runs`."""
    found: set[str] = set()
    for run in runs:
        rows = conn.execute(
            "SELECT name FROM thread WHERE id IN (SELECT t FROM event WHERE run = ?"
            " AND tenant = (SELECT id FROM tenant WHERE name = ?))",
            (run, tenant),
        )
        found.update(name for (name,) in rows)
    return sorted(found)
