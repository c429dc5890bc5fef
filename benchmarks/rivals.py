"""The savers that people would pick instead, each as its documentation opens it.

Rules: a saver takes part if its package is installed and its server runs, else `Missing` says why.
Whoever is known to be slowed down by a setting gets the better one, and its name says so.
"""

from __future__ import annotations

import socket
import sqlite3
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from typing import Any, Final

from benchmarks.peers import Opener, Peer, versions
from benchmarks.servers import Place, imported, in_cassandra, in_redis, sqlite_bytes
from benchmarks.values import Saver

POOL_CONNECTIONS: Final = 10
REDIS_CONNECTIONS: Final = 1_000


def postgres(name: str, *, each: bool = False, delta: bool = False) -> Opener:
    """AsyncPostgresSaver on a pool of 10.

    `each`: a saver object for each client over the same pool. One saver does one thing at a time,
    however many connections its pool has, so this is the best that the saver can be made to do.
    """

    @asynccontextmanager
    async def opened(place: Place) -> AsyncIterator[Peer]:
        make: Any = imported("langgraph.checkpoint.postgres.aio").AsyncPostgresSaver
        pooled = imported("psycopg_pool").AsyncConnectionPool
        url, facts = _database(place)
        async with pooled(url, open=False, **_pool()) as pool:
            await pool.wait()
            shared = make(pool)
            await shared.setup()
            savers: dict[int, Saver] = {}
            yield Peer(
                name=name,
                savers=lambda client: savers.setdefault(client, make(pool)) if each else shared,
                many_only=each,
                delta=delta,
                **facts,
            )

    return opened


def blocking_postgres(name: str) -> Opener:
    """PostgresSaver on a pool of 10."""

    @asynccontextmanager
    async def opened(place: Place) -> AsyncIterator[Peer]:
        make: Any = imported("langgraph.checkpoint.postgres").PostgresSaver
        pooled = imported("psycopg_pool").ConnectionPool
        url, facts = _database(place)
        with pooled(url, open=True, **_pool()) as pool:
            pool.wait()
            saver = make(pool)
            saver.setup()
            yield Peer(name=name, savers=lambda client: saver, blocking=True, **facts)

    return opened


def _pool() -> dict[str, Any]:
    """As the savers' documentation has it."""
    rows = imported("psycopg.rows").dict_row
    kwargs = {"autocommit": True, "prepare_threshold": 0, "row_factory": rows}
    return {"min_size": POOL_CONNECTIONS, "max_size": POOL_CONNECTIONS, "kwargs": kwargs}


_STORED: Final = (
    "SELECT coalesce(sum(pg_total_relation_size(relid)), 0)::bigint "
    "FROM pg_stat_user_tables WHERE relname LIKE 'checkpoint%'"
)


def _database(place: Place) -> tuple[str, dict[str, Any]]:
    """A new one, and what is said and asked of it."""
    psycopg = imported("psycopg")
    name = place.name("bench")
    with psycopg.connect(place.postgres.url, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
        asked = ("synchronous_commit", "fsync", "server_version")
        commit, fsync, server = (
            admin.execute("SELECT current_setting(%s)", (each,)).fetchone()[0] for each in asked
        )
    url = place.postgres.database(name)

    async def stored() -> int:
        with psycopg.connect(url) as link:
            return int(link.execute(_STORED).fetchone()[0])

    kept, shown = (commit, fsync) == ("on", "on"), f"synchronous_commit={commit}, fsync={fsync}"
    packages = ("langgraph-checkpoint-postgres", "psycopg", "psycopg-pool")
    return url, {
        "promise": _survives(power_loss=kept, settings=shown),
        "stored": stored,
        "versions": versions(*packages) | {"PostgreSQL": server},
    }


_SYNCHRONOUS: Final = {0: "OFF", 1: "NORMAL", 2: "FULL", 3: "EXTRA"}


def sqlite(name: str) -> Opener:
    """AsyncSqliteSaver on a file, as its documentation opens it."""

    @asynccontextmanager
    async def opened(place: Place) -> AsyncIterator[Peer]:
        make: Any = imported("langgraph.checkpoint.sqlite.aio").AsyncSqliteSaver
        path = place.fresh("sqlite") / "checkpoints.db"
        async with make.from_conn_string(str(path)) as saver:
            await saver.setup()
            pragmas: dict[str, Any] = {}
            for pragma in ("journal_mode", "synchronous"):
                async with saver.conn.execute(f"PRAGMA {pragma}") as cursor:
                    pragmas[pragma] = (await cursor.fetchone())[0]
            level = _SYNCHRONOUS.get(pragmas["synchronous"], "?")
            shown = f"journal_mode={pragmas['journal_mode']}, synchronous={level}"

            async def stored() -> int:
                return sqlite_bytes(path)

            yield Peer(
                name=name,
                promise=_survives(power_loss=level in ("FULL", "EXTRA"), settings=shown),
                savers=lambda client: saver,
                versions=versions("langgraph-checkpoint-sqlite", "aiosqlite")
                | {"SQLite": sqlite3.sqlite_version},
                stored=stored,
            )

    return opened


def memory(name: str) -> Opener:
    """InMemorySaver: not a rival, but the floor, what LangGraph itself costs."""

    @asynccontextmanager
    async def opened(place: Place) -> AsyncIterator[Peer]:
        saver = imported("langgraph.checkpoint.memory").InMemorySaver()
        yield Peer(
            name=name,
            promise="an acknowledged write survives nothing, not even the end of its process",
            savers=lambda client: saver,
            versions=versions("langgraph", "langgraph-checkpoint"),
        )

    return opened


def valkey(name: str) -> Opener:
    """AsyncValkeySaver of langgraph-checkpoint-aws, with as many connections as it wants: with its
    own 10 it refuses the eleventh call at once."""

    @asynccontextmanager
    async def opened(place: Place) -> AsyncIterator[Peer]:
        make: Any = imported("langgraph_checkpoint_aws.checkpoint.valkey").AsyncValkeySaver
        storage = in_redis(place)
        async with make.from_conn_string(storage.url, pool_size=REDIS_CONNECTIONS) as saver:
            yield Peer(
                name=name,
                promise=storage.promise,
                savers=lambda client: saver,
                versions=versions("langgraph-checkpoint-aws", "valkey") | storage.versions,
                stored=storage.stored,
            )

    return opened


def plainredis(name: str) -> Opener:
    """AsyncRedisSaver of langgraph-checkpoint-plainredis, with as many connections as it
    wants: with the 100 of its driver 32 runs of an agent fail."""

    @asynccontextmanager
    async def opened(place: Place) -> AsyncIterator[Peer]:
        make: Any = imported("langgraph_checkpoint_plainredis").AsyncRedisSaver
        storage = in_redis(place)
        driver = imported("redis.asyncio")
        saver = make(driver.from_url(storage.url, protocol=2, max_connections=REDIS_CONNECTIONS))
        try:
            yield Peer(
                name=name,
                promise=storage.promise,
                savers=lambda client: saver,
                versions=versions("langgraph-checkpoint-plainredis", "redis", "hiredis")
                | storage.versions,
                stored=storage.stored,
            )
        finally:
            await saver.aclose()

    return opened


def cassandra(name: str) -> Opener:
    """CassandraSaver of langgraph-checkpoint-cassandra, with TCP_NODELAY, without which the
    driver's small sends wait 40 ms each for the other side's acknowledgement."""

    @asynccontextmanager
    async def opened(place: Place) -> AsyncIterator[Peer]:
        make: Any = imported("langgraph_checkpoint_cassandra").CassandraSaver
        driver = imported("cassandra_asyncio.cluster")
        storage = in_cassandra(place)
        keyspace = storage.url.rpartition("/")[2].partition("?")[0]
        with ExitStack() as stack:
            cluster = driver.Cluster(
                [place.cassandra.address],
                port=place.cassandra.port,
                sockopts=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
                protocol_version=5,
            )
            stack.callback(cluster.shutdown)
            saver = make(cluster.connect(), keyspace=keyspace)
            saver.setup(replication_factor=1)
            yield Peer(
                name=name,
                promise=storage.promise,
                savers=lambda client: saver,
                versions=versions("langgraph-checkpoint-cassandra", "cassandra-driver")
                | storage.versions,
                stored=storage.stored,
                stored_is_cheap=storage.stored_is_cheap,
            )

    return opened


def _survives(*, power_loss: bool, settings: str) -> str:
    what = "a loss of power" if power_loss else "the end of its process, not a loss of power"
    return f"an acknowledged write survives {what} ({settings})"
