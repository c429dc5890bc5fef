"""What a look through a whole SQLite shard needs: reads without a writer, and its indices.

Rules: while no router has the storage, its lock is held, so that none starts meanwhile; beside one,
every read is a snapshot of its own, which costs that router some of the disk's time, and what
would read the file in one go, or change it, is left out. An index here is what SQLite keeps as one,
and the columns beside a record that it is kept of.
"""

import re
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Final, TypeVar

from checkpoint_router.backends.sqlite import reader, schema
from checkpoint_router.backends.sqlite.diagnosis import lock
from checkpoint_router.backends.sqlite.faults import fault, is_broken, naming
from checkpoint_router.core.errors import DataLoss, InvalidArgument, Refused, StorageInUse
from checkpoint_router.core.ids import EventId, ThreadKey, leaf_of, slot_of
from checkpoint_router.core.records import Kind, unpack_entry
from checkpoint_router.storage.codec import open_envelope
from checkpoint_router.storage.port import Blobs, ThreadImage
from checkpoint_router.storage.scrub import Fault, Page, Shard, place
from checkpoint_router.storage.scrub import Kind as Wrong

T = TypeVar("T")

_OF_AN_INDEX: Final = re.compile(
    r"missing from index|wrong # of entries in index|non-unique entry in index"
    r"|values differ from index|not in index"
)
"""What SQLite's own check says of an index, and of nothing else."""

_FAULTS_MAX: Final = 100

_ORPHANS: Final = (
    "SELECT (SELECT count(*) FROM event WHERE t NOT IN (SELECT id FROM thread)),"
    " (SELECT count(*) FROM thread WHERE tenant NOT IN (SELECT id FROM tenant)),"
    " (SELECT count(*) FROM event WHERE actor NOT IN (SELECT id FROM actor))"
)

_BELONG_NOWHERE: Final = ("events of no thread", "threads of no tenant", "events of no router")

_THREADS: Final = (
    "SELECT tn.name, th.name, th.id FROM thread th CROSS JOIN tenant tn ON tn.id = th.tenant"
    " WHERE th.id > ? ORDER BY th.id LIMIT ?"
)
"""By the table itself, whose order no broken index changes."""

_AT_ONCE: Final = 64
"""Threads of a page."""

_FILE: Final = "the file"
_UNREADABLE: Final = "SQLite cannot read it"


@asynccontextmanager
async def opened(rest: str, *, repair: bool) -> AsyncIterator[Shard]:
    """The storage of `sqlite:rest`. Raises InvalidArgument, Refused, StorageInUse."""
    directory = _directory(rest)
    file = directory / "shard-0.sqlite3"
    with lock(directory / "shard-0.lock") as holder:
        if repair and holder is not None:
            raise StorageInUse(
                f"the process with id {holder} uses {directory}, and an index cannot be mended "
                f"under it. Nothing was changed. Stop that router, or look without --repair."
            )
        with closing(schema.connect(file, readonly=not repair)) as conn:
            _must_be_ours(conn, file)
            yield SqliteShard(conn, alone=holder is None)


def _directory(rest: str) -> Path:
    directory = Path(rest).expanduser()
    if not rest or not (directory / "shard-0.sqlite3").is_file():
        raise InvalidArgument(
            f"there is no storage at sqlite:{rest}: it has no shard-0.sqlite3. Name its directory.",
            field="storage",
        )
    return directory


def _must_be_ours(conn: sqlite3.Connection, file: Path) -> None:
    try:
        found, owner = (
            int(conn.execute(f"PRAGMA {name}").fetchone()[0])
            for name in ("user_version", "application_id")
        )
    except sqlite3.Error as e:
        if is_broken(e):
            raise DataLoss(
                f"{file} is damaged: {e}. Restore the directory from a backup."
            ) from None
        raise fault(e, None, f"opening {file}") from None
    known = len(schema.MIGRATIONS)
    if owner != schema.APPLICATION_ID:
        raise Refused(f"{file} is a database of another program. Name another directory.")
    if found != known:
        what = "Use a newer version." if found > known else "Start a router on it once."
        raise Refused(f"{file} has storage format {found}, not {known}. Nothing was read. {what}")


class _Reads:
    """The port's verbs that read, each in a snapshot of its own."""

    def __init__(self, conn: sqlite3.Connection) -> None:
        self._conn = conn

    async def image(self, thread: ThreadKey) -> ThreadImage:
        return self.run(lambda c: reader.image(c, thread), thread, "the index")

    async def events(
        self, thread: ThreadKey, gen: int, ids: Sequence[EventId]
    ) -> Mapping[EventId, bytes]:
        return self.run(lambda c: reader.events(c, thread, gen, ids), thread, "its events")

    async def blobs(
        self, thread: ThreadKey, gen: int, hashes: Sequence[bytes], budget_bytes: int
    ) -> Blobs:
        return self.run(
            lambda c: reader.blobs(c, thread, gen, hashes, budget_bytes), thread, "its values"
        )

    def run(
        self,
        work: Callable[[sqlite3.Connection], T],
        thread: ThreadKey,
        record: str,
        begin: str = "BEGIN",
    ) -> T:
        with naming(thread, record):
            self._conn.execute(begin)
            try:
                found = work(self._conn)
                self._conn.execute("COMMIT")
                return found
            finally:
                if self._conn.in_transaction:
                    self._conn.execute("ROLLBACK")


class SqliteShard:
    """See `storage.scrub.Shard`."""

    grace_seconds = 0.0

    def __init__(self, conn: sqlite3.Connection, *, alone: bool) -> None:
        self.storage = _Reads(conn)
        self._conn = conn
        self._alone = alone
        self._misleads = False
        """Threads cannot be found, or what is found of them is not to be believed."""

    async def whole(self, *, repair: bool) -> list[Fault]:
        """SQLite's own check, if no router has the file, and rows that belong to nothing."""
        found: list[Fault] = []
        try:
            if self._alone:
                found += self._own_check(repair)
            else:
                text = "a router has it, so SQLite's own check, which reads all of it in one go,"
                text += " was left out. Stop the router for that"
                found.append(_fault(Wrong.NOTE, _FILE, text))
            self._conn.execute("BEGIN")
            for what, count in zip(
                _BELONG_NOWHERE, self._conn.execute(_ORPHANS).fetchone(), strict=True
            ):
                if count:
                    text = f"there are {count:,}, which nobody can read"
                    found.append(_fault(Wrong.LOG, what, text))
            # An index that is not there misleads nobody.
            if any(f.kind is Wrong.INDEX and f.record == _FILE for f in found if not f.mended):
                self._misleads = True
                text = "they were not read: what SQLite would find by its indices misleads"
                text += ". --repair makes those anew first"
                found.append(_fault(Wrong.NOTE, "all threads", text))
        except sqlite3.Error as e:
            if not is_broken(e):
                raise fault(e, None, _FILE) from None
            self._misleads = True
            found.append(_fault(Wrong.RECORD, _FILE, f"{_UNREADABLE}: {e}"))
        finally:
            if self._conn.in_transaction:
                self._conn.execute("ROLLBACK")
        return found

    def _own_check(self, repair: bool) -> list[Fault]:
        said = _integrity(self._conn)
        absent = _absent_indices(self._conn)
        bad_index = [text for text in said if _OF_AN_INDEX.search(text)]
        found = [_fault(Wrong.RECORD, _FILE, t) for t in said if t not in bad_index]
        mended = False
        if repair and (bad_index or absent) and not found:
            mended = self._make_indices(absent.values())
        found += [_fault(Wrong.INDEX, _FILE, text, mended=mended) for text in bad_index]
        for name in absent:
            text = "SQLite does not have this index any more"
            found.append(_fault(Wrong.INDEX, name, text, mended=mended))
        return found

    def _make_indices(self, absent: Iterable[str]) -> bool:
        schema.set_durable(self._conn)
        try:
            for statement in absent:
                self._conn.execute(statement)
            self._conn.execute("REINDEX")
        except sqlite3.IntegrityError:
            return False  # two rows of one name: no index can have both
        return not _integrity(self._conn)

    async def page(self, cursor: str, *, repair: bool) -> Page | None:
        """As the table has them, by its row ids."""
        after = place(cursor, "sqlite")
        if self._misleads:
            return None
        try:
            ask = self._conn.execute
            rows = ask(_THREADS, (after, _AT_ONCE)).fetchall()
            (left,) = ask("SELECT count(*) FROM thread WHERE id > ?", (after,)).fetchone()
        except sqlite3.Error as e:
            if not is_broken(e):
                raise fault(e, None, _FILE) from None
            self._misleads = True
            found = (_fault(Wrong.RECORD, _FILE, f"{_UNREADABLE}: {e}"),)
            return Page(threads=(), cursor=f"sqlite:{after}", left=0, faults=found)
        if not rows:
            return None
        threads = [ThreadKey(*row[:2]) for row in rows]
        return Page(threads=threads, cursor=f"sqlite:{rows[-1][2]}", left=left)

    async def index(self, thread: ThreadKey, image: ThreadImage, *, repair: bool) -> list[Fault]:
        """Columns beside records, and whether the log has gaps."""
        if not repair:
            return self.storage.run(lambda c: _columns(c, thread, mend=False), thread, "the index")
        schema.set_durable(self._conn)
        return self.storage.run(
            lambda c: _columns(c, thread, mend=True), thread, "the index", "BEGIN IMMEDIATE"
        )


def _integrity(conn: sqlite3.Connection) -> list[str]:
    rows = [str(row[0]) for row in conn.execute(f"PRAGMA integrity_check({_FAULTS_MAX})")]
    return [] if rows == ["ok"] else rows


def _absent_indices(conn: sqlite3.Connection) -> dict[str, str]:
    """Indices that the schema has and the file lacks, with what makes them."""
    named = "SELECT name, sql FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL"
    with closing(sqlite3.connect(":memory:")) as fresh:
        for step in schema.MIGRATIONS:
            fresh.executescript(step)
        wanted = dict(fresh.execute(named))
    there = {name for name, _ in conn.execute(named)}
    return {name: sql for name, sql in wanted.items() if name not in there}


def _columns(conn: sqlite3.Connection, thread: ThreadKey, *, mend: bool) -> list[Fault]:
    row = conn.execute(
        "SELECT th.id, th.gen, th.tenant, th.slot, th.leaf FROM thread th"
        " JOIN tenant tn ON tn.id = th.tenant WHERE tn.name = ? AND th.name = ?",
        (thread.tenant, thread.thread),
    ).fetchone()
    if row is None:
        return []
    t, gen, tenant, *place = row
    found = []
    wanted = [slot_of(thread.thread), leaf_of(thread.thread)]
    if place != wanted:
        found.append(_fault(Wrong.INDEX, "the thread", "its slot or leaf is not its own", thread))
        if mend:
            conn.execute("UPDATE thread SET slot = ?, leaf = ? WHERE id = ?", (*wanted, t))
    entries = conn.execute(
        "SELECT id, erased, seg, idx, tenant, cid, run, entry FROM event WHERE t = ? AND gen = ?",
        (t, gen),
    ).fetchall()
    for id, erased, *columns, sealed in entries:
        entry = unpack_entry(open_envelope(sealed, thread, f"index entry {id}"))
        shown = entry.kind is Kind.CHECKPOINT and not erased
        listed = (entry.checkpoint_id, entry.run_id) if shown else (None, None)
        right = [entry.id.segment, entry.id.index, tenant, *listed]
        if columns != right:
            text = "the columns that SQLite's indices are made of differ from its index entry"
            found.append(_fault(Wrong.INDEX, f"event {entry.id}", text, thread))
            if mend:
                conn.execute(
                    "UPDATE event SET seg = ?, idx = ?, tenant = ?, cid = ?, run = ? WHERE id = ?",
                    (*right, id),
                )
    return found + _gaps(conn, thread, t, gen)


def _gaps(conn: sqlite3.Connection, thread: ThreadKey, t: int, gen: int) -> list[Fault]:
    rows = conn.execute(
        "SELECT actor, count(DISTINCT n), max(n) FROM event WHERE t = ? AND gen = ? GROUP BY actor",
        (t, gen),
    )
    return [
        _fault(
            Wrong.LOG, f"router {actor}", f"the log lacks {last - count:,} of its {last:,}", thread
        )
        for actor, count, last in rows
        if count != last
    ]


def _fault(
    kind: Wrong, record: str, text: str, thread: ThreadKey | None = None, *, mended: bool = False
) -> Fault:
    return Fault(kind=kind, thread=thread, record=record, text=text, mended=mended)
