"""A look at a Redis for an operator, beside routers or without one. Nothing is changed."""

import asyncio

from checkpoint_router.backends.redis.backend import RedisStorage
from checkpoint_router.backends.redis.place import Place, parse
from checkpoint_router.core.errors import Refused
from checkpoint_router.storage.finding import Finding, Verdict, findings


def diagnose(rest: str) -> list[Finding]:
    """What `redis:rest` looks like."""
    return asyncio.run(_look(parse("redis", rest)))


def diagnose_tls(rest: str) -> list[Finding]:
    """The same over TLS."""
    return asyncio.run(_look(parse("rediss", rest)))


async def _look(place: Place) -> list[Finding]:
    storage = RedisStorage(place)
    try:
        settings = await storage.open_to_look()
        found = findings(await storage.facts())
        try:
            settings.check()
        except Refused as e:
            found.insert(0, Finding(what="settings", verdict=Verdict.BAD, text=e.message))
        try:
            await storage.check_format()
        except Refused as e:
            found.insert(0, Finding(what="format", verdict=Verdict.BAD, text=e.message))
        return found
    finally:
        await storage.close()
