"""What the writer's work rests on: files that stand at their paths, and a disk that takes it.

SQLite opens its files once. When somebody removes, renames or replaces them, it goes on in files
that nobody finds again, and no call of it fails. So the files at the paths are compared with those
that were opened, after each commit and before it is answered.

Owner of the state: the writer, on the loop or on its thread, and whoever looks besides, under one
lock.
Rules: files that were lost stay lost until the next start, whatever comes back, because nobody
knows what was done to them meanwhile. A trouble with writing ends when writes have gone well for
`QUIET_SECONDS`. Each state is logged once when it begins, and once when it ends.
"""

import errno
import os
import sqlite3
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from checkpoint_router.backends.sqlite.faults import hint
from checkpoint_router.core import limits
from checkpoint_router.core.errors import Unavailable
from checkpoint_router.telemetry import logging

QUIET_SECONDS: Final = 3.0
"""Shorter: where small writes fit and large ones do not, each one is another end. Longer: the
alarm outlives its cause."""

LOOK_SECONDS: Final = 10.0
"""Between two looks at what is free, while there are writes."""

FREE_BYTES_LOW: Final = 256 * limits.MIB
FREE_SHARE_LOW: Final = 0.05
"""Less than both is little: the write-ahead log alone takes tens of MiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """What a file system has left."""

    free_bytes: int
    """For this user."""
    little: bool

    def __str__(self) -> str:
        return f"{self.free_bytes:,} bytes are free on its file system"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trouble:
    """Writes that failed."""

    began: float
    """By the system's clock, in seconds."""
    last: float
    """By the monotonic clock, in seconds."""
    text: str


class Watch:
    """Of one storage, from `begin` on."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._log: Any = logging.logger("storage")
        self._held: Mapping[str, tuple[int, int]] = {}
        self._changing = threading.Lock()
        self._lost = ""
        self._trouble: _Trouble | None = None
        self._worked = 0.0
        self._looked = time.monotonic()
        self._little = False

    def begin(self, *files: Path) -> None:
        """Remembers which files these are: they are held open from now on."""
        self._lost, self._trouble = "", None
        # A relative path would follow a working directory that is renamed.
        paths = [str(file.absolute()) for file in files]
        self._held = {path: _identity(path) for path in paths}

    def refuse_lost(self) -> None:
        """Raises Unavailable if it is known that the files are not those that were opened."""
        if self._lost:
            raise Unavailable(self._lost)

    def look(self) -> None:
        """Looks whether they are. Raises Unavailable."""
        self.refuse_lost()
        for path, held in self._held.items():
            try:
                if _identity(path) == held:
                    continue
                what = "was replaced by another file"
            except OSError as e:
                gone = e.errno in (errno.ENOENT, errno.ENOTDIR)
                what = "was removed or renamed" if gone else f"cannot be looked at ({e.strerror})"
            self._lose(path, what)

    def committed(self, *, changed: bool) -> None:
        """After each commit, before it is answered. Raises as `look`."""
        self.look()
        if not changed:
            return
        self._worked = time.monotonic()
        self._end_trouble()
        if self._worked - self._looked > LOOK_SECONDS:
            self._looked = self._worked
            self._look_at_space()

    def failed(self, error: Exception) -> None:
        """A write failed with `error`; those that are about the write and not the disk, like a
        value that is too large, count for nothing."""
        if not isinstance(error, sqlite3.OperationalError | OSError):
            return
        text = f"{error}. {hint(error)}"
        with self._changing:
            before = self._trouble
            began = before.began if before else time.time()
            self._trouble = _Trouble(began=began, last=time.monotonic(), text=text)
        if before is None:
            space = space_of(self._directory)
            self._log.error("writes fail", text=text, free_bytes=space and space.free_bytes)

    def alarms(self) -> tuple[str, ...]:
        """What is wrong now. Looks, and raises nothing."""
        try:
            self.look()
        except Unavailable as e:
            return (e.message,)
        self._end_trouble()
        trouble, space = self._trouble, space_of(self._directory)
        texts = []
        if trouble is not None:
            since = datetime.fromtimestamp(trouble.began, UTC).isoformat(timespec="seconds")
            also = f" {space}." if space else ""
            texts.append(f"Writes have failed since {since}: {trouble.text}{also}")
        elif space is not None and space.little:
            texts.append(_little(self._directory, space))
        return tuple(texts)

    def _lose(self, path: str, what: str) -> None:
        text = (
            f"{path} {what} under the running router. Nothing is stored or shown any more, for "
            f"what is written now would be lost; what was acknowledged before is in the files "
            f"that were there. Put these back (or the newest backup of the whole directory) and "
            f"start the router again."
        )
        with self._changing:
            if not self._lost:
                self._lost = text
                self._log.error("storage lost", text=text)
        raise Unavailable(self._lost)

    def _end_trouble(self) -> None:
        with self._changing:
            trouble = self._trouble
            if trouble is None or self._worked < trouble.last:
                return
            if time.monotonic() - trouble.last < QUIET_SECONDS:
                return
            self._trouble = None
        self._log.warning("writes go well again", seconds=round(time.time() - trouble.began, 1))

    def _look_at_space(self) -> None:
        space = space_of(self._directory)
        before, self._little = self._little, space is not None and space.little
        if self._little and not before and space is not None:
            self._log.warning("alarm", text=_little(self._directory, space))


def space_of(directory: Path) -> Space | None:
    """Of the file system that holds `directory`; None where the system does not tell."""
    try:
        stat = os.statvfs(directory)
    except OSError:
        return None
    free = stat.f_bavail * stat.f_frsize
    whole = stat.f_blocks * stat.f_frsize
    return Space(free_bytes=free, little=free < min(FREE_BYTES_LOW, FREE_SHARE_LOW * whole))


def full(directory: Path) -> str:
    """A sentence to add to an error where little is left; empty where there is enough."""
    space = space_of(directory)
    return _little(directory, space) if space is not None and space.little else ""


def _little(directory: Path, space: Space) -> str:
    nearly = "nearly " if space.free_bytes else ""
    return f"The disk is {nearly}full: {space} ({directory}). Free some."


def _identity(path: str) -> tuple[int, int]:
    stat = os.stat(path)
    return stat.st_dev, stat.st_ino
