"""Space that removals left in the file goes back to the file system, while the router serves.

SQLite keeps free pages for what is stored next. When a good part of the file is free, pages from
its end are moved into the gaps, a few in a transaction that others share, and the file ends earlier
once the write-ahead log is copied into it. It costs each put that makes the file grow one page more
(where which page is said).
"""

import sqlite3
from typing import Final

from checkpoint_router.backends.sqlite.schema import PAGE_BYTES

PAGES_AT_ONCE: Final = 64
"""In one transaction: others wait for it about as long as for a few puts."""

BYTES_AT_ONCE: Final = PAGES_AT_ONCE * PAGE_BYTES

_FREE_PAGES_MIN: Final = 1024
"""Fewer are left as they are: they will be used again soon."""

_BEGIN_SHARE, _END_SHARE = 4, 8
"""It begins when more than a fourth of the pages is free, and ends when less than an eighth is."""


def much_is_free(conn: sqlite3.Connection) -> bool:
    """Whether it is time to begin."""
    free, pages = _free(conn)
    return free >= _FREE_PAGES_MIN and free * _BEGIN_SHARE > pages


def give_back(conn: sqlite3.Connection) -> bool:
    """Moves a few pages, in the caller's transaction. Returns whether to go on."""
    for _ in range(PAGES_AT_ONCE):
        # One each: Python 3.11 and 3.12 end a statement whose rows have no columns at its first.
        conn.execute("PRAGMA incremental_vacuum(1)").fetchall()
    free, pages = _free(conn)
    return free * _END_SHARE > pages


def _free(conn: sqlite3.Connection) -> tuple[int, int]:
    (free,) = conn.execute("PRAGMA freelist_count").fetchone()
    (pages,) = conn.execute("PRAGMA page_count").fetchone()
    return free, pages
