"""The savers that are compared, each opened on fresh storage, with what it promises.

Rules: a promise is read from the running thing where it can be read, not from its reputation.
Every saver gets the same disk. Savers take part only when their package is installed.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import importlib.util
import itertools
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.postgres import PostgresServer
from benchmarks.values import Saver

if TYPE_CHECKING:
    from psycopg_pool import AsyncConnectionPool

ROUTER: Final = "router"
POSTGRES: Final = "postgres"
POSTGRES_EACH: Final = "postgres, a saver each"
SQLITE: Final = "sqlite"
MEMORY: Final = "memory (no storage)"

POOL_CONNECTIONS: Final = 10
_serial: Final = itertools.count()


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One opened saver."""

    name: str
    promise: str
    """What an acknowledged write survives."""

    versions: dict[str, str]
    saver_of: Callable[[int], Saver]
    """The saver that client number n uses; most peers share one between all clients."""

    close_and_measure: Callable[[], Awaitable[int]]
    """Bytes on disk once everything is written out. The peer is of no use after it."""

    concurrent_only: bool = False
    """Takes part in the rows with many clients only; alone it is the same as another peer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the peers keep their data."""

    directory: Path
    postgres: PostgresServer | None

    def fresh(self, kind: str) -> Path:
        """A new empty directory."""
        path = self.directory / f"{kind}-{next(_serial)}"
        path.mkdir()
        return path


Opener = Callable[[Place], AbstractAsyncContextManager[Peer]]


def openers(place: Place) -> dict[str, Opener]:
    """The peers that can take part here, in the order of the table."""
    found: dict[str, Opener] = {ROUTER: open_router}
    if place.postgres is not None:
        found[POSTGRES] = open_postgres
        found[POSTGRES_EACH] = open_postgres_each
    if importlib.util.find_spec("langgraph.checkpoint.sqlite") is not None:
        found[SQLITE] = open_sqlite
    found[MEMORY] = open_memory
    return found


@asynccontextmanager
async def open_router(place: Place) -> AsyncIterator[Peer]:
    """RouterSaver, on a router process with SQLite storage."""
    from checkpoint_router import RouterSaver
    from checkpoint_router.testing import running_router

    directory = place.fresh("router")
    with running_router(storage=f"sqlite:{directory}") as router:
        async with RouterSaver(router.target) as saver:
            await saver.asetup()

            async def measure() -> int:
                await saver.aclose()
                await asyncio.to_thread(router.stop)
                return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())

            yield Peer(
                name=ROUTER,
                promise=await _promised(router.target),
                versions=versions("langgraph-checkpoint-router", "grpcio", "protobuf")
                | {"sqlite3": sqlite3.sqlite_version},
                saver_of=lambda client: saver,
                close_and_measure=measure,
            )


async def _promised(target: str) -> str:
    import grpc

    from checkpoint_router.v1 import admin_service_pb2 as messages
    from checkpoint_router.v1 import admin_service_pb2_grpc as services

    async with grpc.aio.insecure_channel(target.removeprefix("router://")) as channel:
        call: Any = services.AdminServiceStub(channel).GetRouter
        return " ".join((await call(messages.GetRouterRequest())).promises)


@asynccontextmanager
async def open_postgres(place: Place, *, each: bool = False) -> AsyncIterator[Peer]:
    """AsyncPostgresSaver on a pool of 10.

    `each`: a saver object for each client over the same pool. One saver does one thing at a time,
    however many connections its pool has, so this is the best that the saver can be made to do.
    """
    from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
    from psycopg import AsyncConnection
    from psycopg.rows import DictRow, dict_row
    from psycopg_pool import AsyncConnectionPool

    if place.postgres is None:
        raise LookupError("there is no PostgreSQL server here")
    database = f"bench{next(_serial)}"
    async with await AsyncConnection.connect(
        place.postgres.url("postgres"), autocommit=True
    ) as admin:
        await admin.execute(f"CREATE DATABASE {database}".encode())
    pool: AsyncConnectionPool[AsyncConnection[DictRow]] = AsyncConnectionPool(
        place.postgres.url(database),
        min_size=POOL_CONNECTIONS,
        max_size=POOL_CONNECTIONS,
        open=False,
        kwargs={"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row},
    )
    async with pool:
        await pool.wait()
        shared = AsyncPostgresSaver(pool)
        await shared.setup()
        savers: dict[int, Saver] = {}
        commit, fsync, server = [await _shown(pool, name) for name in _PROMISES]

        async def measure() -> int:
            async with pool.connection() as connection:
                await connection.execute("CHECKPOINT")
                rows = await connection.execute(_STORED)
                row = await rows.fetchone()
                return int(row["bytes"]) if row else 0

        def saver_of(client: int) -> Saver:
            return savers.setdefault(client, AsyncPostgresSaver(pool)) if each else shared

        yield Peer(
            name=POSTGRES_EACH if each else POSTGRES,
            promise=_survives(
                power_loss=(commit, fsync) == ("on", "on"),
                settings=f"synchronous_commit={commit}, fsync={fsync}",
            ),
            versions=versions("langgraph-checkpoint-postgres", "psycopg", "psycopg-pool")
            | {"PostgreSQL": server},
            saver_of=saver_of,
            close_and_measure=measure,
            concurrent_only=each,
        )


def open_postgres_each(place: Place) -> AbstractAsyncContextManager[Peer]:
    """AsyncPostgresSaver at its best with many clients."""
    return open_postgres(place, each=True)


_PROMISES: Final = ("synchronous_commit", "fsync", "server_version")
_STORED: Final = (
    "SELECT sum(pg_total_relation_size(relid))::bigint AS bytes "
    "FROM pg_stat_user_tables WHERE relname LIKE 'checkpoint%'"
)


async def _shown(pool: AsyncConnectionPool[Any], setting: str) -> str:
    async with pool.connection() as connection:
        rows = await connection.execute("SELECT current_setting(%s) AS value", (setting,))
        return str((await rows.fetchone())["value"])


_SYNCHRONOUS: Final = {0: "OFF", 1: "NORMAL", 2: "FULL", 3: "EXTRA"}


@asynccontextmanager
async def open_sqlite(place: Place) -> AsyncIterator[Peer]:
    """AsyncSqliteSaver on a file, as its documentation opens it."""
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

    path = place.fresh("sqlite") / "checkpoints.db"
    async with AsyncSqliteSaver.from_conn_string(str(path)) as saver:
        await saver.setup()
        pragmas: dict[str, Any] = {}
        for name in ("journal_mode", "synchronous"):
            async with saver.conn.execute(f"PRAGMA {name}") as cursor:
                row = await cursor.fetchone()
                pragmas[name] = row[0] if row else "?"
        level = _SYNCHRONOUS.get(pragmas["synchronous"], "?")

        async def measure() -> int:
            await saver.conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            return sum(each.stat().st_size for each in path.parent.iterdir())

        yield Peer(
            name=SQLITE,
            promise=_survives(
                power_loss=level in ("FULL", "EXTRA"),
                settings=f"journal_mode={pragmas['journal_mode']}, synchronous={level}",
            ),
            versions=versions("langgraph-checkpoint-sqlite", "aiosqlite")
            | {"sqlite3": sqlite3.sqlite_version},
            saver_of=lambda client: saver,
            close_and_measure=measure,
        )


@asynccontextmanager
async def open_memory(place: Place) -> AsyncIterator[Peer]:
    """InMemorySaver: not a rival, but the floor, what LangGraph itself costs."""
    from langgraph.checkpoint.memory import InMemorySaver

    saver = InMemorySaver()

    async def measure() -> int:
        return 0

    yield Peer(
        name=MEMORY,
        promise="an acknowledged write survives nothing, not even the end of its process",
        versions=versions("langgraph", "langgraph-checkpoint"),
        saver_of=lambda client: saver,
        close_and_measure=measure,
    )


def _survives(*, power_loss: bool, settings: str) -> str:
    what = "a loss of power" if power_loss else "the end of its process, not a loss of power"
    return f"an acknowledged write survives {what} ({settings})"


def versions(*packages: str) -> dict[str, str]:
    """What is installed; a package that runs from its source tree has no version."""
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "source tree"
    return found
