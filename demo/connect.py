"""The one place where the demo names its storage, its router and its checkpointer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from checkpoint_router import RouterSaver
from checkpoint_router.testing import RunningRouter, running_router

STORAGES: Final = {"sqlite": "SQLite", "redis": "Redis", "cassandra": "Cassandra"}


@contextmanager
def open_router(directory: Path, storage: str) -> Iterator[RunningRouter]:
    """A router process, and the server under it if `storage` is one: a real one, of its own."""
    with ExitStack() as stack:
        url = f"sqlite:{directory}"
        # Imported when asked for: these stand beside the demo, in `scripts`.
        if storage == "redis":
            from scripts import processes, redis_server

            url = stack.enter_context(processes.running(redis_server.Server)).url
        elif storage == "cassandra":
            from scripts import cassandra_server, processes

            url = stack.enter_context(processes.running(cassandra_server.Server)).url
        yield stack.enter_context(running_router(storage=url))


def open_saver(target: str) -> RouterSaver:
    """The line that an agent changes: its checkpointer, for `with` and for `async with`."""
    return RouterSaver(target)
