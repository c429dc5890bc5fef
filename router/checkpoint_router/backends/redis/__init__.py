"""Redis as a storage: plain Redis 6.2 or newer, Valkey, Redis Cluster; one script for a put."""

from checkpoint_router.backends.redis.backend import RedisStorage
from checkpoint_router.backends.redis.place import parse

__all__ = ["RedisStorage", "from_tls_url", "from_url"]


def from_url(rest: str) -> RedisStorage:
    """The storage of `redis://…`, not open yet. Raises InvalidArgument for a bad rest."""
    return RedisStorage(parse("redis", rest))


def from_tls_url(rest: str) -> RedisStorage:
    """The storage of `rediss://…`: the same over TLS."""
    return RedisStorage(parse("rediss", rest))
