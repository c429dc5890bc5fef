"""Damage for tests: what a hand, a disk or a server may do to what was stored.

Each engine has a table: a name, which is the thread too; what is done to that thread, through a
connection of the test's own; and the kinds of faults that a look through the storage must name.
Kinds of an index can be mended.
"""

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import redis as driver
from cassandra.cluster import Cluster
from msgspec import structs

from checkpoint_router.backends.cassandra.listings import thread_line
from checkpoint_router.backends.cassandra.statements import BLOB, LOG, RECORD, SEGMENT
from checkpoint_router.backends.redis import layout
from checkpoint_router.core.ids import ThreadKey
from checkpoint_router.core.records import pack_entry
from checkpoint_router.storage.codec import seal_envelope
from checkpoint_router.storage.port import Append, Erase, Storage, Stored
from checkpoint_router.storage.scrub import Kind
from tests import builders as b

INDEX, LOST = {Kind.INDEX}, Kind.LOG

Case = tuple[Any, set[Kind]]


async def fill(storage: Storage, thread: ThreadKey = b.THREAD) -> None:
    """A run of five checkpoints whose value grows, of which the second was pruned."""
    for append in appends(thread):
        answer = await storage.append(append)
        assert isinstance(answer, Stored), answer
    erase = Erase(
        thread=thread,
        gen=1,
        operation=bytes(16),
        events=(b.event_id("s", 2),),
        blobs=(),
        stored=5,
    )
    assert await storage.erase(erase)


def appends(thread: ThreadKey = b.THREAD) -> list[Append]:
    """The five checkpoints of `fill`."""
    found = []
    value = b.new_blob(b"\xdc\x00\x01" + b"x" * 3000)
    for index in range(1, 6):
        event = b.checkpoint_event(
            "s",
            index,
            checkpoint_id=f"c{index}",
            run_id=f"r{index}",
            blobs=[value],
            head=b.header(b.token(thread)) if index == 1 else None,
            hlc=b.FIRST_HLC + index,
            after=((1, index - 1),) if index > 1 else (),
        )
        found.append(b.append(event, thread=thread, blobs=[value]))
        value = b.new_blob(value.value.data + b"y" * 1000 * index, continues=value)
    return found


def liar(thread: ThreadKey) -> bytes:
    """An index entry, whole in itself, that says another checkpoint than its record."""
    lied = structs.replace(appends(thread)[2].entry, parent_id="another")
    return seal_envelope(pack_entry(lied))


# SQLite --------------------------------------------------------------------------------------


def _event_row(change: str, index: int = 3) -> str:
    return f"{change} WHERE t = ({_THREAD}) AND idx = {index}"


_THREAD = "SELECT id FROM thread WHERE name = :thread"
_LOGS = f"SELECT id FROM log WHERE t = ({_THREAD})"  # noqa: S608 - words of this file

SQLITE: dict[str, Case] = {
    "whole": ("SELECT 1", set()),
    "a checkpoint under another id": (_event_row("UPDATE event SET cid = 'c9'"), INDEX),
    "a checkpoint that is not listed": (_event_row("UPDATE event SET cid = NULL"), INDEX),
    "a checkpoint without its run": (_event_row("UPDATE event SET run = NULL"), INDEX),
    "a pruned checkpoint that is listed": (_event_row("UPDATE event SET cid = 'c2'", 2), INDEX),
    "an event under another index": (_event_row("UPDATE event SET idx = 99"), INDEX),
    "a thread in another slot": ("UPDATE thread SET slot = slot + 1 WHERE name = :thread", INDEX),
    "a record with other bytes": (_event_row("UPDATE event SET body = x'0102'"), {Kind.RECORD}),
    "a record of another event": (
        _event_row(f"UPDATE event SET body = ({_event_row('SELECT body FROM event', 4)})"),  # noqa: S608 - as above
        {Kind.RECORD},
    ),
    "a record that is gone": (_event_row("UPDATE event SET body = NULL"), {Kind.RECORD}),
    "an entry that lies": (_event_row("UPDATE event SET entry = :liar"), {Kind.RECORD}),
    "an entry with other bytes": (_event_row("UPDATE event SET entry = x'0102'"), {Kind.LOG}),
    "an event that is gone": (_event_row("DELETE FROM event"), {Kind.LOG, Kind.CLOSURE}),
    "a value that is gone": (
        f"DELETE FROM blob WHERE t = ({_THREAD}) AND log IS NOT NULL",  # noqa: S608 - as above
        {Kind.VALUE},
    ),
    "a piece that is gone": (
        f"DELETE FROM segment WHERE id >> 24 IN ({_LOGS})",  # noqa: S608 - as above
        {Kind.VALUE},
    ),
}


def sqlite_rows(url: str) -> sqlite3.Connection:
    """A connection of the test's own."""
    return sqlite3.connect(Path(url.removeprefix("sqlite:")) / "shard-0.sqlite3")


def damage_sqlite(url: str) -> None:
    with closing(sqlite_rows(url)) as conn, conn:
        for name, (statement, _) in SQLITE.items():
            said = {"thread": name, "liar": liar(ThreadKey("acme", name))}
            assert conn.execute(statement, said).rowcount


def records_of_sqlite(url: str) -> Any:
    """All that is no index."""
    with closing(sqlite_rows(url)) as conn:
        return [
            conn.execute(f"SELECT {columns} ORDER BY 1").fetchall()
            for columns in (
                "id, t, gen, actor, n, seq, erased, entry, body FROM event",
                "* FROM blob",
                "* FROM log",
                "* FROM segment",
            )
        ]


# Redis ---------------------------------------------------------------------------------------

Client = Any
"""The driver's: of one server or of a cluster."""


def _event(index: int) -> bytes:
    return layout.event_field(b.event_id("s", index))


def _member(thread: ThreadKey, index: int, cid: str | None = None) -> bytes:
    cid = cid or f"c{index}"
    return f"{cid}\0{thread.thread}\0".encode() + _event(index)


def _by_run(thread: ThreadKey, index: int) -> bytes:
    return layout.run_hash(f"r{index}") + f"{thread.thread}\0".encode() + _event(index)


Keys = dict[str, bytes]
Redis = Callable[[Client, Keys, ThreadKey], object]


def _flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def _flip_field(kind: str, field: bytes) -> Redis:
    return lambda c, k, t: c.hset(k[kind], field, _flipped(c.hget(k[kind], field)))


def _lists(c: Client, k: Keys, t: ThreadKey) -> None:
    for index in (1, 3, 4, 5):
        assert c.zrem(k["n"], _member(t, index))
        assert c.zrem(k["r"], _by_run(t, index))


def _logs(c: Client, k: Keys) -> list[bytes]:
    found = [key for key in c.scan_iter("*") if key.startswith(k["x"])]
    assert found
    return found


REDIS: dict[str, tuple[Redis, set[Kind]]] = {
    "whole": (lambda c, k, t: None, set()),
    "no place": (lambda c, k, t: c.hdel(k["e"], b"e" + _event(3)), INDEX),
    "no places": (lambda c, k, t: c.delete(k["e"]), INDEX),
    "another place": (lambda c, k, t: c.hset(k["e"], b"e" + _event(3), b"\0" * 40), INDEX),
    "a place of nothing": (lambda c, k, t: c.hset(k["e"], b"e" + _event(77), bytes(40)), INDEX),
    "no end of what is gapless": (lambda c, k, t: c.hdel(k["e"], b"g" + _event(1)[:-1]), INDEX),
    "no member": (lambda c, k, t: c.hdel(k["j"], _event(3)), INDEX),
    "a member that is nothing": (lambda c, k, t: c.hset(k["j"], _event(2), b"c2\0"), INDEX),
    "not by id": (lambda c, k, t: c.zrem(k["n"], _member(t, 3)), INDEX),
    "not by run": (lambda c, k, t: c.zrem(k["r"], _by_run(t, 3)), INDEX),
    "in no list": (_lists, INDEX),
    "by another id": (lambda c, k, t: c.zadd(k["n"], {_member(t, 3, "c9"): 0}), INDEX),
    "pruned, by id": (lambda c, k, t: c.zadd(k["n"], {_member(t, 2): 0}), INDEX),
    "pruned, by run": (lambda c, k, t: c.zadd(k["r"], {_by_run(t, 2): 0}), INDEX),
    "not of its tenant": (lambda c, k, t: c.zrem(k["t"], t.thread), INDEX),
    "not in its slot": (lambda c, k, t: c.zrem(k["i"], layout.leaf_of_thread(t)), INDEX),
    "no counts": (lambda c, k, t: c.delete(k["c"]), INDEX),
    "another count": (lambda c, k, t: c.hset(k["c"], "live", 9), INDEX),
    "record gone": (lambda c, k, t: c.hdel(k["p"], _event(3)), {Kind.RECORD}),
    "record broken": (_flip_field("p", _event(3)), {Kind.RECORD}),
    "record of another": (
        lambda c, k, t: c.hset(k["p"], _event(3), c.hget(k["p"], _event(4))),
        {Kind.RECORD},
    ),
    "value gone": (
        lambda c, k, t: c.hdel(k["b"], appends(t)[0].names[0]),
        {Kind.VALUE},
    ),
    "log of values gone": (
        lambda c, k, t: [c.delete(key) for key in _logs(c, k)],
        {Kind.VALUE},
    ),
    "value broken": (
        lambda c, k, t: [c.setrange(key, 100, "?") for key in _logs(c, k)],
        {Kind.VALUE},
    ),
    "half a log of values": (
        lambda c, k, t: [c.set(key, c.get(key)[:4000]) for key in _logs(c, k)],
        {Kind.VALUE},
    ),
    "entry broken": (
        lambda c, k, t: c.lset(k["l"], 2, _flipped(c.lindex(k["l"], 2))),
        {Kind.LOG},
    ),
    "entry that lies": (
        lambda c, k, t: c.lset(k["l"], 2, c.lindex(k["l"], 2)[:17] + liar(t)),
        {Kind.RECORD},
    ),
    "last of the log gone": (lambda c, k, t: c.ltrim(k["l"], 0, 3), {Kind.LOG, Kind.INDEX}),
    "first of the log gone": (
        lambda c, k, t: c.ltrim(k["l"], 1, -1),
        {Kind.LOG, Kind.INDEX, Kind.CLOSURE},
    ),
    "log gone": (lambda c, k, t: c.delete(k["l"]), {Kind.LOG, Kind.INDEX}),
    "all gone but lists": (
        lambda c, k, t: [c.delete(k[kind]) for kind in "kcelpjbv"],
        {Kind.LOG, Kind.INDEX},
    ),
    "a foreign key": (
        lambda c, k, t: (c.delete(k["e"]), c.set(k["e"], "rubbish")),
        {Kind.LOG},
    ),
}  # fmt: skip


def redis_client(url: str, *, cluster: bool) -> Client:
    return driver.RedisCluster.from_url(url) if cluster else driver.Redis.from_url(url)


def damage_redis(url: str, *, cluster: bool) -> None:
    with closing(redis_client(url, cluster=cluster)) as client:
        for name, (plant, _) in REDIS.items():
            thread = ThreadKey("acme", name)
            plant(client, dict(zip("skcelpjbvinrtx", layout.keys(thread), strict=True)), thread)


def records_of_redis(url: str, *, cluster: bool) -> Any:
    """All that is no index."""
    with closing(redis_client(url, cluster=cluster)) as client:
        kinds = (b"}:l:", b"}:p:", b"}:b:", b"}:v:", b"}:k:", b"}:x:")
        keys = sorted(key for key in client.scan_iter("*") if any(k in key for k in kinds))
        reads = {b"hash": client.hgetall, b"list": lambda k: client.lrange(k, 0, -1)}
        return {key: reads.get(client.type(key), client.get)(key) for key in keys}


# Cassandra -----------------------------------------------------------------------------------

Line = tuple[str, ...]
"""A row of a list."""


def _no_row(part: str) -> Callable[[str, list[Line]], list[Line]]:
    return lambda thread, rows: [r for r in rows if r[1][0] != part or not _names(r, thread)]


def _names(row: Line, thread: str) -> bool:
    return thread in row[2:] or row[1] == "b"


def _row(part: str, gen: int, index: int) -> Callable[[str, list[Line]], list[Line]]:
    key = b.event_id("s", index).segment + index.to_bytes(8, "big")
    last = {"t": ("{thread}", str(gen), "0f"), "c": (f"c{index}", "{thread}", f"{gen} {key.hex()}")}
    k1, k2, k3 = last[part]

    def added(thread: str, rows: list[Line]) -> list[Line]:
        share = thread_line(ThreadKey("acme", thread), gen, "")[1]
        name = share if part == "t" else f"cc{index}"
        return [*rows, ("acme", name, k1.format(thread=thread), k2.format(thread=thread), k3)]

    return added


CASSANDRA_LISTS: dict[str, tuple[Callable[[str, list[Line]], list[Line]], set[Kind]]] = {
    "not in its slot": (_no_row("s"), INDEX),
    "not of its tenant": (_no_row("t"), INDEX),
    "not by id": (_no_row("c"), INDEX),
    "not by run": (_no_row("r"), INDEX),
    "pruned, by id": (_row("c", 1, 2), INDEX),
    "deleted, by id": (_row("c", 0, 3), INDEX),
    "deleted, of its tenant": (_row("t", 0, 3), INDEX),
    "never seen": (_row("c", 1, 7), {Kind.NOTE}),
}

_OF = "WHERE tenant = 'acme' AND thread = %s AND gen = 1 AND kind = %s AND key = %s"
_PIECES = (
    "SELECT key, n FROM KS.thread WHERE tenant = 'acme' AND thread = %s AND gen = 1 AND kind = %s"
)
_GONE = "DELETE FROM KS.thread"
_OTHER = "UPDATE KS.thread SET body = 0x0102"

CASSANDRA: dict[str, Case] = {
    "whole": ((), set()),
    "record gone": ((_GONE, "", RECORD, "event 3"), {Kind.RECORD}),
    "record of the newest gone": (
        (_GONE, "", RECORD, "event 5"),
        {Kind.RECORD, Kind.NOTE},
    ),
    "record broken": ((_OTHER, "AND n = 0 AND a = %s", RECORD, "event 3", "actor"), {Kind.RECORD}),
    "value gone": ((_GONE, "", BLOB, "value 1"), {Kind.VALUE}),
    "piece of a log broken": (
        (_OTHER, "AND n = %s AND a = 0", SEGMENT, "key of a piece", "its place"),
        {Kind.VALUE, Kind.NOTE},
    ),
    "piece of a log gone": (
        (_GONE, "AND n = %s", SEGMENT, "key of a piece", "its place"),
        {Kind.VALUE, Kind.NOTE},
    ),
    "log row gone": ((_GONE, "AND n = 3 AND a = 0", LOG, "log"), {Kind.LOG}),
    "log row broken": ((_OTHER, "AND n = 3 AND a = 0", LOG, "log"), {Kind.LOG}),
}


class CassandraRows:
    """A connection of the test's own to one keyspace."""

    def __init__(self, url: str) -> None:
        address, _, rest = url.partition("//")[2].partition("/")
        host, _, port = address.partition(":")
        self._cluster = Cluster([host], port=int(port), protocol_version=5)
        self._session = self._cluster.connect()
        self._keyspace = rest.partition("?")[0]

    def run(self, text: str, values: Sequence[Any] = ()) -> list[Any]:
        """A statement, with `KS` for the keyspace."""
        return list(self._session.execute(text.replace("KS", self._keyspace), values, timeout=60.0))

    def lists(self) -> list[Line]:
        return [tuple(row) for row in self.run("SELECT tenant, part, k1, k2, k3 FROM KS.listing")]

    def set_lists(self, rows: Iterable[Line]) -> None:
        """As if no other had ever been there: what a server loses leaves no mark of a removal."""
        self.run("TRUNCATE KS.listing")
        put = "INSERT INTO KS.listing (tenant, part, k1, k2, k3) VALUES (%s, %s, %s, %s, %s)"
        for row in rows:
            self.run(f"{put} USING TIMESTAMP 1", row)

    def close(self) -> None:
        self._cluster.shutdown()


def damage_cassandra(url: str, actor: int) -> None:
    with closing(CassandraRows(url)) as rows:
        lines = rows.lists()
        for name, (change, _) in CASSANDRA_LISTS.items():
            lines = change(name, lines)
        rows.set_lists(lines)
        for name, (said, _) in CASSANDRA.items():
            if said:
                change, more, *values = said
                pieces = rows.run(_PIECES, (name, SEGMENT))
                known = dict(zip(("key of a piece", "its place"), pieces[-2], strict=True))
                known |= {"actor": actor, "log": actor.to_bytes(8, "big")}
                meant = (known.get(value) or _meant(value, name) for value in values)
                rows.run(f"{change} {_OF} {more}", (name, *meant))


def _meant(value: Any, thread: str) -> Any:
    if isinstance(value, str) and value.startswith("event "):
        index = int(value[6:])
        return b.event_id("s", index).segment + index.to_bytes(8, "big")
    if value == "value 1":
        return appends(ThreadKey("acme", thread))[0].names[0]
    return value


def records_of_cassandra(url: str) -> Any:
    with closing(CassandraRows(url)) as rows:
        return sorted(map(repr, rows.run("SELECT * FROM KS.thread")))
