"""What doctor says of a storage that is a server: its facts, and every record if asked for.

Rules: nothing is changed; one finding at a time, as it is found.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import TypeVar

from checkpoint_router.storage.finding import Finding, Tally, Verdict
from checkpoint_router.storage.port import Storage
from checkpoint_router.storage.scrub import scrub

T = TypeVar("T")


def one_by_one(found: AsyncIterator[T]) -> Iterator[T]:
    """The same, for whoever has no loop."""
    with asyncio.Runner() as runner:
        while True:
            try:
                yield runner.run(_next(found))
            except StopAsyncIteration:
                return


async def _next(found: AsyncIterator[T]) -> T:
    return await anext(found)


async def findings(storage: Storage, *, deep: bool) -> AsyncIterator[Finding]:
    """Facts of an open storage; `deep` reads every record and value and verifies it."""
    facts = await storage.facts()
    yield Finding(what="storage", verdict=Verdict.GOOD, text=facts.url)
    yield Finding(what="promise", verdict=Verdict.GOOD, text=facts.promise)
    for name, value in sorted(facts.details.items()):
        yield Finding(what=name, verdict=Verdict.GOOD, text=value)
    for alarm in facts.alarms:
        yield Finding(what="alarm", verdict=Verdict.BAD, text=alarm)
    if deep:
        tally = Tally()
        async for fault in scrub(storage):
            if (named := tally.add(fault)) is not None:
                yield named
        yield tally.end()
