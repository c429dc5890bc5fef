"""The agent processes of the demo, and waiting for things with a deadline.

Owner: `Agents` owns every process it started and ends each by its pid, on every way out.
Rules: nothing sleeps in the hope that something has happened; `until` polls for what is awaited,
and gives up with the name of it.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

WAIT_SECONDS_MAX: Final = 60.0
"""For each thing awaited. Shorter: a busy machine fails the demo. Longer: a broken one hangs."""

AGENT: Final = Path(__file__).with_name("agent.py")


class GaveUp(Exception):
    """Something that the demo waited for did not come, or a process ended that should not have."""


@dataclass(slots=True, kw_only=True)
class Agent:
    """One agent process and the files with what it printed."""

    name: str
    process: subprocess.Popen[bytes]
    out: Path
    err: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def kill(self) -> int:
        """SIGKILL; gives the exit code that the system reports (-9)."""
        self.process.send_signal(signal.SIGKILL)
        return self.process.wait(WAIT_SECONDS_MAX)

    def alive(self) -> bool:
        return self.process.poll() is None

    def outcome(self) -> dict[str, Any]:
        """Wait until the agent has ended, and give what it said of its run."""
        try:
            code = self.process.wait(WAIT_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            raise GaveUp(f"agent {self.name} did not end in {WAIT_SECONDS_MAX:.0f} s") from None
        if code != 0:
            raise GaveUp(f"agent {self.name} ended with {code}:\n{self.err.read_text()[-4000:]}")
        outcome: dict[str, Any] = json.loads(self.out.read_text().splitlines()[-1])
        return outcome


@dataclass(slots=True, kw_only=True)
class Agents:
    """Starts agents against one router; leaving the `with` ends those that still run."""

    target: str
    directory: Path
    started: list[Agent] = field(default_factory=list)

    def start(self, thread: str, *words: str, asynchronous: bool = False) -> Agent:
        """A new agent process for a session."""
        base = self.directory / f"agent-{len(self.started)}-{thread}"
        out, err = base.with_suffix(".out"), base.with_suffix(".err")
        half = ["--async"] if asynchronous else []
        place = ["--target", self.target, "--thread", thread, "--dir", str(self.directory)]
        with out.open("wb") as stdout, err.open("wb") as stderr:
            # A session of its own: Ctrl-C reaches the demo only, which then ends its agents.
            process = subprocess.Popen(  # noqa: S603 - our own agent
                [sys.executable, str(AGENT), *place, *half, *words],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
        agent = Agent(name=f"{thread} ({' '.join(words)})", process=process, out=out, err=err)
        self.started.append(agent)
        return agent

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for agent in self.started:
            if agent.alive():
                agent.kill()


def until(
    condition: Callable[[], bool],
    what: str,
    *,
    alive: tuple[Agent, ...] = (),
    meanwhile: Callable[[], None] = lambda: None,
) -> None:
    """Poll until `condition` holds; GaveUp at the deadline, or when one of `alive` has ended."""
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while not condition():
        meanwhile()
        for agent in alive:
            if not agent.alive():
                raise GaveUp(f"agent {agent.name} ended early:\n{agent.err.read_text()[-4000:]}")
        if time.monotonic() > deadline:
            raise GaveUp(f"waited {WAIT_SECONDS_MAX:.0f} s in vain for: {what}")
        time.sleep(0.02)
    meanwhile()
