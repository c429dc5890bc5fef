"""What a saver has to be to take part, and our own: a router process before each storage.

Rules: a promise is read from the running thing where it can be read, not from its reputation.
Every saver gets the same disk and storage of its own. A row is one coroutine for all of them: for
a saver that blocks, `Blocking` makes coroutines that never wait, and `now` runs those where they
are, so that such a row costs what plain calls cost.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from langchain_core.runnables import RunnableConfig

from benchmarks.servers import Place, Storage
from benchmarks.values import Saver

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One opened saver."""

    name: str
    promise: str
    """What an acknowledged write survives."""

    savers: Callable[[int], Saver]
    """The saver of client number n; most peers share one between all clients."""

    versions: dict[str, str] = field(default_factory=dict)
    stored: Callable[[], Awaitable[int]] | None = None
    """Bytes that the storage holds now, without logs that it will overwrite."""

    stored_is_cheap: bool = True
    """Whether a plot may ask for it many times over a conversation."""

    many_only: bool = False
    """Takes part in the rows with many clients only; alone it is the same as another peer."""

    blocking: bool = False
    """Its calls are made by workers of the operating system, not by tasks."""

    delta: bool = False
    """Its long conversation is in LangGraph's DeltaChannel."""

    def saver_of(self, client: int) -> Any:
        """The saver with coroutines, whichever kind it is."""
        return Blocking(self.savers(client)) if self.blocking else self.savers(client)

    async def run(self, agent: Any, value: Any, config: dict[str, Any]) -> Any:
        """One run of an agent on this saver."""
        return agent.invoke(value, config) if self.blocking else await agent.ainvoke(value, config)

    async def state(self, agent: Any, config: dict[str, Any]) -> Any:
        """What the saver gives the agent back."""
        return agent.get_state(config) if self.blocking else await agent.aget_state(config)

    async def drive(self, work: Coroutine[Any, Any, T]) -> T:
        """What a row does, in the surroundings that its saver is made for."""
        return await asyncio.to_thread(now, work) if self.blocking else await work

    async def together(self, client: Callable[[int], Coroutine[Any, Any, None]], n: int) -> None:
        """All clients at once; ends with the last one."""
        if not self.blocking:
            await asyncio.gather(*(client(number) for number in range(n)))
            return
        with ThreadPoolExecutor(n) as pool:
            list(pool.map(lambda number: now(client(number)), range(n)))


Opener = Callable[[Place], AbstractAsyncContextManager[Peer]]


class Blocking:
    """A saver without coroutines, behind ones that never wait."""

    def __init__(self, saver: Saver) -> None:
        self._saver = saver
        self.get_next_version = saver.get_next_version

    async def aput(self, *args: Any) -> RunnableConfig:
        return self._saver.put(*args)

    async def aput_writes(self, *args: Any) -> None:
        self._saver.put_writes(*args)

    async def aget_tuple(self, config: RunnableConfig) -> Any:
        return self._saver.get_tuple(config)

    async def alist(self, config: RunnableConfig | None, *, limit: int) -> AsyncIterator[Any]:
        for one in self._saver.list(config, limit=limit):
            yield one


def now(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never waits. Raises RuntimeError if it does."""
    try:
        work.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    work.close()
    raise RuntimeError("a row for blocking savers waited for something else than its saver")


def router(
    name: str, storage: Callable[[Place], Storage], *, blocking: bool = False, delta: bool = False
) -> Opener:
    """Opens RouterSaver, on a router process before that storage."""

    @asynccontextmanager
    async def opened(place: Place) -> AsyncIterator[Peer]:
        from checkpoint_router import RouterSaver
        from checkpoint_router.testing import running_router

        where = storage(place)
        with running_router(storage=where.url) as process:
            async with RouterSaver(process.target) as saver:
                await saver.asetup()
                yield Peer(
                    name=name,
                    promise=await promised(process.target),
                    savers=lambda client: saver,
                    versions=versions("langgraph-checkpoint-router", "grpcio", "protobuf")
                    | where.versions,
                    stored=where.stored,
                    stored_is_cheap=where.stored_is_cheap,
                    blocking=blocking,
                    delta=delta,
                )

    return opened


async def promised(target: str) -> str:
    """What the router at `target` says of its storage."""
    import grpc

    from checkpoint_router.v1 import admin_service_pb2 as messages
    from checkpoint_router.v1 import admin_service_pb2_grpc as services

    async with grpc.aio.insecure_channel(target.removeprefix("router://")) as channel:
        call: Any = services.AdminServiceStub(channel).GetRouter
        return " ".join((await call(messages.GetRouterRequest())).promises)


def versions(*packages: str) -> dict[str, str]:
    """What is installed; a package that runs from its source tree has no version."""
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "source tree"
    return found
