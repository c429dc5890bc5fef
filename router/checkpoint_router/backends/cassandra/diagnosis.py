"""A look at a Cassandra for an operator, beside routers or without one. Nothing is changed."""

from collections.abc import AsyncIterator, Iterator

from checkpoint_router.backends.cassandra.backend import CassandraStorage
from checkpoint_router.backends.cassandra.target import Target, parse
from checkpoint_router.storage.finding import Finding
from checkpoint_router.storage.looking import findings, one_by_one


def diagnose(rest: str, deep: bool) -> Iterator[Finding]:
    """What `cassandra:rest` looks like; `deep` reads every record and value and verifies it."""
    yield from one_by_one(_look(parse(rest), deep))


async def _look(target: Target, deep: bool) -> AsyncIterator[Finding]:
    storage = CassandraStorage(target)
    try:
        await storage.open_to_look()
        async for finding in findings(storage, deep=deep):
            yield finding
    finally:
        await storage.close()
