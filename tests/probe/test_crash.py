"""The router is killed, again and again, under load: what was acknowledged is there.

Eight agent processes write lists that grow, of which only the growth is sent, while the router gets
SIGKILL at moments that they do not choose; it comes back on the same port with the same storage,
and the agents, who are told nothing, go on. In the end half of them are killed as well.
"""

import contextlib
import json
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from checkpoint_router import RouterSaver
from checkpoint_router.testing import RunningRouter, running_router
from tests.probe.load import checkpoint_of, write_of

pytestmark = [pytest.mark.crash, pytest.mark.timeout(600)]

AGENTS = 8
KILLS = 50
PROGRESS_SECONDS_MAX = 120
STALL_SECONDS = 30.0
"""For which an engine stands still."""
ROOT = Path(__file__).resolve().parent.parent.parent


def until(condition: Callable[[], bool], what: str) -> None:
    """Returns when `condition` holds; fails, saying what was waited for, if it never does."""
    deadline = time.monotonic() + PROGRESS_SECONDS_MAX
    while not condition():
        assert time.monotonic() < deadline, f"waited {PROGRESS_SECONDS_MAX} s for {what}"
        time.sleep(0.005)  # between two looks at the condition


def throughout(seconds: float) -> Iterator[None]:
    """Again and again, and for the last time when so much has passed."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        yield
    yield


class Agents:
    """The agent processes and what they noted."""

    def __init__(self, target: str, directory: Path, count: int = AGENTS) -> None:
        self.logs = [directory / f"agent-{n}.jsonl" for n in range(count)]
        self.children = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.probe.load", target, str(log), half, str(n)],
                stdin=subprocess.PIPE,
                cwd=ROOT,
            )
            for n, (log, half) in enumerate(
                zip(self.logs, ["sync", "async"] * (count // 2), strict=True)
            )
        ]

    def acknowledged(self) -> int:
        """Calls that were acknowledged so far."""
        return sum(log.read_bytes().count(b"\n") for log in self.logs if log.exists())

    def has(self, goal: int) -> bool:
        """Whether so many calls were acknowledged."""
        return self.acknowledged() >= goal

    def all_work(self) -> bool:
        """Whether each agent has had something acknowledged; fails if one has died."""
        for child in self.children:
            assert child.poll() is None, f"agent {child.pid} ended with {child.returncode}"
        return all(log.exists() and log.stat().st_size for log in self.logs)

    def notes(self) -> list[list[Any]]:
        """Every acknowledged call."""
        whole = (line for log in self.logs for line in log.read_text().split("\n")[:-1])
        return [json.loads(line) for line in whole]

    def stop(self, *, killing: int = 0) -> None:
        """Kills some agents in the middle of their calls, lets each other one end its own, and
        waits for them."""
        for child in self.children[:killing]:
            child.kill()
        for child in self.children[killing:]:
            assert child.stdin is not None
            child.stdin.close()
        for at, child in enumerate(self.children):
            assert child.wait(PROGRESS_SECONDS_MAX) == (-signal.SIGKILL if at < killing else 0)

    def kill(self) -> None:
        """Ends what is left, by pid."""
        for child in self.children:
            if child.poll() is None:
                child.kill()
                child.wait()


@contextlib.contextmanager
def agents_at_work(router: RunningRouter, directory: Path, count: int = AGENTS) -> Iterator[Agents]:
    agents = Agents(router.target, directory, count)
    try:
        until(agents.all_work, "every agent to have written something")
        yield agents
    finally:
        agents.kill()


def check_acknowledged(saver: RouterSaver, notes: list[list[Any]]) -> None:
    """Every acknowledged call is there, byte for byte."""
    for kind, thread, step, id, last in notes:
        config: Any = {
            "configurable": {"thread_id": thread, "checkpoint_ns": "", "checkpoint_id": id}
        }
        found = saver.get_tuple(config)
        assert found is not None, f"{thread} lost checkpoint {step} ({id})"
        if kind == "put":
            assert found.checkpoint == checkpoint_of(thread, step, id)
            parent = found.parent_config
            assert (parent["configurable"]["checkpoint_id"] if parent else None) == last
        else:
            writes = [w for w in found.pending_writes or () if w[0] == f"task-{last}"]
            assert writes == [
                (f"task-{last}", "out", write_of(thread, step, last)),
                (f"task-{last}", "out", last),
            ]


def check_whole(saver: RouterSaver, threads: set[str]) -> None:
    """No checkpoint is half there, none twice, and the newest is the last of the chain."""
    for thread in threads:
        listed = list(saver.list({"configurable": {"thread_id": thread}}))
        ids = [t.config["configurable"]["checkpoint_id"] for t in listed]
        assert len(ids) == len(set(ids))
        for found in listed:
            step = found.metadata["step"]
            assert found.checkpoint == checkpoint_of(thread, step, found.checkpoint["id"])
        newest = saver.get_tuple({"configurable": {"thread_id": thread}})
        assert newest is not None
        assert newest.metadata["step"] == max(t.metadata["step"] for t in listed)


def check_database(directory: Path) -> None:
    """SQLite's own check passes; no event and no dot is there twice; dots have no gap."""
    (file,) = directory.glob("*.sqlite3")
    with contextlib.closing(sqlite3.connect(file)) as conn:
        assert conn.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        doubled = "SELECT count(*) FROM (SELECT 1 FROM event GROUP BY {} HAVING count(*) > 1)"
        assert conn.execute(doubled.format("t, gen, seg, idx")).fetchone() == (0,)
        assert conn.execute(doubled.format("t, gen, actor, n")).fetchone() == (0,)
        gaps = (
            "SELECT count(*) FROM (SELECT max(n) m, count(*) c FROM event GROUP BY t, gen, actor)"
        )
        assert conn.execute(gaps + " WHERE m <> c").fetchone() == (0,)
        without = "SELECT count(*) FROM event WHERE body IS NULL"
        assert conn.execute(without).fetchone() == (0,)
        assert conn.execute("SELECT count(*) FROM actor").fetchone()[0] > KILLS


def test_fifty_kills_under_load_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}: decides how many acknowledgements lie between two kills")
    chance = random.Random(seed)
    storage = tmp_path / "storage"
    with running_router(f"sqlite:{storage}") as router:
        with agents_at_work(router, tmp_path) as agents:
            for kill in range(KILLS):
                goal = agents.acknowledged() + chance.randint(1, 120)
                until(partial(agents.has, goal), f"progress after kill {kill}")
                router.kill()
                router.start()
            assert agents.all_work()
            agents.stop(killing=AGENTS // 2)
            notes = agents.notes()
        with RouterSaver(router.target, tenant="load") as saver:
            check_acknowledged(saver, notes)
            check_whole(saver, {thread for _, thread, *_ in notes})
        assert router.stop() == 0
    check_database(storage)
    print(f"{len(notes)} acknowledged calls in {len({n[1] for n in notes})} threads")
