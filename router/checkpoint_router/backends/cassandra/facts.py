"""What an operator should know of a Cassandra shard, read from the cluster itself."""

import re
from typing import Final

from checkpoint_router.backends.cassandra import schema
from checkpoint_router.backends.cassandra.session import Session
from checkpoint_router.backends.cassandra.target import Target
from checkpoint_router.core import limits
from checkpoint_router.storage.port import Facts

MUTATION_BYTES_MIN: Final = 6 * limits.MIB
"""What one batch may have: puts that wait together, or one with all of its small values."""


async def read(session: Session, target: Target) -> Facts:
    """The facts, and what is wrong."""
    local = await session.ask("SELECT release_version, schema_version FROM system.local")
    peers = await session.ask("SELECT schema_version FROM system.peers_v2")
    version, agreed = local[0]
    copies = await schema.replication(session, target)
    log = await _setting(session, "commitlog_sync")
    there = f"system_schema.tables WHERE keyspace_name = '{target.keyspace}'"
    tables = await session.ask(
        f"SELECT table_name, default_time_to_live, read_repair FROM {there}"  # noqa: S608 - a checked name
    )
    clocks = [0.0, *await session.clocks()]
    alarms = []
    if any(row[0] != agreed for row in peers):
        alarms.append(
            "The members do not agree on the schema. Look at `nodetool describecluster`; routers "
            "that start now may fail."
        )
    for name, expires, repair in tables:
        if expires:
            alarms.append(
                f"Rows of table {name} expire after {expires} s, so what was acknowledged is "
                f"lost. ALTER TABLE {name} WITH default_time_to_live = 0."
            )
        if name == "thread" and repair != "BLOCKING":
            alarms.append(
                "Table thread is read without repair, so what one read showed the next may not. "
                "ALTER TABLE thread WITH read_repair = 'BLOCKING'."
            )
    largest = _bytes(await _setting(session, "max_mutation_size"))
    if largest < MUTATION_BYTES_MIN:
        alarms.append(
            f"Members take no change above {largest:,} bytes, and a put may have "
            f"{MUTATION_BYTES_MIN:,}. Raise commitlog_segment_size or max_mutation_size."
        )
    return Facts(
        url=target.url,
        promise=_promise(copies.get(target.dc, 0), target.dc, log),
        alarms=tuple(alarms),
        details={
            "version": version,
            "datacentre": target.dc,
            "replication": ", ".join(f"{dc}: {n}" for dc, n in sorted(copies.items())),
            "consistency": "LOCAL_QUORUM, LOCAL_SERIAL",
            "clocks": f"{max(clocks) - min(clocks):.1f} s apart, with the router's",
            "commitlog_sync": log,
            "members": ", down: ".join([str(1 + len(peers)), *session.down()]),
            "schema": "agreed" if all(row[0] == agreed for row in peers) else "not agreed",
            "format": str(schema.FORMAT),
        },
    )


async def _setting(session: Session, name: str) -> str:
    rows = await session.ask(f"SELECT value FROM system_views.settings WHERE name = '{name}'")  # noqa: S608 - our own word
    return str(rows[0][0]) if rows else "unknown"


def _bytes(text: str) -> int:
    """A size as Cassandra prints it; one that cannot be read is no reason for an alarm."""
    found = re.fullmatch(r"(\d+)(B|KiB|MiB|GiB)?", text)
    units = {None: 1, "B": 1, "KiB": limits.KIB, "MiB": limits.MIB, "GiB": 1024 * limits.MIB}
    return int(found[1]) * units[found[2]] if found else 1 << 62


def _promise(copies: int, dc: str, log: str) -> str:
    quorum = copies // 2 + 1
    synced = log in {"batch", "group"}
    if copies == 1:
        power = "and a loss of power" if synced else "and its machine staying up"
        only = f"An acknowledged write is on 1 member of {dc}, and survives a crash of it"
        return f"{only} {power}; it is lost with that member's disk."
    disk = "and synced there" if synced else "and not synced yet"
    return (
        f"An acknowledged write is on {quorum} of the {copies} replicas in {dc}, {disk}; it "
        f"survives the loss of any {quorum - 1}."
    )
