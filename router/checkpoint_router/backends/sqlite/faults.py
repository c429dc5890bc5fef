"""What an error of SQLite means to whoever called: typed, naming the record, with what to do.

SQLite's own words are kept in the message. Broken pages are DataLoss; all else may pass.
"""

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from checkpoint_router.core.errors import RouterError, Unavailable
from checkpoint_router.core.ids import ThreadKey
from checkpoint_router.storage.codec import lost

_HINTS: Final = {
    sqlite3.SQLITE_FULL: "The disk (or its quota) is full: free some space.",
    sqlite3.SQLITE_READONLY: "The file cannot be written: check its permissions and its mount.",
    sqlite3.SQLITE_CANTOPEN: "The file cannot be opened: check that its directory exists and "
    "may be written.",
    sqlite3.SQLITE_PERM: "The file cannot be opened: check its permissions.",
    sqlite3.SQLITE_IOERR: "The disk answered with an error: check the system's log.",
    sqlite3.SQLITE_BUSY: "Another process holds the file's lock: end it; a copy is made with "
    "SQLite's backup command.",
    sqlite3.SQLITE_NOMEM: "The process has no memory left.",
}
_BROKEN: Final = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def is_broken(error: sqlite3.Error) -> bool:
    """Whether the file's pages do not make sense any more."""
    return _code(error) in _BROKEN


def fault(
    error: sqlite3.Error, thread: ThreadKey | None, record: object, cause: str = ""
) -> RouterError:
    """The error to raise instead of `error`, which came while `record` was worked on. `cause`: a
    sentence, if more is known than SQLite says."""
    if is_broken(error) and thread is not None:
        return lost(thread, record, f"the database file is damaged there ({error})")
    where = f"{record}" if thread is None else f"{record} of thread {thread.thread!r}"
    return Unavailable(
        f"the storage failed at {where}: {error}. {cause or hint(error)} The call may be repeated "
        f"and then has the effect of one.",
        sqlite=getattr(error, "sqlite_errorname", type(error).__name__),
    )


def hint(error: Exception) -> str:
    """What to do about an error of SQLite or of the system."""
    if isinstance(error, OSError):
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        return _HINTS[sqlite3.SQLITE_FULL if full else sqlite3.SQLITE_IOERR]
    return _HINTS.get(_code(error), "Look at the router's log.")


@contextmanager
def naming(thread: ThreadKey | None, record: object) -> Iterator[None]:
    """Turns SQLite's errors inside into ours, about `record`."""
    try:
        yield
    except sqlite3.Error as e:
        raise fault(e, thread, record) from None


def _code(error: Exception) -> int:
    """The primary result code; extended ones carry it in their low byte."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF
