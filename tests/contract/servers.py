"""Real servers under the contract: one of each kind for a test process, emptied for each test.

A Cassandra is too large for that: the processes of one run of tests share one, and have a keyspace
each. Whoever needs it first starts it, and ends it when nobody holds its lock any more.
"""

import atexit
import fcntl
import os
import shutil
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import IO

import pytest
from cassandra.cluster import Cluster, Session

from scripts import cassandra_server, redis_server

RUN = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))
_held: list[IO[str]] = []
"""For as long as this process lives."""
WORKER = os.environ.get("PYTEST_XDIST_WORKER", "alone")


@cache
def _redis() -> redis_server.Server | redis_server.Cluster:
    return _started(redis_server.Server(_directory()))


@cache
def _redis_cluster() -> redis_server.Server | redis_server.Cluster:
    return _started(redis_server.Cluster(_directory()))


def _directory() -> Path:
    directory = Path(tempfile.mkdtemp(prefix="redis-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return directory


def _started(
    server: redis_server.Server | redis_server.Cluster,
) -> redis_server.Server | redis_server.Cluster:
    need_redis()
    atexit.register(server.stop)
    server.start()
    return server


def need_redis() -> None:
    """Skips the test, saying why, on a machine without it; fails it in CI."""
    if redis_server.program() is not None:
        return
    if os.environ.get("CI"):
        pytest.fail(redis_server.HINT)
    pytest.skip(f"NOT TESTED: {redis_server.HINT}")


def redis() -> str:
    """The URL of an empty Redis."""
    return _emptied(_redis())


def redis_cluster() -> str:
    """The URL of an empty Redis Cluster of three primaries."""
    return _emptied(_redis_cluster())


def _emptied(server: redis_server.Server | redis_server.Cluster) -> str:
    server.command("FLUSHALL")
    return server.url


def need_cassandra() -> None:
    """Skips the test, saying why, on a machine without it; fails it in CI."""
    if cassandra_server.jars() is not None:
        return
    if os.environ.get("CI"):
        pytest.fail(cassandra_server.HINT)
    pytest.skip(f"NOT TESTED: {cassandra_server.HINT}")


def cassandra(use: str = "contract") -> str:
    """The URL of an empty keyspace of Cassandra, or of one that is not there yet."""
    address, session = _cassandra()
    keyspace = f"{use}_{WORKER}"
    tables = session.execute(
        "SELECT table_name FROM system_schema.tables WHERE keyspace_name = %s", (keyspace,)
    )
    emptied = [
        session.execute_async(f"TRUNCATE {keyspace}.{name}", timeout=60.0) for (name,) in tables
    ]
    for each in emptied:
        each.result()
    return address.replace("/checkpoints?", f"/{keyspace}?")


@cache
def _cassandra() -> tuple[str, Session]:
    need_cassandra()
    directory = Path(tempfile.gettempdir()) / f"cassandra-of-{RUN}"
    directory.mkdir(exist_ok=True)
    address = directory / "url"
    users = (directory / "users").open("w")
    fcntl.flock(users, fcntl.LOCK_SH)
    _held.append(users)
    with (directory / "starting").open("w") as starting:
        fcntl.flock(starting, fcntl.LOCK_EX)
        if not address.exists():
            server = cassandra_server.Server(directory / "data")
            atexit.register(_end, server, directory, users)
            server.start()
            address.write_text(server.url)
    host, _, port = address.read_text().split("/")[2].partition(":")
    session = Cluster([host], port=int(port), protocol_version=5).connect()
    return address.read_text(), session


def _end(server: cassandra_server.Server, directory: Path, users: IO[str]) -> None:
    """Not before the other processes of the run have ended: the system drops their locks then."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            time.sleep(0.1)
    server.stop()
    shutil.rmtree(directory, ignore_errors=True)
