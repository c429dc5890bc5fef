"""A look at a Redis for an operator, beside routers or without one. Nothing is changed."""

from collections.abc import AsyncIterator, Iterator

from checkpoint_router.backends.redis.backend import RedisStorage
from checkpoint_router.backends.redis.place import Place, parse
from checkpoint_router.core.errors import Refused
from checkpoint_router.storage.finding import Finding, Verdict
from checkpoint_router.storage.looking import findings, one_by_one


def diagnose(rest: str, deep: bool) -> Iterator[Finding]:
    """What `redis:rest` looks like; `deep` reads every record and value and verifies it."""
    yield from one_by_one(_look(parse("redis", rest), deep))


def diagnose_tls(rest: str, deep: bool) -> Iterator[Finding]:
    """The same over TLS."""
    yield from one_by_one(_look(parse("rediss", rest), deep))


async def _look(place: Place, deep: bool) -> AsyncIterator[Finding]:
    storage = RedisStorage(place)
    try:
        settings = await storage.open_to_look()
        try:
            settings.check()
        except Refused as e:
            yield Finding(what="settings", verdict=Verdict.BAD, text=e.message)
        async for finding in findings(storage, deep=deep):
            yield finding
    finally:
        await storage.close()
