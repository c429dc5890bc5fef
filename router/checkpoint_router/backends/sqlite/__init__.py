"""SQLite as a storage: one file per shard, one writer with group commit, readers beside it."""

from checkpoint_router.backends.sqlite.backend import SqliteStorage
from checkpoint_router.core.errors import InvalidArgument

__all__ = ["SqliteStorage", "from_url"]


def from_url(rest: str) -> SqliteStorage:
    """The storage of `sqlite:DIRECTORY`, not open yet; `~` is the home directory."""
    if not rest:
        raise InvalidArgument(
            "sqlite: names no directory. Write sqlite:DIRECTORY.", field="storage"
        )
    return SqliteStorage(rest)
