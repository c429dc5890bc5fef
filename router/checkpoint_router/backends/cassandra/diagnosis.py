"""A look at a Cassandra for an operator, beside routers or without one. Nothing is changed."""

import asyncio

from checkpoint_router.backends.cassandra.backend import CassandraStorage
from checkpoint_router.backends.cassandra.target import Target, parse
from checkpoint_router.storage.finding import Finding, findings


def diagnose(rest: str) -> list[Finding]:
    """What `cassandra:rest` looks like."""
    return asyncio.run(_look(parse(rest)))


async def _look(target: Target) -> list[Finding]:
    storage = CassandraStorage(target)
    try:
        await storage.open_to_look()
        return findings(await storage.facts())
    finally:
        await storage.close()
