"""One shard in one SQLite file: the storage port over one writer and readers beside it.

Owner: the process that holds the lock beside the file. A verb that writes is a job for the
writer; a verb that reads runs on one of a few threads, each with a connection of its own.
"""

import asyncio
import contextlib
import secrets
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from checkpoint_router.backends.sqlite import facts, reader, schema, space
from checkpoint_router.backends.sqlite.faults import fault, naming
from checkpoint_router.backends.sqlite.lock import Lock
from checkpoint_router.backends.sqlite.mark import Gap, MarkFile, compare
from checkpoint_router.backends.sqlite.watch import Watch, full
from checkpoint_router.backends.sqlite.writer import Writer
from checkpoint_router.core.answers import NewBlob
from checkpoint_router.core.errors import Refused, RouterError, Unavailable
from checkpoint_router.core.ids import EventId, ThreadKey
from checkpoint_router.core.token import KEY_BYTES
from checkpoint_router.storage.port import (
    Append,
    Appended,
    Blobs,
    Erase,
    Facts,
    Known,
    Records,
    ThreadImage,
)

T = TypeVar("T")

READERS: Final = 4
"""Connections that read at once. More: more page caches in memory, no more speed."""


class SqliteStorage:
    """See `storage.port.Storage` for each verb. Nothing is touched before `open`."""

    def __init__(self, directory: str | Path, *, steps: Sequence[str] = schema.MIGRATIONS) -> None:
        self.directory = Path(directory).expanduser()
        self.file = self.directory / "shard-0.sqlite3"
        self.gap: Gap | None = None
        """What was found missing when it was opened."""
        self._steps = steps
        self._lock = Lock(self.directory / "shard-0.lock")
        self._mark = MarkFile(self.directory / "shard-0.mark")
        self._watch = Watch(self.directory)
        self._writer: Writer | None = None
        self._giving_back: asyncio.Task[None] | None = None
        self._readers = ThreadPoolExecutor(1)
        self._checkpointer = ThreadPoolExecutor(1)
        self._checkpoints: sqlite3.Connection
        self._connections: list[sqlite3.Connection] = []
        self._local = threading.local()
        self._key = b""

    # Life ------------------------------------------------------------------------------------

    async def open(self) -> None:
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._lock.take()
            self._open_files()
        except OSError as e:
            await self.close()
            raise Refused(
                f"{self.directory} cannot be used as a storage: {e}. "
                + (full(self.directory) or "Name a directory that may be written.")
            ) from None
        except sqlite3.Error as e:
            await self.close()
            raise fault(e, None, f"opening {self.file}", full(self.directory)) from None
        except BaseException:
            await self.close()
            raise

    def _open_files(self) -> None:
        conn = self._connect(readonly=False)
        schema.prepare(conn, self.file, self._steps)
        self.gap = compare(conn, self._mark.open())
        self._key = _system_key(conn)
        checkpoints = self._connect(readonly=False)
        schema.set_durable(checkpoints)
        self._local = threading.local()
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="sqlite-reader")
        self._checkpointer = ThreadPoolExecutor(1, thread_name_prefix="sqlite-checkpoints")

        def wal_is_large() -> None:
            self._checkpointer.submit(_copy_wal, checkpoints, writer)

        self._checkpoints = checkpoints
        writer = Writer(conn, self._mark, self._watch, asyncio.get_running_loop(), wal_is_large)
        writer.start()
        self._watch.begin(self._lock.file, self.file, Path(f"{self.file.resolve()}-wal"))
        self._writer = writer

    async def close(self) -> None:
        writer, self._writer = self._writer, None
        if self._giving_back is not None:
            self._giving_back.cancel()
        if writer is not None:
            await writer.stop()
            await asyncio.to_thread(self._readers.shutdown)
            await asyncio.to_thread(self._checkpointer.shutdown)
        await asyncio.to_thread(self._disconnect)
        self._mark.close()
        self._lock.release()

    def _disconnect(self) -> None:
        while self._connections:
            # The writer's last: it was the first, and folds the log into the file.
            self._connections.pop().close()

    def _connect(self, *, readonly: bool) -> sqlite3.Connection:
        conn = schema.connect(self.file, readonly=readonly)
        self._connections.append(conn)
        return conn

    @property
    def _open_writer(self) -> Writer:
        if self._writer is None:
            raise Unavailable("the storage is closed. Nothing was written or read.")
        return self._writer

    def check(self) -> None:
        self._open_writer  # noqa: B018  (raises where there is none)
        self._watch.refuse_lost()

    @property
    def actor(self) -> int:
        return self._open_writer.actor

    @property
    def shared(self) -> bool:
        return False

    async def system_key(self) -> bytes:
        self._open_writer  # noqa: B018  (raises where there is none)
        return self._key

    async def facts(self) -> Facts:
        writer = self._open_writer
        gap = [] if self.gap is None else [self.gap.text]
        alarms = (*self._watch.alarms(), *gap, *writer.alarms)
        # On a connection that is open since the start, and waits for no write: this is asked for
        # when nothing can be written, too.
        return await asyncio.get_running_loop().run_in_executor(
            self._checkpointer,
            lambda: facts.read(self._checkpoints, writer.conn, self.file, alarms),
        )

    # Writing ---------------------------------------------------------------------------------

    async def append(self, append: Append) -> Appended:
        return await self._open_writer.do(
            lambda changes: changes.append(append),
            thread=append.thread,
            record=f"event {append.entry.id}",
            bytes=len(append.packed) + _bytes(append.blobs),
            small=True,
        )

    async def put_blobs(self, thread: ThreadKey, gen: int, blobs: Sequence[NewBlob]) -> bool:
        return await self._open_writer.do(
            lambda changes: changes.put_blobs(thread, gen, blobs),
            thread=thread,
            record=f"{len(blobs)} values",
            bytes=_bytes(blobs),
        )

    async def delete(self, thread: ThreadKey, gen: int | None, operation: bytes = b"") -> int:
        live = await self._open_writer.do(
            lambda changes: changes.delete(thread, gen, operation),
            thread=thread,
            record=f"the delete of generation {'now live' if gen is None else gen}",
        )
        self._removed()
        return live

    async def erase(self, erase: Erase) -> bool:
        erased = await self._open_writer.do(
            lambda changes: changes.erase(erase),
            thread=erase.thread,
            record=f"a prune of {len(erase.events)} events",
        )
        self._removed()
        return erased

    def _removed(self) -> None:
        if self._giving_back is None or self._giving_back.done():
            self._giving_back = asyncio.create_task(self._give_back())

    async def _give_back(self) -> None:
        # What fails here is said where it matters, and tried again after the next removal.
        with contextlib.suppress(RouterError):
            writer = self._open_writer
            if await writer.do(lambda _: space.much_is_free(writer.conn)):
                while await writer.do(
                    lambda _: space.give_back(writer.conn), bytes=space.BYTES_AT_ONCE
                ):
                    pass
                writer.copy_wal()

    # Reading ---------------------------------------------------------------------------------

    async def image(self, thread: ThreadKey, known: Known | None = None) -> ThreadImage:
        return await self._read(lambda c: reader.image(c, thread), thread, "the index")

    async def missing_blobs(
        self, thread: ThreadKey, gen: int, hashes: Sequence[bytes]
    ) -> tuple[bytes, ...]:
        return await self._read(
            lambda c: reader.missing_blobs(c, thread, gen, hashes), thread, "the index of values"
        )

    async def events(
        self, thread: ThreadKey, gen: int, ids: Sequence[EventId]
    ) -> Mapping[EventId, bytes]:
        return await self._read(
            lambda c: reader.events(c, thread, gen, ids), thread, "the index of events"
        )

    async def blobs(
        self, thread: ThreadKey, gen: int, hashes: Sequence[bytes], budget_bytes: int
    ) -> Blobs:
        return await self._read(
            lambda c: reader.blobs(c, thread, gen, hashes, budget_bytes), thread, "its values"
        )

    async def records(
        self, thread: ThreadKey, gen: int, ids: Sequence[EventId], budget_bytes: int
    ) -> Records:
        return await self._read(
            lambda c: reader.records(c, thread, gen, ids, budget_bytes), thread, "its values"
        )

    async def blob_sizes(
        self, thread: ThreadKey, gen: int, hashes: Sequence[bytes]
    ) -> Mapping[bytes, int]:
        return await self._read(
            lambda c: reader.blob_sizes(c, thread, gen, hashes), thread, "the index of values"
        )

    async def erased(self, thread: ThreadKey, operation: bytes) -> bool:
        return await self._read(
            lambda c: reader.erased(c, thread, operation), thread, "its operations"
        )

    async def threads(self, tenant: str, after: str, limit: int) -> Sequence[str]:
        return await self._read(lambda c: reader.threads(c, tenant, after, limit))

    async def slot_threads(
        self, slot: int, after: tuple[int, str, str] | None, limit: int
    ) -> Sequence[tuple[int, ThreadKey]]:
        return await self._read(lambda c: reader.slot_threads(c, slot, after, limit))

    async def newest(
        self, tenant: str, before: tuple[str, str] | None, limit: int
    ) -> Sequence[tuple[str, str]]:
        return await self._read(lambda c: reader.newest(c, tenant, before, limit))

    async def threads_of_runs(self, tenant: str, runs: Sequence[str]) -> Sequence[str]:
        return await self._read(lambda c: reader.threads_of_runs(c, tenant, runs))

    async def _read(
        self,
        work: Callable[[sqlite3.Connection], T],
        thread: ThreadKey | None = None,
        record: str = "the list of threads",
    ) -> T:
        self.check()
        return await self._run(lambda: self._in_snapshot(work, thread, record))

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._readers, work)

    def _in_snapshot(
        self, work: Callable[[sqlite3.Connection], T], thread: ThreadKey | None, record: str
    ) -> T:
        with naming(thread, record):
            conn: sqlite3.Connection | None = getattr(self._local, "conn", None)
            if conn is None:
                conn = self._connect(readonly=True)
                # It went by the path: another database may stand there by now.
                self._watch.look()
                self._local.conn = conn
            conn.execute("BEGIN")
            try:
                return work(conn)
            finally:
                # Some errors end the transaction themselves; theirs is the one to be told.
                if conn.in_transaction:
                    conn.execute("ROLLBACK")


def _bytes(blobs: Sequence[NewBlob]) -> int:
    return sum(len(b.value.data) for b in blobs)


def _system_key(conn: sqlite3.Connection) -> bytes:
    """The key that is stored, or a new one, stored."""
    conn.execute(
        "INSERT OR IGNORE INTO meta VALUES ('system_key', ?)", (secrets.token_bytes(KEY_BYTES),)
    )
    (key,) = conn.execute("SELECT value FROM meta WHERE key = 'system_key'").fetchone()
    return bytes(key)


def _copy_wal(conn: sqlite3.Connection, writer: Writer) -> None:
    """On the worker beside the writer, so that the long part of it holds nobody up."""
    try:
        conn.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    finally:
        # The writer meets the same failure, if it lasts, and says so.
        writer.wal_is_copied()
