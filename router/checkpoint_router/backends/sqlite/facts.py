"""What an operator should know of a SQLite shard, read from the engine and the system."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from checkpoint_router.backends.sqlite.watch import space_of
from checkpoint_router.storage.port import Facts

_SYNCHRONOUS: Final = {0: "off", 1: "normal", 2: "full", 3: "extra"}

_VOLATILE: Final = {"tmpfs", "ramfs"}
_REMOTE: Final = {"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "ceph", "glusterfs"}


def read(
    conn: sqlite3.Connection, writer: sqlite3.Connection, file: Path, alarms: Sequence[str]
) -> Facts:
    """The facts of the file that both have open. `writer` is only asked what is its own and costs
    it nothing: it could not commit while it is asked for its journal."""
    synchronous = int(writer.execute("PRAGMA synchronous").fetchone()[0])
    journal = str(conn.execute("PRAGMA journal_mode").fetchone()[0])
    filesystem = _filesystem(file)
    wal = file.with_name(file.name + "-wal")
    space = space_of(file.parent)
    return Facts(
        url=f"sqlite:{file.parent}",
        promise=_promise(journal, synchronous, filesystem),
        alarms=(*alarms, *_filesystem_alarms(filesystem)),
        details={
            "journal_mode": journal,
            "synchronous": _SYNCHRONOUS.get(synchronous, str(synchronous)),
            "sqlite": sqlite3.sqlite_version,
            "format": str(conn.execute("PRAGMA user_version").fetchone()[0]),
            "file": str(file),
            "file_bytes": _size(file),
            "wal_bytes": _size(wal),
            "free_bytes": "unknown" if space is None else str(space.free_bytes),
            "free_pages": str(conn.execute("PRAGMA freelist_count").fetchone()[0]),
            "filesystem": filesystem,
        },
    )


def _size(file: Path) -> str:
    """In bytes; 0 for what is not there, which an alarm is about, and not an error here."""
    try:
        return str(file.stat().st_size)
    except OSError:
        return "0"


def filesystem_alarms(file: Path) -> tuple[str, ...]:
    """What is wrong with keeping a database where `file` is."""
    return _filesystem_alarms(_filesystem(file))


def _promise(journal: str, synchronous: int, filesystem: str) -> str:
    if filesystem in _VOLATILE:
        return f"An acknowledged write survives a crash of the router; {filesystem} is in memory."
    if synchronous >= 2:
        return (
            "An acknowledged write survives a crash of the router and a loss of power, on a disk "
            "that keeps what it has confirmed."
        )
    if journal == "wal" and synchronous == 1:
        return "An acknowledged write survives a crash of the router, not a loss of power."
    return "An acknowledged write may be lost with the machine."


def _filesystem_alarms(filesystem: str) -> tuple[str, ...]:
    if filesystem in _REMOTE:
        text = (
            f"The database is on {filesystem}, where locks and the shared memory of the "
            f"write-ahead log are not safe. Move the directory to a local disk."
        )
        return (text,)
    if filesystem in _VOLATILE:
        return (f"The database is on {filesystem}: it is gone when the machine restarts.",)
    return ()


def _filesystem(file: Path) -> str:
    """The type of the file system that holds `file`, where the system tells."""
    try:
        mounts = Path("/proc/self/mounts").read_text().splitlines()
    except OSError:
        return "unknown"
    resolved = file.resolve()
    best, kind = "", "unknown"
    for line in mounts:
        _, point, type_, *_ = line.split(" ")
        if len(point) >= len(best) and resolved.is_relative_to(point.replace("\\040", " ")):
            best, kind = point, type_
    return kind
