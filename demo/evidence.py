"""What the scenes share, and how they look at the world.

Rules: states are read by a saver of the demo's own process, calls from the tools' logs, processes
from the system; nothing is taken from what an agent says of itself.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple

from agent import config_of, toolbox_of
from call_log import FINISHED, STARTED, CallLog
from claims import Claims
from processes import Agents
from trip_graph import SEARCHES, build_graph
from views import Screen, id_of

LISBON: Final = "lisbon"
OSLO: Final = "oslo"
FINISHED_BEFORE_THE_KILL: Final = tuple(tool for tool in SEARCHES if tool != "search_hotels")


@dataclass(slots=True, kw_only=True)
class Demo:
    """What the scenes share."""

    screen: Screen
    claims: Claims
    directory: Path
    router: Any
    agents: Agents
    saver: BaseCheckpointSaver[Any]
    heads: dict[str, CheckpointTuple] = field(default_factory=dict)
    ends: dict[str, CheckpointTuple] = field(default_factory=dict)

    def log(self, thread: str) -> CallLog:
        return toolbox_of(self.directory, thread).log

    def logs(self) -> dict[str, CallLog]:
        return {thread: self.log(thread) for thread in (LISBON, OSLO)}

    def show_calls(self) -> None:
        self.screen.calls(self.logs())

    def head(self, thread: str) -> CheckpointTuple:
        """The newest checkpoint of a session, read now."""
        found = self.saver.get_tuple(config_of(thread))
        if found is None:
            raise LookupError(f"the router knows no checkpoint of {thread!r}")
        return found

    def graph(self, thread: str) -> Any:
        """The graph on the demo's own saver, for history, time travel and fork."""
        return build_graph(toolbox_of(self.directory, thread), self.saver)

    def finished_on_record(self, thread: str) -> int:
        """How many parallel tasks of the head the router has the results of."""
        found = self.saver.get_tuple(config_of(thread))
        writes = (found.pending_writes if found else None) or []
        return len({task for task, channel, _ in writes if channel == "messages"})


def in_the_middle(demo: Demo, thread: str) -> bool:
    """The point of the kill: it does not depend on how fast anything is."""
    log = demo.log(thread)
    return (
        log.count("search_hotels", STARTED) == 1
        and log.count("search_hotels", FINISHED) == 0
        and all(log.count(tool, FINISHED) == 1 for tool in FINISHED_BEFORE_THE_KILL)
        and demo.finished_on_record(thread) == len(FINISHED_BEFORE_THE_KILL)
    )


def ancestors(saver: BaseCheckpointSaver[Any], config: Any) -> list[str | None]:
    """The ids from a checkpoint back to its root, by parent links alone."""
    chain: list[str | None] = []
    while config is not None:
        found = saver.get_tuple(config)
        if found is None:
            raise LookupError(f"the chain of parents breaks at {id_of(config)}")
        chain.append(id_of(found.config))
        config = found.parent_config
    return chain


def same(one: CheckpointTuple, other: CheckpointTuple) -> bool:
    """Equal in everything that the saver was given to keep."""
    return (
        (one.checkpoint, one.metadata) == (other.checkpoint, other.metadata)
        and one.pending_writes == other.pending_writes
        and id_of(one.config) == id_of(other.config)
        and id_of(one.parent_config) == id_of(other.parent_config)
    )


def process_runs(pid: int) -> bool:
    """Whether a process with this id exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
