"""One process per shard: a lock file beside the database, held with `flock`.

The lock dies with the process that holds it, however it dies; the file stays and means nothing.
It is a file of its own because SQLite's locks on the database are lost when any descriptor of
that file is closed.
"""

import contextlib
import fcntl
import os
from pathlib import Path

from checkpoint_router.core.errors import StorageInUse


class Lock:
    """Held from `take` to `release`."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._fd: int | None = None

    def take(self) -> None:
        """Raises StorageInUse naming the holder; OSError, and then `release` lets go of it."""
        fd = os.open(self.file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(fd, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(fd)
            raise StorageInUse(
                f"{self.file.parent} is in use by the process with id {holder}. Nothing was "
                f"changed. Stop that process, or name another directory.",
                pid=holder,
            ) from None
        self._fd = fd
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Idempotent."""
        fd, self._fd = self._fd, None
        if fd is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(fd, 0)
            os.close(fd)
