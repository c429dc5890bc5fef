"""`python -m benchmarks.floor_server URL`: the server of the floor (`benchmarks.floor`).

One stream, one loop, no thread: a frame is decoded, stored in one transaction, and answered, before
the next one is read.
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final

import grpc
import msgspec

from benchmarks.echo import serve

METHOD: Final = "/benchmarks.Floor/Talk"
TABLES: Final = """
CREATE TABLE checkpoint (
  id INTEGER PRIMARY KEY, thread TEXT, name TEXT, record BLOB, UNIQUE (thread, name));
CREATE TABLE value (id INTEGER PRIMARY KEY, thread TEXT, key TEXT, data BLOB, UNIQUE (thread, key));
CREATE TABLE write (id INTEGER PRIMARY KEY, thread TEXT, name TEXT, task TEXT, data BLOB);
CREATE INDEX write_of ON write (thread, name);
"""

pack: Final = msgspec.msgpack.Encoder().encode


class Record(msgspec.Struct, array_like=True, gc=False):
    """A checkpoint, as it travels and is stored."""

    name: str
    parent: str
    body: tuple[str, bytes]
    keys: list[str]


class Put(msgspec.Struct, array_like=True, tag=1, gc=False):
    """A checkpoint and its new values."""

    call: int
    thread: str
    record: Record
    values: list[tuple[str, str, bytes]]


class Write(msgspec.Struct, array_like=True, tag=2, gc=False):
    """What a task left."""

    call: int
    thread: str
    name: str
    task: str
    rows: list[tuple[str, str, bytes]]


class Get(msgspec.Struct, array_like=True, tag=3, gc=False):
    """The newest checkpoints, or the one with this name."""

    call: int
    thread: str
    name: str
    limit: int


Values = list[tuple[str, str, bytes]]
Found = tuple[Record, Values, list[tuple[str, Values]]]
FRAMES: Final = msgspec.msgpack.Decoder(list[Put | Write | Get])
ANSWERS: Final = msgspec.msgpack.Decoder(list[tuple[int, list[Found]]])
RECORDS: Final = msgspec.msgpack.Decoder(Record)
VALUES: Final = msgspec.msgpack.Decoder(tuple[str, str, bytes])
ROWS: Final = msgspec.msgpack.Decoder(Values)
WRITES: Final = msgspec.msgpack.Decoder(tuple[str, Values])


class InSqlite:
    """Rows of a file, each transaction synced."""

    def __init__(self, directory: Path) -> None:
        self._db = sqlite3.connect(directory / "shard-0.sqlite3", isolation_level=None)
        self._db.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;" + TABLES)

    def all(self, frame: bytes) -> bytes:
        """The answers to a frame; what it stores is on disk."""
        calls = FRAMES.decode(frame)
        puts = [c for c in calls if isinstance(c, Put)]
        writes = [c for c in calls if isinstance(c, Write)]
        if puts or writes:
            self._store(puts, writes)
        return pack([(c.call, self._found(c) if isinstance(c, Get) else []) for c in calls])

    def _store(self, puts: Sequence[Put], writes: Sequence[Write]) -> None:
        run = self._db.executemany
        self._db.execute("BEGIN IMMEDIATE")
        run(
            "INSERT OR IGNORE INTO checkpoint (thread, name, record) VALUES (?, ?, ?)",
            [(p.thread, p.record.name, pack(p.record)) for p in puts],
        )
        run(
            "INSERT OR IGNORE INTO value (thread, key, data) VALUES (?, ?, ?)",
            [(p.thread, value[0], pack(value)) for p in puts for value in p.values],
        )
        run(
            "INSERT INTO write (thread, name, task, data) VALUES (?, ?, ?, ?)",
            [(w.thread, w.name, w.task, pack(w.rows)) for w in writes],
        )
        self._db.execute("COMMIT")

    def _found(self, get: Get) -> list[Found]:
        named = "AND name = ?" if get.name else ""
        bound = (get.thread, get.name) if get.name else (get.thread,)
        rows = self._db.execute(
            f"SELECT record FROM checkpoint WHERE thread = ? {named} ORDER BY id DESC LIMIT ?",  # noqa: S608 - one of two texts
            (*bound, get.limit),
        ).fetchall()
        return [self._whole(get.thread, RECORDS.decode(row[0])) for row in rows]

    def _whole(self, thread: str, record: Record) -> Found:
        marks = ",".join("?" * len(record.keys))
        values = self._db.execute(
            f"SELECT data FROM value WHERE thread = ? AND key IN ({marks})",  # noqa: S608 - marks
            (thread, *record.keys),
        )
        writes = self._db.execute(
            "SELECT task, data FROM write WHERE thread = ? AND name = ?", (thread, record.name)
        )
        return (
            record,
            [VALUES.decode(data) for (data,) in values],
            [(task, ROWS.decode(data)) for task, data in writes],
        )


class InRedis:
    """Three keys of a thread, written in one transaction."""

    def __init__(self, url: str) -> None:
        from redis import asyncio as redis

        self._redis: Any = redis.Redis.from_url(url)

    async def all(self, frame: bytes) -> bytes:
        """The answers to a frame; the server has taken in what it stores."""
        calls = FRAMES.decode(frame)
        writing = self._redis.pipeline()
        for call in calls:
            if isinstance(call, Put):
                writing.hset(f"c {call.thread}", call.record.name, pack(call.record))
                writing.rpush(f"o {call.thread}", call.record.name)
                if call.values:
                    kept = {value[0]: pack(value) for value in call.values}
                    writing.hset(f"v {call.thread}", mapping=kept)
            elif isinstance(call, Write):
                writing.rpush(f"w {call.thread} {call.name}", pack((call.task, call.rows)))
        if len(writing):
            await writing.execute()
        return pack([(c.call, await self._found(c) if isinstance(c, Get) else []) for c in calls])

    async def _found(self, get: Get) -> list[Found]:
        thread, client = get.thread, self._redis
        names: Any = [get.name]
        if not get.name:
            names = await client.lrange(f"o {thread}", -get.limit, -1)
        found = await client.hmget(f"c {thread}", names) if names else []
        return [await self._whole(thread, RECORDS.decode(r)) for r in reversed(found) if r]

    async def _whole(self, thread: str, record: Record) -> Found:
        asked = self._redis.pipeline(transaction=False)
        asked.hmget(f"v {thread}", record.keys or [""])
        asked.lrange(f"w {thread} {record.name}", 0, -1)
        values, writes = await asked.execute()
        return (
            record,
            [VALUES.decode(value) for value in values if value is not None],
            [WRITES.decode(write) for write in writes],
        )


def answers_of(url: str) -> Callable[[bytes], Awaitable[bytes]]:
    """What answers frames with a storage like a router's."""
    if url.startswith("redis:"):
        return InRedis(url).all
    rows = InSqlite(Path(url.removeprefix("sqlite:")))

    async def answers(frame: bytes) -> bytes:
        return rows.all(frame)

    return answers


async def serve_floor(url: str) -> None:
    """Answer each frame where it is read."""
    answers = answers_of(url)

    async def talk(_: Any, context: Any) -> None:
        while (frame := await context.read()) is not grpc.aio.EOF:
            await context.write(await answers(frame))

    await serve(METHOD, talk)


if __name__ == "__main__":
    asyncio.run(serve_floor(sys.argv[1]))
