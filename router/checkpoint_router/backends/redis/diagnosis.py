"""A look at a Redis for an operator, beside routers or without one. Nothing is changed."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Final, TypeVar

from checkpoint_router.backends.redis.backend import RedisStorage
from checkpoint_router.backends.redis.place import Place, parse
from checkpoint_router.core.errors import Refused
from checkpoint_router.storage.finding import Finding, Verdict
from checkpoint_router.storage.scrub import scrub

T = TypeVar("T")

_FAULTS_MAX: Final = 20
"""Broken records that are named one by one."""


def diagnose(rest: str, deep: bool) -> Iterator[Finding]:
    """What `redis:rest` looks like; `deep` reads every record and value and verifies it."""
    yield from _steps(_look(parse("redis", rest), deep))


def diagnose_tls(rest: str, deep: bool) -> Iterator[Finding]:
    """The same over TLS."""
    yield from _steps(_look(parse("rediss", rest), deep))


def _steps(found: AsyncIterator[T]) -> Iterator[T]:
    with asyncio.Runner() as runner:
        while True:
            try:
                yield runner.run(_next(found))
            except StopAsyncIteration:
                return


async def _next(found: AsyncIterator[T]) -> T:
    return await anext(found)


async def _look(place: Place, deep: bool) -> AsyncIterator[Finding]:
    storage = RedisStorage(place)
    try:
        settings = await storage.open_to_look()
        try:
            settings.check()
        except Refused as e:
            yield Finding(what="settings", verdict=Verdict.BAD, text=e.message)
        facts = await storage.facts()
        yield Finding(what="storage", verdict=Verdict.GOOD, text=facts.url)
        yield Finding(what="promise", verdict=Verdict.GOOD, text=facts.promise)
        for name, value in sorted(facts.details.items()):
            yield Finding(what=name, verdict=Verdict.GOOD, text=value)
        for alarm in facts.alarms:
            yield Finding(what="alarm", verdict=Verdict.BAD, text=alarm)
        if deep:
            async for finding in _every_record(storage):
                yield finding
    finally:
        await storage.close()


async def _every_record(storage: RedisStorage) -> AsyncIterator[Finding]:
    checked = broken = 0
    async for fault in scrub(storage):
        checked += 1
        if fault is not None:
            broken += 1
            if broken <= _FAULTS_MAX:
                yield Finding(what="record", verdict=Verdict.BAD, text=fault.message)
    if broken:
        text = f"{broken:,} of {checked:,} records and values cannot be read."
        yield Finding(what="records", verdict=Verdict.BAD, text=text)
    else:
        text = f"all {checked:,} records and values are whole"
        yield Finding(what="records", verdict=Verdict.GOOD, text=text)
