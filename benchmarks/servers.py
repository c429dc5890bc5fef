"""Where savers keep their data: directories, and servers that start when the first saver wants one.

Owner: one `Place`, a context manager, which ends what it started. Rules: stock settings that keep
what they have acknowledged as well as most people's do; what cannot be started is `Missing`, with
the reason and what to do. A `Storage` is empty, and nobody else's.
"""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from scripts import cassandra_server, postgres_server, redis_server
from scripts.processes import AnyServer

FLUSH_SECONDS_MAX: Final = 30.0
REDIS_DATABASES: Final = 64


class Missing(Exception):
    """A saver cannot take part on this machine; the message says why."""


def imported(module: str) -> Any:
    """A module of a package that only some machines have. Raises Missing."""
    try:
        return import_module(module)
    except ImportError as error:
        raise Missing(f"its package cannot be imported here: {error}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """An empty storage."""

    url: str
    """For a router; a Redis' one is understood by everybody."""

    stored: Callable[[], Awaitable[int]]
    """Bytes that it holds now, without logs that it will overwrite."""

    stored_is_cheap: bool = True
    """Whether that may be asked many times while it is used."""

    promise: str = ""
    versions: dict[str, str]


class Place:
    """A directory on the disk that is measured, and the servers in it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._serial = itertools.count(1)
        self.redis_numbers = itertools.count()
        self._stack = ExitStack()

    def close(self) -> None:
        """Ends the servers. Idempotent."""
        self._stack.close()

    def name(self, kind: str) -> str:
        """For a directory, database or keyspace that nobody else has."""
        return f"{kind}{next(self._serial)}"

    def fresh(self, kind: str) -> Path:
        """A new empty directory."""
        path = self.directory / self.name(kind)
        path.mkdir()
        return path

    @cached_property
    def postgres(self) -> postgres_server.Server:
        """A PostgreSQL with stock settings. Raises Missing."""
        server = postgres_server.Server(self.directory / "postgres")
        return self._started(server)

    @cached_property
    def redis(self) -> redis_server.Server:
        """A Redis that syncs its log once a second. Raises Missing."""
        settings = {"appendfsync": "everysec", "databases": str(REDIS_DATABASES)}
        return self._started(redis_server.Server(self.directory / "redis", **settings))

    @cached_property
    def cassandra(self) -> cassandra_server.Server:
        """A Cassandra of one member, which syncs before it answers. Raises Missing."""
        return self._started(cassandra_server.Server(self.directory / "cassandra"))

    def _started(self, server: AnyServer) -> AnyServer:
        try:
            server.start()
        except (SystemExit, RuntimeError) as error:
            raise Missing(str(error)) from error
        self._stack.callback(server.stop)
        return server


@contextmanager
def a_place(directory: Path) -> Iterator[Place]:
    """A place, and the end of its servers."""
    place = Place(directory)
    try:
        yield place
    finally:
        place.close()


def in_sqlite(place: Place) -> Storage:
    """A directory for a router."""
    directory = place.fresh("router")

    async def stored() -> int:
        return sum(map(sqlite_bytes, directory.glob("*.sqlite3")))

    found = {"SQLite": sqlite3.sqlite_version}
    return Storage(url=f"sqlite:{directory}", stored=stored, versions=found)


def sqlite_bytes(path: Path, pages: str = "page_count") -> int:
    """The pages of a database, with those that are still in its write-ahead log; or those of it
    that are free, the `freelist_count`."""
    link = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        asked = (pages, "page_size")
        count, size = (int(link.execute(f"PRAGMA {name}").fetchone()[0]) for name in asked)
        return count * size
    finally:
        link.close()


def in_redis(place: Place) -> Storage:
    """A numbered database of the one Redis; what it holds is the memory that the server took."""
    server, number = place.redis, next(place.redis_numbers)
    redis = imported("redis")
    client = redis.Redis(host=server.address, port=server.port)
    before, settings = client.info()["used_memory"], client.config_get("append*")
    always = settings["appendfsync"] == "always"
    survives = "a loss of power" if always else "the end of every process, not a loss of power"
    shown = f"appendonly={settings['appendonly']}, appendfsync={settings['appendfsync']}"

    async def stored() -> int:
        return int(client.info()["used_memory"]) - int(before)

    return Storage(
        url=f"redis://{server.address}:{server.port}/{number}",
        stored=stored,
        promise=f"an acknowledged write survives {survives} ({shown})",
        versions={"Redis": client.info()["redis_version"]},
    )


def in_cassandra(place: Place) -> Storage:
    """A keyspace of the one Cassandra; what it holds is its files, once all is written out."""
    server, keyspace = place.cassandra, place.name("bench")
    return Storage(
        url=server.url.replace("/checkpoints?", f"/{keyspace}?"),
        stored=lambda: _written_out(server, keyspace),
        stored_is_cheap=False,
        promise="an acknowledged write survives a loss of power (commitlog_sync=batch)",
        versions={"Cassandra": cassandra_server.VERSION},
    )


async def _written_out(server: cassandra_server.Server, keyspace: str) -> int:
    """There is no flush in CQL, so each table is told to flush by itself for a while."""
    cluster = imported("cassandra.cluster").Cluster([server.address], port=server.port)
    session = await asyncio.to_thread(cluster.connect)
    try:
        tables = list(cluster.metadata.keyspaces[keyspace].tables)
        for table in tables:
            session.execute(
                f"ALTER TABLE {keyspace}.{table} WITH memtable_flush_period_in_ms = 1000"
            )
        sizes = [-1, -2]
        for _ in range(int(FLUSH_SECONDS_MAX / 2)):
            if sizes[-1] == sizes[-2] and sizes[-1] > 0:
                break
            await asyncio.sleep(2)
            files = (server.directory / "data" / keyspace).rglob("*.db")
            sizes.append(sum(file.stat().st_size for file in files))
        return sizes[-1]
    finally:
        await asyncio.to_thread(cluster.shutdown)
