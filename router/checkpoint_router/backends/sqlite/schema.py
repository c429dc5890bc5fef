"""Tables of one shard's file, how to open it, and the steps from each older format to this one.

Payload stands in ordinary rowid tables: WITHOUT ROWID made the file three times its payload and
halved the rate.

Rules: `user_version` is the format; a step is never edited after a release, only added to; a
file of a newer format or of another program is refused before a byte of it is changed.
"""

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from checkpoint_router.core.errors import Refused

APPLICATION_ID: Final = 0x63_70_72_74
"""Says to `file` and to us whose database it is."""

PAGE_BYTES: Final = 4096
"""A lone commit writes whole pages, each with a bit of change: half the page, half the bytes."""

LOG_OFFSET_BITS: Final = 24
"""A segment's row number is its log's number above this many bits of offset, so the rows of one
log lie side by side and need no index. `limits.LOG_BYTES_MAX` fits."""

_FORMAT_1: Final = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE actor (
  id INTEGER PRIMARY KEY, actor INTEGER NOT NULL UNIQUE, first_seq INTEGER NOT NULL);
CREATE TABLE tenant (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE thread (
  id INTEGER PRIMARY KEY, tenant INTEGER NOT NULL, name TEXT NOT NULL,
  slot INTEGER NOT NULL, leaf INTEGER NOT NULL, gen INTEGER NOT NULL);
CREATE UNIQUE INDEX thread_name ON thread (tenant, name);
CREATE INDEX thread_slot ON thread (slot, leaf);
CREATE TABLE event (
  id INTEGER PRIMARY KEY, t INTEGER NOT NULL, gen INTEGER NOT NULL,
  seg BLOB NOT NULL, idx INTEGER NOT NULL, actor INTEGER NOT NULL, n INTEGER NOT NULL,
  seq INTEGER NOT NULL, tenant INTEGER NOT NULL, erased INTEGER NOT NULL DEFAULT 0,
  cid TEXT, run TEXT, entry BLOB NOT NULL, body BLOB);
CREATE INDEX event_id ON event (t, seg, idx);
CREATE INDEX event_newest ON event (tenant, cid, t) WHERE cid IS NOT NULL;
CREATE INDEX event_run ON event (tenant, run, t) WHERE run IS NOT NULL;
CREATE TABLE blob (
  id INTEGER PRIMARY KEY, t INTEGER NOT NULL, k INTEGER NOT NULL, h BLOB NOT NULL,
  tag TEXT NOT NULL, head BLOB, log INTEGER, keep INTEGER, data BLOB);
CREATE UNIQUE INDEX blob_key ON blob (t, k);
CREATE INDEX blob_version ON blob (log, keep) WHERE log IS NOT NULL;
CREATE TABLE log (
  id INTEGER PRIMARY KEY, t INTEGER NOT NULL, parent INTEGER, parent_keep INTEGER NOT NULL,
  depth INTEGER NOT NULL, length INTEGER NOT NULL, appends INTEGER NOT NULL);
CREATE INDEX log_thread ON log (t);
CREATE TABLE segment (id INTEGER PRIMARY KEY, tier INTEGER NOT NULL, body BLOB NOT NULL);
CREATE TABLE operation (t INTEGER NOT NULL, id BLOB NOT NULL, PRIMARY KEY (t, id)) WITHOUT ROWID;
INSERT INTO meta VALUES ('commit_seq', 0);
"""
# event: seq of the commit that stored it; cid and run only of a checkpoint that is not erased, and
# no body of one that is; n counts per (t, gen, actor); actor names a row of `actor`.
# blob: data, or (log, keep, head); k is the beginning of its name, h. meta, commit_seq: of the last
# commit that did more than store events, so that the others write one page less.

MIGRATIONS: Final[tuple[str, ...]] = (_FORMAT_1,)
"""Step i takes a file of format i to format i + 1. Format 0 is an empty file."""


def connect(file: Path, *, readonly: bool = False) -> sqlite3.Connection:
    """A connection that any one thread at a time may use, with explicit transactions only."""
    mode = "ro" if readonly else "rwc"
    conn = sqlite3.connect(
        f"{file.absolute().as_uri()}?mode={mode}",
        uri=True,
        isolation_level=None,
        cached_statements=256,
        check_same_thread=False,
        timeout=5.0,
    )
    conn.execute("PRAGMA temp_store = MEMORY")
    return conn


def prepare(conn: sqlite3.Connection, file: Path, steps: Sequence[str] = MIGRATIONS) -> None:
    """Makes the file, or brings it to the newest format. Raises Refused; then nothing changed."""
    found = int(conn.execute("PRAGMA user_version").fetchone()[0])
    owner = int(conn.execute("PRAGMA application_id").fetchone()[0])
    tables = int(conn.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0])
    if owner != APPLICATION_ID and (owner or found or tables):
        raise Refused(
            f"{file} is a database of another program. Nothing was changed. Name another directory."
        )
    if found > len(steps):
        raise Refused(
            f"{file} has storage format {found}; this version knows up to {len(steps)}. Nothing "
            f"was changed. Start the newer version that wrote it, or name another directory."
        )
    if not found:
        conn.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        conn.execute("PRAGMA auto_vacuum = INCREMENTAL")  # see `space`
    set_durable(conn)
    for number in range(found, len(steps)):
        _step(conn, number + 1, steps[number])


def set_durable(conn: sqlite3.Connection) -> None:
    """A commit on this connection is on disk when it returns."""
    conn.execute("PRAGMA journal_mode = WAL")
    conn.execute("PRAGMA synchronous = FULL")
    conn.execute("PRAGMA fullfsync = ON")
    conn.execute("PRAGMA checkpoint_fullfsync = ON")
    # Checkpoints are made by a worker beside the writer, not by the commit that happens to be due.
    conn.execute("PRAGMA wal_autocheckpoint = 0")
    # What was deleted is overwritten, not only forgotten.
    conn.execute("PRAGMA secure_delete = ON")
    conn.execute("PRAGMA cache_size = -16384")


def _step(conn: sqlite3.Connection, number: int, script: str) -> None:
    conn.execute("BEGIN IMMEDIATE")
    try:
        for statement in script.split(";\n"):
            if statement.strip():
                conn.execute(statement)
        conn.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        conn.execute(f"PRAGMA user_version = {number}")
        conn.execute("COMMIT")
    except sqlite3.Error:
        if conn.in_transaction:
            conn.execute("ROLLBACK")
        raise
