"""Every statement that is sent to Cassandra, and the one place that makes them.

Rules, held by tests: a table lives either by statements with a timestamp of ours (`thread`,
`listing`) or by conditional ones (`meta`, `fence`, `state`, `part`), never by both, for the two
kinds of clock cannot be compared; nothing is sent that is not prepared from this file.

What a timestamp decides is which of a row and its removal wins, and no clock may decide that: a
row's removal is above the row, whenever and by whom either was sent. A generation has partitions
of its own, so a removal of one cannot touch the next.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from string import Template
from typing import Final

ROW: Final = 1
"""Timestamp of each row: it is only ever written with the same bytes."""

REMOVED: Final = 2
"""Timestamp of a row's removal. A late copy of the row stays hidden."""

ENDED: Final = 1 << 60
"""Timestamp of a generation's removal: above all that was ever written to it. The counts of
actors, which grow, are written with the position of their last row as a timestamp, which grows with
them; and with them the hint, of which the one stays whose writer knew most."""

INDEX_PAGE: Final = 20_000
"""Rows of an index in one answer. Larger: a member has more of it in its memory at once, some 250
bytes for each; with a hundred new values in each event it would come near the 128 MiB that members
take of each other. Smaller: a first look at a long thread takes more journeys."""

LOG, VOID, ERASED, RECORD, BLOB, SEGMENT = range(6)
"""Kinds of rows in a thread: a log row by actor and n; a mark that one of those does not count,
in the same way; a mark by event that it was pruned; a record's pieces by event; a value's pieces,
or its place in append logs, by hash; what was appended, by log and offset. The first three are
the index, and are read in one slice."""

PRUNED: Final = b""
"""In the place of an event, of a mark that a prune made last: its number stands where n does."""

TABLES: Final = (
    """CREATE TABLE IF NOT EXISTS meta (key text PRIMARY KEY, value blob)""",
    """CREATE TABLE IF NOT EXISTS fence (
        id int PRIMARY KEY, version bigint, recent frozen<list<blob>>)""",
    """CREATE TABLE IF NOT EXISTS state (
        tenant text, thread text, operation blob,
        gen int static, erasures int static, intent blob static, phase int static,
        PRIMARY KEY ((tenant, thread), operation))""",
    """CREATE TABLE IF NOT EXISTS thread (
        tenant text, thread text, gen int, kind tinyint, key blob, n bigint, a bigint,
        counts map<bigint, bigint> static, hint blob static,
        body blob, pos bigint, first bigint, news blob, tag text, size int, path blob,
        PRIMARY KEY ((tenant, thread, gen), kind, key, n, a)) WITH read_repair = 'BLOCKING'""",
    """CREATE TABLE IF NOT EXISTS listing (
        tenant text, part text, k1 text, k2 text, k3 text,
        PRIMARY KEY ((tenant, part), k1, k2, k3)) WITH gc_grace_seconds = 14400""",
    """CREATE TABLE IF NOT EXISTS part (
        tenant text, part text, low int, now int, PRIMARY KEY ((tenant, part)))""",
)
"""thread: `first` is the first n of the batch that wrote the row, `news` the hashes of the values
that came with it, `pos` grows along every chain of cause; n is a piece's number, a its writer.
`path` is where a value that grew stands (`growing`), and `first` where what came with it begins;
in a log row `path` says the same of the first of its `news`, those that grew. `hint` says what a
read may want beside the index (`ahead`).
listing: can be made again from `thread`, so its removals need not be kept for long."""

NAMES: Final = frozenset(table.split()[5] for table in TABLES)
"""Of the tables."""


class Name(StrEnum):
    """What a statement does."""

    META = "meta"
    META_SET = "meta set"
    FENCE = "fence"
    FENCE_RAISE = "fence raise"
    STATE = "state"
    OPERATION = "operation"
    OPERATION_SET = "operation set"
    INTENT_BEGIN = "intent begin"
    INTENT_DECIDE = "intent decide"
    INTENT_ABORT = "intent abort"
    INTENT_FINISH = "intent finish"
    OPERATION_DONE = "operation done"
    COUNTS = "counts"
    INDEX = "index"
    LOG_AFTER = "log after"
    PIECES = "pieces"
    FIRST_PIECES = "first pieces"
    FIRST_KEYS = "first keys"
    PUT_COUNT = "put count"
    PUT_LOG = "put log"
    PUT_MARK = "put mark"
    SEGMENTS = "segments"
    PATHS = "paths"
    PUT_PIECE = "put piece"
    PUT_GROWN = "put grown"
    PUT_SEGMENT = "put segment"
    REMOVE_KEY = "remove key"
    REMOVE_PIECE = "remove piece"
    REMOVE_GENERATION = "remove generation"
    PARTS = "parts"
    PART_BEGIN = "part begin"
    PART_END = "part end"
    LIST_DROP = "list drop"
    LIST_PUT = "list put"
    LIST_REMOVE = "list remove"
    LIST_OF = "list of k1, k2"
    LIST_AFTER = "list after k1"
    LISTS_AFTER = "lists after k1"
    LIST_AFTER_ROW = "list after k1, k2, k3"
    LIST_BELOW = "list below k1, k2"
    LISTS_BELOW = "lists below k1, k2"
    ALL_THREADS = "all generations of all threads"
    ALL_LISTS = "all parts of all tenants"


@dataclass(frozen=True, slots=True)
class Statement:
    """Its text, and how many rows a page of its answer has."""

    text: str
    page: int = 1000
    """0: all in one."""


_PARTS: Final = {
    "state": "WHERE tenant = ? AND thread = ?",
    "generation": "WHERE tenant = ? AND thread = ? AND gen = ?",
    "part": "WHERE tenant = ? AND part = ?",
    "log": "SELECT kind, key, n, body, pos, first, news, path FROM thread",
    "list": "SELECT k1, k2, k3 FROM listing WHERE tenant = ? AND part = ?",
    "down": "ORDER BY k1 DESC, k2 DESC, k3 DESC",
    "piece": "tenant, thread, gen, kind, key, n, a",
    "index": str(ERASED),
    "LOG": str(LOG),
    "BLOB": str(BLOB),
    "SEGMENT": str(SEGMENT),
}

_TEXTS: Final = {
    Name.META: Statement("SELECT value FROM meta WHERE key = ?"),
    Name.META_SET: Statement("INSERT INTO meta (key, value) VALUES (?, ?) IF NOT EXISTS"),
    Name.FENCE: Statement("SELECT version, recent FROM fence WHERE id = ?"),
    Name.FENCE_RAISE: Statement(
        "UPDATE fence SET version = ?, recent = ? WHERE id = ? IF version = ?"
    ),
    Name.STATE: Statement("SELECT gen, erasures, intent, phase FROM state $state LIMIT 1"),
    Name.OPERATION: Statement("SELECT operation FROM state $state AND operation = ?"),
    Name.OPERATION_SET: Statement(
        "INSERT INTO state (tenant, thread, operation) VALUES (?, ?, ?) IF NOT EXISTS"
    ),
    Name.INTENT_BEGIN: Statement(
        "UPDATE state SET intent = ?, phase = 1 $state"
        " IF intent = null AND gen = ? AND erasures = ?"
    ),
    Name.INTENT_DECIDE: Statement(
        "UPDATE state SET phase = 2, gen = ? $state IF intent = ? AND phase = 1"
    ),
    Name.INTENT_ABORT: Statement(
        "UPDATE state SET phase = null, intent = null $state IF intent = ? AND phase = 1"
    ),
    Name.INTENT_FINISH: Statement(
        "UPDATE state SET phase = null, intent = null, erasures = ? $state"
        " IF intent = ? AND phase = 2"
    ),
    Name.OPERATION_DONE: Statement(
        "INSERT INTO state (tenant, thread, operation) VALUES (?, ?, ?)"
    ),
    Name.COUNTS: Statement(
        "SELECT DISTINCT tenant, thread, gen, counts, hint FROM thread $generation"
    ),
    Name.INDEX: Statement("$log $generation AND kind <= $index", page=INDEX_PAGE),
    Name.LOG_AFTER: Statement(
        "$log $generation AND kind = ? AND key = ? AND n > ?", page=INDEX_PAGE
    ),
    Name.PIECES: Statement(
        "SELECT n, body, path FROM thread $generation AND kind = ? AND key = ?", page=8
    ),
    Name.FIRST_PIECES: Statement(
        "SELECT key, size, tag, body, path, first FROM thread $generation"
        " AND kind = ? AND key IN ? AND n = 0",
        page=16,
    ),
    Name.FIRST_KEYS: Statement(
        "SELECT key, size, a, path FROM thread $generation AND kind = ? AND key IN ? AND n = 0"
    ),
    Name.PATHS: Statement("SELECT key, a, path FROM thread $generation AND kind = ?"),
    Name.SEGMENTS: Statement(
        "SELECT n, body FROM thread $generation"
        " AND kind = $SEGMENT AND key = ? AND n >= ? AND n < ?",
        page=512,
    ),
    Name.PUT_COUNT: Statement(
        "UPDATE thread USING TIMESTAMP ? SET counts[?] = ?, hint = ? $generation"
    ),
    Name.PUT_LOG: Statement(
        "INSERT INTO thread ($piece, body, pos, first, news, path)"
        " VALUES (?, ?, ?, $LOG, ?, ?, 0, ?, ?, ?, ?, ?) USING TIMESTAMP ?"
    ),
    Name.PUT_MARK: Statement(
        "INSERT INTO thread ($piece) VALUES (?, ?, ?, ?, ?, ?, 0) USING TIMESTAMP ?"
    ),
    Name.PUT_PIECE: Statement(
        "INSERT INTO thread ($piece, size, tag, body)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?"
    ),
    Name.PUT_GROWN: Statement(
        "INSERT INTO thread ($piece, size, tag, body, path, first)"
        " VALUES (?, ?, ?, $BLOB, ?, 0, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?"
    ),
    Name.PUT_SEGMENT: Statement(
        "INSERT INTO thread ($piece, body) VALUES (?, ?, ?, $SEGMENT, ?, ?, 0, ?) USING TIMESTAMP ?"
    ),
    Name.REMOVE_KEY: Statement(
        "DELETE FROM thread USING TIMESTAMP ? $generation AND kind = ? AND key = ?"
    ),
    Name.REMOVE_PIECE: Statement(
        "DELETE FROM thread USING TIMESTAMP ? $generation"
        " AND kind = ? AND key = ? AND n = ? AND a = ?"
    ),
    Name.REMOVE_GENERATION: Statement("DELETE FROM thread USING TIMESTAMP ? $generation"),
    Name.PARTS: Statement("SELECT part, low, now FROM part WHERE tenant = ? AND part IN ?"),
    Name.PART_BEGIN: Statement("UPDATE part SET low = ?, now = ? $part IF now = ?"),
    Name.PART_END: Statement("UPDATE part SET low = ? $part IF low = ? AND now = ?"),
    Name.LIST_DROP: Statement("DELETE FROM listing USING TIMESTAMP ? $part"),
    Name.LIST_PUT: Statement(
        "INSERT INTO listing (tenant, part, k1, k2, k3) VALUES (?, ?, ?, ?, ?) USING TIMESTAMP ?"
    ),
    Name.LIST_REMOVE: Statement(
        "DELETE FROM listing USING TIMESTAMP ? $part AND k1 = ? AND k2 = ? AND k3 = ?"
    ),
    Name.LIST_OF: Statement("$list AND k1 = ? AND k2 = ?"),
    Name.LIST_AFTER: Statement("$list AND k1 > ? LIMIT ?"),
    Name.LISTS_AFTER: Statement(
        "SELECT part, k1, k2, k3 FROM listing WHERE tenant = ? AND part IN ? AND k1 > ?"
        " PER PARTITION LIMIT ?"
    ),
    Name.LIST_AFTER_ROW: Statement("$list AND (k1, k2, k3) > (?, ?, ?) LIMIT ?"),
    Name.LIST_BELOW: Statement("$list AND (k1, k2) < (?, ?) $down LIMIT ?"),
    Name.LISTS_BELOW: Statement(
        "SELECT part, k1, k2, k3 FROM listing WHERE tenant = ? AND part IN ? AND (k1, k2) < (?, ?)"
        " $down PER PARTITION LIMIT ?",
        page=0,  # Cassandra makes no pages of several partitions in an order.
    ),
    Name.ALL_THREADS: Statement(
        "SELECT DISTINCT tenant, thread, gen, token(tenant, thread, gen) FROM thread"
        " WHERE token(tenant, thread, gen) > ? LIMIT ?"
    ),
    Name.ALL_LISTS: Statement(
        "SELECT DISTINCT tenant, part, token(tenant, part) FROM listing"
        " WHERE token(tenant, part) > ? LIMIT ?"
    ),
}

STATEMENTS: Final = {
    name: Statement(Template(one.text).substitute(_PARTS), one.page) for name, one in _TEXTS.items()
}
"""All of them."""


def in_keyspace(text: str, keyspace: str) -> str:
    """A statement with the keyspace before its table: no session has a keyspace of its own."""
    return re.sub(r"\b(FROM|INTO|UPDATE|EXISTS) (\w+)", rf"\1 {keyspace}.\2", text, count=1)
