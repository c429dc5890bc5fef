"""Savers on an engine in this process: real messages, a real storage, and no network between them.

For what depends on whose turn it is, on bytes that are counted, or on faults that no network can
be asked for. `Line` stands where a saver has its links; every message is written out and read back.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from google.protobuf.message import Message

from checkpoint_router import RouterSaver
from checkpoint_router.engine.engine import Engine
from checkpoint_router.server.handlers import CALLS
from checkpoint_router.storage.open import storage_from_url
from checkpoint_router.storage.port import Storage

from .shard import Backend

SECONDS_MAX = 60.0


class Line:
    """What a saver calls, over the messages' bytes; `bytes` and `calls` count them."""

    def __init__(self, routers: Routers) -> None:
        self._routers = routers
        self.calls: Counter[str] = Counter()
        self.bytes = 0

    async def acall(
        self,
        name: str,
        request: Message | bytes,
        *,
        timeout_seconds: float,
        waited_seconds: float,
        meanwhile: Callable[[], None] | None,
    ) -> Message:
        handler = CALLS[name]
        self.calls[name] += 1
        sent = request if isinstance(request, bytes) else request.SerializeToString()
        if meanwhile is not None:
            meanwhile()
        response = handler.response()
        deadline = asyncio.get_running_loop().time() + SECONDS_MAX
        engine = self._routers.engine
        await handler.run(engine, handler.request.FromString(sent), response, deadline)
        answered = response.SerializeToString()
        self.bytes += len(sent) + len(answered)
        return handler.response.FromString(answered)

    def reset(self) -> None:
        """Counts from here on."""
        self.calls.clear()
        self.bytes = 0


class Routers:
    """The routers of one storage, of which one answers at a time."""

    def __init__(self, backend: Backend, directory: Path) -> None:
        self._url = backend.url(directory)
        self._survives = backend.survives_its_process
        self._storage: Storage = storage_from_url(self._url)
        self.engine = _engine(self._storage)
        self._resting: Engine | None = None

    async def open(self) -> None:
        """Starts the first one."""
        await self.engine.open()

    async def change(self) -> None:
        """Another one answers from here on: one beside the first where the storage is shared, else
        one that starts when the first has ended."""
        if self._storage.shared and self._resting is not None:
            self.engine, self._resting = self._resting, self.engine
            return
        before, fresh = self.engine, self._storage
        if self._storage.shared:
            self._resting = before
        else:
            await before.close()
        if self._survives:
            fresh = storage_from_url(self._url)
        self.engine = _engine(fresh)
        await self.engine.open()

    async def close(self) -> None:
        """Ends them."""
        await self.engine.close()
        if self._resting is not None:
            await self._resting.close()

    def saver(self, tenant: str, **options: Any) -> tuple[RouterSaver, Line]:
        """A saver whose calls they answer."""
        made = RouterSaver("router://127.0.0.1:1", tenant=tenant, **options)
        line = Line(self)
        made._links = line  # type: ignore[assignment]  # see the module's text
        return made, line


def _engine(storage: Storage) -> Engine:
    return Engine(storage, now_ms=lambda: time.time_ns() // 1_000_000, version="test")
