"""How far the storage had come, kept beside the database, to notice a file that went back.

Nothing inside a file can tell that an older copy of it was put back, or that its write-ahead log
was cut. So after each commit, and before it is answered, a small file beside it gets (actor,
commit number). It is not synced on the way: it need survive the process only, and an older mark
beside a newer database means nothing. Restoring the whole directory is not noticed, by design.
"""

import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import xxhash


@dataclass(frozen=True, slots=True)
class Mark:
    """The last commit that may have been acknowledged."""

    actor: int
    seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """What the database lacks of what the mark says."""

    missing: int | None
    """Commits; None where it cannot be known."""
    text: str
    """For an operator: what, why, what next."""


_NEXT: Final = (
    "Put back the newest copy of the whole directory if there is one. Else go on: agents whose "
    "reads rest on missing steps are answered STALE, naming those steps, and start new runs."
)


def read(file: Path) -> Mark | None:
    """What the file of a storage that is not open says; None if it is missing or torn."""
    try:
        return _parse(file.read_bytes())
    except OSError:
        return None


class MarkFile:
    """The file, open from `open` to `close`."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._fd: int | None = None

    def open(self) -> Mark | None:
        """What it says; None if it is missing or torn."""
        self._fd = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        return _parse(os.pread(self._fd, 256, 0))

    def write(self, mark: Mark) -> None:
        """Survives the process, not the machine."""
        assert self._fd is not None
        os.pwrite(self._fd, _format(mark), 0)

    def close(self) -> None:
        """Survives the machine too. Idempotent."""
        fd, self._fd = self._fd, None
        if fd is not None:
            try:
                os.fsync(fd)
            finally:
                os.close(fd)


def _format(mark: Mark) -> bytes:
    text = f"actor {mark.actor:016x} commits {mark.seq:020d}".encode()
    return text + b" sum %016x\n" % xxhash.xxh3_64_intdigest(text)


def _parse(raw: bytes) -> Mark | None:
    words = raw.split()
    try:
        mark = Mark(int(words[1], 16), int(words[3]))
    except (IndexError, ValueError):
        return None
    return mark if _format(mark) == raw else None


def compare(conn: sqlite3.Connection, mark: Mark | None) -> Gap | None:
    """What is missing from the database according to `mark`."""
    seq = commit_seq(conn)
    if mark is None:
        return _unmarked() if seq else None
    row = conn.execute("SELECT id FROM actor WHERE actor = ?", (mark.actor,)).fetchone()
    if row is None:
        return _foreign(mark.seq - seq)
    # Where the next process began is where this one's commits end, whatever came after.
    (following,) = conn.execute(
        "SELECT min(first_seq) FROM actor WHERE id > ?", (row[0],)
    ).fetchone()
    last = seq if following is None else following - 1
    if last >= mark.seq:
        return None
    missing = mark.seq - last
    return Gap(
        missing=missing,
        text=f"{missing} acknowledged commits are missing: the database ends at commit {last} of "
        f"{mark.seq}. It is an older file, or its write-ahead log was cut. {_NEXT}",
    )


def _unmarked() -> Gap:
    return Gap(
        missing=None,
        text="The mark beside the database is missing or torn, so nobody can tell whether the "
        "database is the newest one. If you did not remove the mark yourself, compare the "
        "directory with its backup.",
    )


def _foreign(behind: int) -> Gap:
    what = f"At least {behind}" if behind > 0 else "An unknown number of"
    return Gap(
        missing=behind if behind > 0 else None,
        text=f"{what} acknowledged commits are missing: the process that used this directory last "
        f"never used this database. It is an older file, or another one. {_NEXT}",
    )


def commit_seq(conn: sqlite3.Connection) -> int:
    """Commits that the database holds."""
    (seq,) = conn.execute(
        "SELECT max(value, coalesce((SELECT seq FROM event ORDER BY id DESC LIMIT 1), 0))"
        " FROM meta WHERE key = 'commit_seq'"
    ).fetchone()
    return int(seq)
