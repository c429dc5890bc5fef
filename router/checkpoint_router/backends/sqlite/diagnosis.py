"""Looks at a shard's directory from outside, without opening it as a storage.

Rules: nothing is changed and nothing is created, but for the two files that SQLite itself puts
beside a database while it is read. The lock is held meanwhile, so that no router starts on a file
that is being read through; where a router holds it, only what costs that router nothing is read.
"""

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from checkpoint_router.backends.sqlite import facts, mark, schema
from checkpoint_router.backends.sqlite.watch import full
from checkpoint_router.core.errors import InvalidArgument
from checkpoint_router.storage.finding import Finding, Verdict


def diagnose(rest: str) -> Iterator[Finding]:
    """What `sqlite:rest` looks like."""
    if not rest:
        raise InvalidArgument(
            "sqlite: names no directory. Write sqlite:DIRECTORY.", field="storage"
        )
    directory = Path(rest).expanduser()
    file = directory / "shard-0.sqlite3"
    if not file.is_file():
        yield _bad("file", f"{file} does not exist. Is it the right directory? A router makes it.")
        return
    yield _good("file", f"{file}, {file.stat().st_size:,} bytes")
    with lock(directory / "shard-0.lock") as holder:
        if holder is not None:
            yield _note(
                "lock",
                f"in use by the process with id {holder}, so the file is not read through. Ask "
                f"that router with --target router://HOST:PORT, or stop it and look again.",
            )
        else:
            yield _good("lock", "no router uses it")
        try:
            with closing(schema.connect(file, readonly=True)) as conn:
                yield from _look(conn, file, directory / "shard-0.mark", holder is None)
        except sqlite3.Error as e:
            yield _bad("file", f"SQLite cannot read it: {e}. Restore the directory from a backup.")


def _look(conn: sqlite3.Connection, file: Path, marked: Path, alone: bool) -> Iterator[Finding]:
    found = int(conn.execute("PRAGMA user_version").fetchone()[0])
    owner = int(conn.execute("PRAGMA application_id").fetchone()[0])
    if owner != schema.APPLICATION_ID:
        yield _bad("format", "it is a database of another program. Name another directory.")
        return
    known = len(schema.MIGRATIONS)
    if found > known:
        yield _bad("format", f"format {found}; this version knows up to {known}. Use a newer one.")
        return
    yield _good("format", f"format {found}" + ("" if found == known else f", older than {known}"))
    yield from _held(conn)
    for alarm in facts.filesystem_alarms(file):
        yield _bad("file system", alarm)
    if little := full(file.parent):
        yield _bad("file system", little)
    if not alone:
        return
    yield _came_forward(conn, marked)
    yield _integrity(conn)


def _held(conn: sqlite3.Connection) -> Iterator[Finding]:
    counts = conn.execute(
        "SELECT (SELECT count(*) FROM thread), (SELECT count(*) FROM event),"
        " (SELECT count(*) FROM blob)"
    ).fetchone()
    named = zip(counts, ("thread", "event", "value"), strict=True)
    text = ", ".join(f"{n:,} {noun if n == 1 else noun + 's'}" for n, noun in named)
    yield _good("content", f"{text}, commit {mark.commit_seq(conn):,}")


def _came_forward(conn: sqlite3.Connection, marked: Path) -> Finding:
    gap = mark.compare(conn, mark.read(marked))
    if gap is not None:
        return _bad("last commit", gap.text)
    return _good("last commit", "the database has every commit that was acknowledged")


def _integrity(conn: sqlite3.Connection) -> Finding:
    found = [str(row[0]) for row in conn.execute("PRAGMA integrity_check(5)")]
    if found == ["ok"]:
        return _good("integrity", "SQLite's own check passes")
    return _bad("integrity", f"{'; '.join(found)}. Restore the directory from a backup.")


@contextmanager
def lock(file: Path) -> Iterator[str | None]:
    """Holds the lock if it is free; gives the id of the process that has it, if one has."""
    try:
        fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        yield None
        return
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield os.pread(fd, 32, 0).decode(errors="replace").strip() or "unknown"
        else:
            yield None
    finally:
        os.close(fd)


def _good(what: str, text: str) -> Finding:
    return Finding(what=what, verdict=Verdict.GOOD, text=text)


def _note(what: str, text: str) -> Finding:
    return Finding(what=what, verdict=Verdict.NOTE, text=text)


def _bad(what: str, text: str) -> Finding:
    return Finding(what=what, verdict=Verdict.BAD, text=text)
