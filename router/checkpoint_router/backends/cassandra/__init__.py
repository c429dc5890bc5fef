"""Cassandra as a storage: one keyspace per shard, any number of routers, no Paxos in a put."""

from checkpoint_router.backends.cassandra.backend import CassandraStorage
from checkpoint_router.backends.cassandra.target import parse

__all__ = ["CassandraStorage", "from_url"]


def from_url(rest: str) -> CassandraStorage:
    """The storage of `cassandra://HOST,HOST:PORT/KEYSPACE?dc=NAME`, not open yet."""
    return CassandraStorage(parse(rest))
