"""A real Redis of a test's own, and storages over it."""

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from checkpoint_router.core.errors import Unavailable
from checkpoint_router.storage.open import storage_from_url
from checkpoint_router.storage.port import Append, Appended, Storage, Stored
from scripts.redis_server import Server
from tests.contract.servers import need_redis

PERSIST_SECONDS = 60.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Running, with every write synced."""
    need_redis()
    server = Server(tmp_path / "redis")
    server.start()
    yield server
    server.stop()


class OlderCopy:
    """A server's files as they were: what a backup that is put back holds."""

    def __init__(self, server: Server) -> None:
        self._kept = server.directory.with_name("kept")
        shutil.copytree(server.directory, self._kept)

    def put_back(self, server: Server) -> None:
        """While the server is down, which it is not after."""
        server.stop()
        shutil.rmtree(server.directory)
        shutil.copytree(self._kept, server.directory)
        server.start()


@asynccontextmanager
async def router_on(url: str) -> AsyncIterator[Storage]:
    """A storage as a router of its own opens it."""
    storage = storage_from_url(url)
    await storage.open()
    try:
        yield storage
    finally:
        await storage.close()


async def persist(storage: Storage, append: Append) -> Appended:
    """What a client does: the same call again until its outcome is known."""
    end = time.monotonic() + PERSIST_SECONDS
    while time.monotonic() < end:
        try:
            return await storage.append(append)
        except Unavailable:
            await asyncio.sleep(0.01)  # without a connection the next one fails at once
    raise AssertionError(f"no outcome after {PERSIST_SECONDS} s")


async def stored(storage: Storage, append: Append) -> Stored:
    """The answer to an append that must succeed at once."""
    answer = await storage.append(append)
    assert isinstance(answer, Stored), answer
    return answer
