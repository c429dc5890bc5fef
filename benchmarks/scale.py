"""Scale: what a call costs before a million threads and in a thread of 5,000 checkpoints, against
a thousand and fifty.

Rules: two routers at once, each with storage of its own, whose calls take turns, so a round is two
calls that follow each other. The threads come through the storage port, as copies of one that a
saver put; each is used once, so nobody has it in memory.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.engines import MEMORY, Engine, at_most
from benchmarks.peers import Peer, promised, versions
from benchmarks.process import resident_mb
from benchmarks.report import Found
from benchmarks.rounds import Results
from benchmarks.servers import Place
from benchmarks.values import USUAL_CHANNELS, Chain, config_of, usual_values

SCALE: Final = "scale"
FEW_THREADS: Final = 1_000
FEW_PUTS: Final = 50
TIMES: Final = 200
IN_FLIGHT: Final = 256
TENANT: Final = "default"

GET: Final = "get_latest, thread not used lately"
PUT: Final = "put after it"
LIST: Final = "list of 10 over all threads"


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A router whose storage has so many threads."""

    name: str
    process: Any
    saver: Any
    threads: list[str]
    """Some of them, in random order."""


async def scale(place: Place, threads: int, puts: int, said: Callable[[str], None]) -> Found:
    """One table: few beside many."""
    few, many = f"{FEW_THREADS:,} threads", f"{threads:,} threads"
    results = Results()
    async with AsyncExitStack() as stack:
        both = [
            await loaded(place, stack, name, count, said)
            for name, count in ((few, FEW_THREADS), (many, threads))
        ]
        said("calls in turns")
        for index in range(TIMES):
            for one in both if index % 2 else reversed(both):
                await _calls(one, one.threads[index], results)
        for one in both:
            results.add(MEMORY, one.name, resident_mb(one.process.pid) * 1e6)
        row = f"put at checkpoint {puts:,}, against {FEW_PUTS}"
        await _deep(both[0].saver, puts, results, row, (few, many), said)
        promise = await promised(both[0].process.target)
    found = versions("langgraph-checkpoint-router")
    bounds = {GET: 1.2, PUT: 1.2, LIST: 1.2, MEMORY: 1.2, row: 1.1}
    engine = Engine(
        title="Scale: one router, few threads against many",
        savers={},
        rivals=(few,),
        goals={name: at_most(bound) for name, bound in bounds.items()},
    )
    peers = [
        Peer(name=name, promise=promise, savers=lambda client: both[0].saver, versions=found)
        for name in (few, many)
    ]
    return Found(engine=engine, ours=many, peers=peers, missing={}, results=results, series={})


async def _calls(one: Loaded, thread: str, results: Results) -> None:
    config = config_of(thread)
    found = await _timed(results, GET, one, lambda: one.saver.aget_tuple(config))
    chain = Chain(one.saver)
    chain.checkpoint({}, ())
    parts = chain.checkpoint(usual_values(1), USUAL_CHANNELS)
    await _timed(results, PUT, one, lambda: one.saver.aput(found.config, *parts))

    async def listed() -> None:
        rows = [each async for each in one.saver.alist(None, limit=10)]
        assert len(rows) == 10, "a listing over all threads is short"

    await _timed(results, LIST, one, listed)


async def _timed(
    results: Results, row: str, one: Loaded, call: Callable[[], Awaitable[Any]]
) -> Any:
    began = time.perf_counter()
    found = await call()
    results.add(row, one.name, (time.perf_counter() - began) * 1e3)
    return found


async def _deep(
    saver: Any,
    puts: int,
    results: Results,
    row: str,
    names: tuple[str, str],
    said: Callable[[str], None],
) -> None:
    """Puts in a short thread and in a long one, in turns."""
    chains, configs = {}, {}
    for name, count in zip(names, (FEW_PUTS, puts), strict=True):
        chains[name], configs[name] = Chain(saver), config_of(f"deep-{count}")
        for index in range(count):
            said(f"a thread of {count:,} checkpoints: {index:,}")
            (parts,) = chains[name].ahead(1, first=index)
            configs[name] = await saver.aput(configs[name], *parts)
    for index in range(TIMES):
        for name in names:
            (parts,) = chains[name].ahead(1, first=index)
            began = time.perf_counter()
            configs[name] = await saver.aput(configs[name], *parts)
            results.add(row, name, (time.perf_counter() - began) * 1e3)


async def loaded(
    place: Place, stack: AsyncExitStack, name: str, threads: int, said: Callable[[str], None]
) -> Loaded:
    """A router before that many threads."""
    from checkpoint_router import RouterSaver
    from checkpoint_router.testing import running_router

    url = f"sqlite:{place.fresh('scale')}"
    process = stack.enter_context(running_router(storage=url))
    saver = await stack.enter_async_context(RouterSaver(process.target))
    await saver.aput(config_of("thread-0"), *Chain(saver).ahead(1)[0])
    await asyncio.to_thread(process.stop)
    await copied(url, threads, lambda count: said(f"{name}: {count:,} stored"))
    await asyncio.to_thread(process.start)
    chosen = random.Random(threads).sample(range(1, threads), TIMES)  # noqa: S311 - not a secret
    names = [f"thread-{number}" for number in chosen]
    found = await saver.aget_tuple(config_of(names[-1]))
    assert found is not None, "a thread that was copied is not found"
    return Loaded(name=name, process=process, saver=saver, threads=names)


async def copied(url: str, threads: int, said: Callable[[int], None]) -> None:
    """The first event of `thread-0`, in so many threads."""
    from checkpoint_router.core.answers import NewBlob
    from checkpoint_router.core.ids import ThreadKey
    from checkpoint_router.storage.open import storage_from_url
    from checkpoint_router.storage.port import Append, Stored, named

    storage = storage_from_url(url)
    await storage.open()
    try:
        first = ThreadKey.of(TENANT, "thread-0")
        image = await storage.image(first)
        entry = image.entries[0]
        packed = (await storage.events(first, image.gen, [entry.id]))[entry.id]
        names = named([packed])
        values = (await storage.blobs(first, image.gen, names, 1 << 30)).found
        blobs = tuple(NewBlob(hash=name, value=values[name]) for name in names)
        numbers = iter(range(1, threads))

        async def worker() -> None:
            for number in numbers:
                append = Append(
                    thread=ThreadKey.of(TENANT, f"thread-{number}"),
                    gen=image.gen,
                    entry=entry,
                    packed=packed,
                    needs=(),
                    names=names,
                    blobs=blobs,
                )
                stored = await storage.append(append)
                assert isinstance(stored, Stored), stored
                if number % 1_000 == 0:
                    said(number)

        async with asyncio.TaskGroup() as group:
            for _ in range(IN_FLIGHT):
                group.create_task(worker())
    finally:
        await storage.close()
