"""A storage under test that can be closed and opened again, and the list of those that there are.

A new backend is one line in `BACKENDS`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from checkpoint_router.storage.open import storage_from_url
from checkpoint_router.storage.port import Append, Storage, Stored

from . import servers


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """One line of the list."""

    name: str
    url: Callable[[Path], str]
    """Of an empty storage, which may use that fresh directory."""
    survives_its_process: bool


BACKENDS = (
    Backend(name="memory", url=lambda _: "memory:", survives_its_process=False),
    Backend(name="sqlite", url=lambda d: f"sqlite:{d}/shard", survives_its_process=True),
    Backend(name="redis", url=lambda _: servers.redis(), survives_its_process=True),
    Backend(name="redis-cluster", url=lambda _: servers.redis_cluster(), survives_its_process=True),
    Backend(name="cassandra", url=lambda _: servers.cassandra(), survives_its_process=True),
)


class Shard:
    """One storage, over restarts."""

    def __init__(self, backend: Backend, directory: Path) -> None:
        self.url = backend.url(directory)
        self._backend = backend
        self.storage: Storage = storage_from_url(self.url)

    async def restart(self) -> Storage:
        """Closes the storage and opens it as a new process would, as far as it outlives one."""
        await self.storage.close()
        if self._backend.survives_its_process:
            self.storage = storage_from_url(self.url)
        await self.storage.open()
        return self.storage


async def stored(storage: Storage, append: Append) -> Stored:
    """The answer to an append that must succeed."""
    answer = await storage.append(append)
    assert isinstance(answer, Stored), answer
    return answer
