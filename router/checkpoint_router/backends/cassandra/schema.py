"""The keyspace and its tables: made, checked, and brought to the newest format.

Rules: a table is only ever made or added to; nothing is changed in a keyspace of a newer format,
in one that does not keep what it is given in the router's own datacentre, or in one whose routers
ask another.
"""

import secrets
from typing import Final

from checkpoint_router.backends.cassandra.session import Session
from checkpoint_router.backends.cassandra.statements import NAMES, TABLES, Name, in_keyspace
from checkpoint_router.backends.cassandra.target import Target
from checkpoint_router.core.errors import Refused
from checkpoint_router.core.token import KEY_BYTES

FORMAT: Final = 1

REPLICAS: Final = 3
"""Of a keyspace that the router makes, if the datacentre has as many members."""

_META: Final = "SELECT value FROM meta WHERE key = '{key}'"
_SET: Final = "INSERT INTO meta (key, value) VALUES ('{key}', 0x{value}) IF NOT EXISTS"

_DECIDES: Final = "datacentre"
"""Whose quorum answers for all, in `meta`. Two that do not see each other would each acknowledge
what the other does not know."""


async def check(session: Session, target: Target) -> bool:
    """Whether the keyspace is there with all tables, of this format. Raises Refused for one that
    must not be used. Changes nothing."""
    replicas = await replication(session, target)
    if not replicas:
        return False
    if not replicas.get(target.dc):
        raise Refused(
            f"keyspace {target.keyspace} has no replica in datacentre {target.dc!r}: it has "
            f"{', '.join(f'{n} in {dc}' for dc, n in sorted(replicas.items()))}. Nothing was "
            f"changed. Name a datacentre that it is kept in, or alter its replication."
        )
    rows = await session.ask(
        f"SELECT table_name FROM system_schema.tables WHERE keyspace_name = '{target.keyspace}'"  # noqa: S608 - a checked name
    )
    tables = {name for (name,) in rows}
    if "meta" not in tables:
        return False
    found = await _meta(session, target, "format")
    if found is not None and int.from_bytes(found, "big") > FORMAT:
        raise Refused(
            f"keyspace {target.keyspace} has storage format {int.from_bytes(found, 'big')}; "
            f"this version knows up to {FORMAT}. Nothing was changed. Start the newer version that "
            f"wrote it, or name another keyspace."
        )
    decides = await _meta(session, target, _DECIDES)
    if decides is not None and decides != target.dc.encode():
        raise Refused(_asks_another(target, decides.decode(errors="replace")))
    return found is not None and tables.issuperset(NAMES)


def _asks_another(target: Target, decides: str) -> str:
    return (
        f"keyspace {target.keyspace} is decided in datacentre {decides!r}, whose quorum all of its "
        f"routers ask, and this one names {target.dc!r}: neither would know what the other "
        f"acknowledged. Nothing was changed. Name dc={decides}; how to go on in another datacentre "
        f"says docs/operating/cassandra.md."
    )


async def prepare(session: Session, target: Target) -> None:
    """A keyspace with all tables, of this format. Raises as `check`."""
    if not await check(session, target):
        if not await replication(session, target):
            await _make(session, target)
        for table in TABLES:
            await session.define(in_keyspace(table, target.keyspace))
        await session.define(_set(target, "format", bytes([FORMAT])))
        await check(session, target)
    if await _meta(session, target, _DECIDES) is None:
        applied, *other = await session.agree(_set(target, _DECIDES, target.dc.encode()))
        if not applied and other[-1] != target.dc.encode():
            raise Refused(_asks_another(target, other[-1].decode(errors="replace")))


async def _meta(session: Session, target: Target, key: str) -> bytes | None:
    rows = await session.ask(in_keyspace(_META.format(key=key), target.keyspace))
    return rows[0][0] if rows else None


def _set(target: Target, key: str, value: bytes) -> str:
    return in_keyspace(_SET.format(key=key, value=value.hex()), target.keyspace)


async def replication(session: Session, target: Target) -> dict[str, int]:
    """Datacentre to copies that the keyspace keeps there; empty if there is no keyspace."""
    rows = await session.ask(
        f"SELECT replication FROM system_schema.keyspaces WHERE keyspace_name = '{target.keyspace}'"  # noqa: S608 - a checked name
    )
    if not rows:
        return {}
    options = dict(rows[0][0])
    kind = options.pop("class", "")
    if not kind.endswith("NetworkTopologyStrategy"):
        return {kind.rpartition(".")[2]: 0}
    return {dc: int(str(n).partition("/")[0]) for dc, n in options.items()}


async def _make(session: Session, target: Target) -> None:
    local = await session.ask("SELECT data_center FROM system.local")
    peers = await session.ask("SELECT data_center FROM system.peers_v2")
    members = [row[0] for row in (*local, *peers)].count(target.dc)
    copies = min(REPLICAS, members)
    await session.define(
        f"CREATE KEYSPACE IF NOT EXISTS {target.keyspace} WITH replication = "
        f"{{'class': 'NetworkTopologyStrategy', '{target.dc}': {copies}}}"
    )


async def system_key(session: Session) -> bytes:
    """The key that is stored, or a new one, stored."""
    await session.condition((Name.META_SET, ("system_key", secrets.token_bytes(KEY_BYTES))))
    rows = await session.read(Name.META, "system_key")
    return bytes(rows[0][0])
