"""The keyspace and its tables: made, checked, and brought to the newest format.

Rules: a table is only ever made or added to; nothing is changed in a keyspace of a newer format,
or in one that does not keep what it is given in the router's own datacentre.
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

_META: Final = "SELECT value FROM meta WHERE key = 'format'"
_SET: Final = "INSERT INTO meta (key, value) VALUES ('format', {value}) IF NOT EXISTS"


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
    found = await session.ask(in_keyspace(_META, target.keyspace)) if "meta" in tables else []
    if found and int.from_bytes(found[0][0], "big") > FORMAT:
        raise Refused(
            f"keyspace {target.keyspace} has storage format {int.from_bytes(found[0][0], 'big')}; "
            f"this version knows up to {FORMAT}. Nothing was changed. Start the newer version that "
            f"wrote it, or name another keyspace."
        )
    return bool(found) and tables.issuperset(NAMES)


async def prepare(session: Session, target: Target) -> None:
    """A keyspace with all tables, of this format. Raises as `check`."""
    if await check(session, target):
        return
    if not await replication(session, target):
        await _make(session, target)
    for table in TABLES:
        await session.define(in_keyspace(table, target.keyspace))
    await session.define(in_keyspace(_SET.format(value=f"0x{FORMAT:02x}"), target.keyspace))
    await check(session, target)


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
