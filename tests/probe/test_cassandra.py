"""A Cassandra that is killed, or stands still, under agents that are told nothing: what was
acknowledged is there, and runs go on.
"""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from checkpoint_router import RouterSaver
from checkpoint_router.core.errors import DeadlineExceeded, Unavailable
from checkpoint_router.testing import running_router
from scripts import cassandra_server
from tests.contract import servers
from tests.probe.test_crash import agents_at_work, check_acknowledged, until

pytestmark = [pytest.mark.crash, pytest.mark.timeout(300)]

AGENTS = 4
KILLS = 2


@pytest.fixture
def server(tmp_path: Path) -> Iterator[cassandra_server.Server]:
    """A Cassandra of the test's own."""
    servers.need_cassandra()
    server = cassandra_server.Server(tmp_path / "cassandra")
    server.start()
    yield server
    server.stop()


def test_what_was_acknowledged_outlives_a_cassandra_that_is_killed_under_load(
    server: cassandra_server.Server, tmp_path: Path
) -> None:
    with running_router(server.url) as router, agents_at_work(router, tmp_path, AGENTS) as agents:
        for _ in range(KILLS):
            goal = agents.acknowledged() + 60
            until(lambda goal=goal: agents.has(goal), "agents to go on")  # type: ignore[misc]  # bound now
            server.stop(signal.SIGKILL)
            server.start()
        goal = agents.acknowledged() + 60
        until(lambda: agents.has(goal), "agents to go on")
        agents.stop()
        with RouterSaver(router.target, tenant="load") as saver:
            check_acknowledged(saver, agents.notes())


def test_a_cassandra_that_stands_still_makes_typed_errors_and_then_runs_go_on(
    server: cassandra_server.Server, tmp_path: Path
) -> None:
    with running_router(server.url) as router, agents_at_work(router, tmp_path, AGENTS) as agents:
        os.kill(server.pid, signal.SIGSTOP)
        try:
            with RouterSaver(router.target, tenant="load", timeout_seconds=12) as impatient:
                here: Any = {"configurable": {"thread_id": "x", "checkpoint_ns": ""}}
                with pytest.raises((Unavailable, DeadlineExceeded), match="Cassandra"):
                    impatient.get_tuple(here)
        finally:
            os.kill(server.pid, signal.SIGCONT)
        goal = agents.acknowledged() + 100
        until(lambda: agents.has(goal), "agents to go on")
        agents.stop()
        with RouterSaver(router.target, tenant="load") as saver:
            assert saver.get_tuple(here) is None
            check_acknowledged(saver, agents.notes())
