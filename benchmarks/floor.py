"""The floor: the least that a saver behind a gRPC server can do in Python on this machine.

It serialises each value once, sends it on one stream in the fewest bytes, stores it in SQLite with
one synced transaction for all that came in a frame, and answers. It keeps what it is given and
gives it back (the comparison verifies that), and promises nothing else: no causality, no retries,
no deadlines, limits, tenants, deletes, errors or cache, no thread beside the loop. What a saver of
that shape costs above this is its promises; a goal below this cannot be had with it.
"""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

import grpc
import msgspec
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
)

from benchmarks.echo import START_SECONDS_MAX
from benchmarks.peers import Opener, Peer, versions
from benchmarks.servers import Place, sqlite_bytes

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


class Rows:
    """The server's file."""

    def __init__(self, directory: Path) -> None:
        self._db = sqlite3.connect(directory / "floor.sqlite3", isolation_level=None)
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


async def serve(directory: Path) -> None:
    """Answer each frame where it is read."""
    rows = Rows(directory)

    async def talk(_: Any, context: Any) -> None:
        while (frame := await context.read()) is not grpc.aio.EOF:
            await context.write(rows.all(frame))

    server = grpc.aio.server()
    handler: Any = grpc.stream_stream_rpc_method_handler(talk)
    service = grpc.method_handlers_generic_handler("benchmarks.Floor", {"Talk": handler})
    server.add_generic_rpc_handlers((service,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    await server.wait_for_termination()


class FloorSaver(BaseCheckpointSaver[int]):
    """The saver: root namespace only, one loop."""

    def __init__(self, call: Any) -> None:
        super().__init__()
        self._call = call
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[list[Found]]] = {}
        self._ready: list[Put | Write | Get] = []
        self._more = asyncio.Event()
        self.tasks = [asyncio.create_task(work()) for work in (self._read, self._send)]

    async def _read(self) -> None:
        while (answers := await self._call.read()) is not grpc.aio.EOF:
            for call, found in ANSWERS.decode(answers):
                self._waiting.pop(call).set_result(found)

    async def _send(self) -> None:
        while True:
            if not self._ready:
                self._more.clear()
                await self._more.wait()
            ready, self._ready = self._ready, []
            await self._call.write(pack(ready))

    async def _ask(self, call: Put | Write | Get) -> list[Found]:
        waiter = asyncio.get_running_loop().create_future()
        self._waiting[call.call] = waiter
        self._ready.append(call)
        self._more.set()
        found: list[Found] = await waiter
        return found

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        named, dump = config["configurable"], self.serde.dumps_typed
        values = checkpoint["channel_values"]
        keys = {name: f"{name} {v}" for name, v in checkpoint["channel_versions"].items()}
        body = dump(({**checkpoint, "channel_values": {}}, metadata))
        parent = named.get("checkpoint_id") or ""
        record = Record(checkpoint["id"], parent, body, [keys[name] for name in values])
        new = [(keys[name], *dump(values[name])) for name in new_versions if name in values]
        await self._ask(Put(next(self._ids), named["thread_id"], record, new))
        return _config(named["thread_id"], checkpoint["id"])

    async def aput_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        named = config["configurable"]
        rows = [(name, *self.serde.dumps_typed(value)) for name, value in writes]
        call = next(self._ids)
        await self._ask(Write(call, named["thread_id"], named["checkpoint_id"], task_id, rows))

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        named = config["configurable"]
        thread, name = named["thread_id"], named.get("checkpoint_id") or ""
        found = await self._ask(Get(next(self._ids), thread, name, 1))
        return self._tuple(thread, found[0]) if found else None

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        assert config is not None
        assert limit is not None
        thread = config["configurable"]["thread_id"]
        for one in await self._ask(Get(next(self._ids), thread, "", limit)):
            yield self._tuple(thread, one)

    def _tuple(self, thread: str, found: Found) -> CheckpointTuple:
        record, values, writes = found
        load = self.serde.loads_typed
        checkpoint, metadata = load(record.body)
        checkpoint["channel_values"] = {
            key.rpartition(" ")[0]: load((tag, data)) for key, tag, data in values
        }
        return CheckpointTuple(
            config=_config(thread, record.name),
            checkpoint=checkpoint,
            metadata=metadata,
            parent_config=_config(thread, record.parent) if record.parent else None,
            pending_writes=[
                (task, name, load((tag, data))) for task, rows in writes for name, tag, data in rows
            ],
        )


def _config(thread: str, name: str) -> RunnableConfig:
    return {"configurable": {"thread_id": thread, "checkpoint_ns": "", "checkpoint_id": name}}


def floor(name: str) -> Opener:
    """Opens it, on a server process of its own."""

    @asynccontextmanager
    async def opened(place: Place) -> AsyncIterator[Peer]:
        directory = place.fresh("floor")

        async def stored() -> int:
            return sqlite_bytes(directory / "floor.sqlite3")

        with _serving(directory) as port:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                call: Any = channel.stream_stream(METHOD)()
                saver = FloorSaver(call)
                yield Peer(
                    name=name,
                    promise="an acknowledged write survives a loss of power (synchronous=FULL)",
                    savers=lambda client: saver,
                    versions=versions("grpcio"),
                    stored=stored,
                )
                for task in saver.tasks:
                    task.cancel()
                await asyncio.gather(*saver.tasks, return_exceptions=True)

    return opened


@contextmanager
def _serving(directory: Path) -> Iterator[int]:
    process = subprocess.Popen(  # noqa: S603 - ourselves
        [sys.executable, "-m", "benchmarks.floor", str(directory)],
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield int(process.stdout.readline()) if process.stdout else 0
    finally:
        process.kill()
        process.wait(START_SECONDS_MAX)


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
