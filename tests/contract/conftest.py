"""Fixtures of the contract: each test runs once for each backend."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from checkpoint_router.storage.port import Storage

from .shard import BACKENDS, Backend, Shard


@pytest.fixture(params=BACKENDS, ids=lambda b: b.name)
def backend(request: pytest.FixtureRequest) -> Backend:
    """The backend under test."""
    chosen: Backend = request.param
    return chosen


@pytest_asyncio.fixture
async def shard(backend: Backend, tmp_path: Path) -> AsyncIterator[Shard]:
    """An open, empty storage that can be restarted."""
    shard = Shard(backend, tmp_path)
    await shard.storage.open()
    yield shard
    await shard.storage.close()


@pytest.fixture
def storage(shard: Shard) -> Storage:
    """An open, empty storage."""
    return shard.storage
