"""Real servers under the contract: one of each kind for a test process, emptied for each test."""

import atexit
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path

import pytest

from scripts import redis_server


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
