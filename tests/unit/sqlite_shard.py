"""A SQLite shard for the tests beside this file: opened, filled, damaged.

Damage is done to the closed file, or through a connection of the test's own, or on the writer's
connection where a fault (a full disk, a file that may not be written) cannot be had otherwise.
"""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from hashlib import shake_128
from pathlib import Path

from checkpoint_router.backends.sqlite import SqliteStorage
from checkpoint_router.core.ids import ThreadKey
from checkpoint_router.storage.port import Append, Stored
from tests import builders as b

OTHER = ThreadKey("acme", "t2")


@asynccontextmanager
async def shard(directory: Path) -> AsyncIterator[SqliteStorage]:
    """An open shard."""
    storage = SqliteStorage(directory)
    await storage.open()
    try:
        yield storage
    finally:
        await storage.close()


def checkpoint(number: int, *, thread: ThreadKey = b.THREAD, size: int = 200) -> Append:
    """A checkpoint with a body and a blob that begin with its name; the body cannot be packed."""
    blob = b.new_blob((f"<blob {thread.thread} {number}>" * size)[: size * 8])
    name = f"<body {thread.thread} {number}>".encode()
    body = (name + shake_128(name).digest(size * 8))[: size * 8]
    event = b.checkpoint_event("s", number, checkpoint_id=f"c{number}", blobs=[blob], body=body)
    return b.append(event, thread=thread, blobs=[blob])


async def fill(storage: SqliteStorage, first: int, last: int, **more: object) -> None:
    """Stores the checkpoints with these numbers."""
    for number in range(first, last + 1):
        answer = await storage.append(checkpoint(number, **more))  # type: ignore[arg-type]  # kept short
        assert isinstance(answer, Stored)


def on_writer(storage: SqliteStorage, statement: str) -> None:
    """Runs a statement on the writer's own connection, while the writer has nothing to do."""
    storage._open_writer.conn.execute(statement)


def tables(storage: SqliteStorage) -> "closing[sqlite3.Connection]":
    """A connection of the test's own."""
    return closing(sqlite3.connect(storage.file, isolation_level=None))
