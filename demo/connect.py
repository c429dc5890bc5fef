"""The one place where the demo names its router and its checkpointer."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from checkpoint_router import RouterSaver
from checkpoint_router.testing import RunningRouter, running_router


def open_router(directory: Path) -> AbstractContextManager[RunningRouter]:
    """A router process that keeps its checkpoints in a SQLite file in `directory`."""
    return running_router(storage=f"sqlite:{directory}")


def open_saver(target: str) -> RouterSaver:
    """The line that an agent changes: its checkpointer, for `with` and for `async with`."""
    return RouterSaver(target)
