"""Two processes resume one thread at once: nothing is lost, one wins, and somebody is told."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from checkpoint_router import RouterSaver
from checkpoint_router.testing import RunningRouter, running_router
from tests.contract import servers
from tests.probe.resume import THREAD, graph_of

ROOT = Path(__file__).resolve().parent.parent.parent
ANSWERS = ("approve", "reject")
STORAGES: dict[str, Callable[[Path], str]] = {
    "memory": lambda _: "memory:",
    "sqlite": lambda directory: f"sqlite:{directory / 'storage'}",
    "redis": lambda _: servers.redis(),
    "cassandra": lambda _: servers.cassandra("agents"),
}


def resume_at_once(router: RunningRouter, halves: tuple[str, str], directory: Path) -> None:
    (directory / "agents").write_text("2")
    program = [sys.executable, "-m", "tests.probe.resume"]
    agents = [
        subprocess.Popen(
            [*program, router.target, half, answer, str(directory)],
            cwd=ROOT,
        )
        for half, answer in zip(halves, ANSWERS, strict=True)
    ]
    try:
        assert [agent.wait(90) for agent in agents] == [0, 0]
    finally:
        for agent in agents:
            agent.kill()


def command_line(router: RunningRouter, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "checkpoint_router.cli", *words, "--tenant", "acme"]
    command += ["--target", router.target]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


# Neither half of the saver sees the storage, and no storage sees the half: one pair on each.
@pytest.mark.parametrize(
    ("storage", "halves"),
    [
        ("sqlite", ("sync", "sync")),
        ("sqlite", ("async", "async")),
        *((storage, ("sync", "async")) for storage in STORAGES),
    ],
)
def test_two_agents_that_resume_one_interrupt_at_once(
    storage: str, halves: tuple[str, str], tmp_path: Path
) -> None:
    with (
        running_router(STORAGES[storage](tmp_path)) as router,
        RouterSaver(router.target, tenant="acme") as saver,
    ):
        graph_of(saver).invoke({"said": ["begun"]}, THREAD)
        resume_at_once(router, halves, tmp_path)

        # One history, and a true one: each line of it is from the same run.
        state = graph_of(saver).get_state(THREAD)
        won = state.values["said"][1].removeprefix("asked: ")
        assert won in ANSWERS
        assert state.values["said"] == ["begun", f"asked: {won}", f"acted on asked: {won}"]
        assert state.next == ()
        # The same for everybody, however often it is asked.
        for _ in range(3):
            with RouterSaver(router.target, tenant="acme") as reader:
                assert graph_of(reader).get_state(THREAD).values == state.values

        # The other run's checkpoints are kept, whole, under their ids.
        said = command_line(router, "thread", "conflicts", "contested", "--output", "json")
        document = json.loads(said.stdout)
        (conflict,) = document["conflicts"]
        assert {"fork", "double_execution", "double_resume"} <= set(conflict["kinds"])
        assert conflict["open"]
        (loser,) = [side for side in conflict["sides"] if not side["wins"]]
        lost = [lost_values(graph_of(saver), name) for name in loser["checkpoints"]]
        other = next(a for a in ANSWERS if a != won)
        assert ["begun", f"asked: {other}", f"acted on asked: {other}"] in lost

        # What ran twice is named, for people too.
        text = command_line(router, "thread", "conflicts", "contested").stdout
        assert "ask" in text
        assert "double_execution" in text.replace(" ", "_")

        # Going on supersedes the loser for readers; the record of what ran twice stays open.
        config = graph_of(saver).update_state(THREAD, {"said": ["went on"]}, as_node="act")
        assert graph_of(saver).get_state(THREAD).values["said"][-1] == "went on"
        assert config["configurable"]["thread_id"] == "contested"
        said = command_line(router, "thread", "conflicts", "contested", "--output", "json")
        assert [c["open"] for c in json.loads(said.stdout)["conflicts"]] == [True]


def lost_values(graph: Any, name: dict[str, str]) -> Any:
    config = {"configurable": {"thread_id": "contested", **name}}
    return graph.get_state(config).values["said"]
