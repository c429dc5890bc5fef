"""The log in which every tool call is written down, before it begins and after it ends.

Owner: the tools of the agent process append; the demo only reads.
Rules: one line is one `write` on a file opened with O_APPEND, so that two processes and several OS
threads can share the file and a process killed between two lines leaves whole lines only. The log
has nothing to do with the checkpointer: it is the witness against which the demo checks its claims.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

STARTED: Final = "started"
FINISHED: Final = "finished"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One line of the log."""

    pid: int
    tool: str
    event: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CallLog:
    """The log of one session, a file of JSON lines."""

    path: Path

    def append(self, tool: str, event: str) -> None:
        """Write one line; it outlives the process as soon as this returns (not the machine)."""
        line = json.dumps({"pid": os.getpid(), "tool": tool, "event": event}) + "\n"
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)

    @contextmanager
    def around(self, tool: str) -> Iterator[None]:
        """Write `started`, run the body, and write `finished` if the body did not raise."""
        self.append(tool, STARTED)
        yield
        self.append(tool, FINISHED)

    def calls(self) -> tuple[Call, ...]:
        """All whole lines so far."""
        if not self.path.exists():
            return ()
        whole, _, _ = self.path.read_text().rpartition("\n")
        return tuple(Call(**json.loads(line)) for line in whole.splitlines())

    def count(self, tool: str, event: str) -> int:
        """How often `tool` did `event`, over all processes that ever wrote here."""
        return sum(call.tool == tool and call.event == event for call in self.calls())

    def tools(self) -> tuple[str, ...]:
        """Every tool that was called, in the order of the first calls."""
        return tuple(dict.fromkeys(call.tool for call in self.calls()))
