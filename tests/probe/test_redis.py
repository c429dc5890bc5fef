"""A router whose Redis dies, stalls, is emptied, or comes back as it was some time ago."""

import os
import signal
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from langgraph.checkpoint.base import empty_checkpoint, uuid6

from checkpoint_router import RouterSaver
from checkpoint_router.core.errors import DeadlineExceeded, Unavailable
from checkpoint_router.testing import RunningRouter, running_router
from checkpoint_router.v1 import admin_service_pb2 as admin
from checkpoint_router.v1 import admin_service_pb2_grpc as admin_grpc
from scripts.redis_server import Server
from tests.contract.servers import need_redis
from tests.probe.test_crash import (
    STALL_SECONDS,
    agents_at_work,
    check_acknowledged,
    check_whole,
    throughout,
    until,
)
from tests.unit.redis_shard import OlderCopy

pytestmark = [pytest.mark.crash, pytest.mark.timeout(300)]

KILLS = 8
ROOT: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """With every write synced."""
    need_redis()
    server = Server(tmp_path / "redis")
    server.start()
    yield server
    server.stop(signal.SIGKILL)


def put(saver: RouterSaver, config: Any, step: int) -> Any:
    """One checkpoint whose value is `step`."""
    checkpoint = empty_checkpoint()
    checkpoint["id"] = str(uuid6(clock_seq=step))
    checkpoint["channel_values"] = {"value": "v" * 5000 + str(step)}
    checkpoint["channel_versions"] = {"value": f"{step:032}.5"}
    versions = checkpoint["channel_versions"]
    return saver.put(config, checkpoint, {"source": "loop", "step": step}, versions)


def steps(saver: RouterSaver) -> list[int]:
    """What is listed, newest first; every value is read."""
    return [
        int(t.checkpoint["channel_values"]["value"].lstrip("v"))
        for t in saver.list({"configurable": {"thread_id": "t"}})
    ]


def alarms(router: RunningRouter) -> str:
    """What the router says is wrong."""
    with grpc.insecure_channel(router.address) as channel:
        facts = admin_grpc.AdminServiceStub(channel).GetRouter(admin.GetRouterRequest())
    return " ".join(facts.alarms)


def test_redis_killed_under_load_loses_nothing_that_was_acknowledged(
    server: Server, tmp_path: Path
) -> None:
    with running_router(server.url) as router:
        with agents_at_work(router, tmp_path) as agents:
            for kill in range(KILLS):
                goal = agents.acknowledged() + 40
                until(partial(agents.has, goal), f"progress after kill {kill}")
                server.stop(signal.SIGKILL)
                server.start()
            until(agents.all_work, "every agent to go on")
            agents.stop()
            notes = agents.notes()
        with RouterSaver(router.target, tenant="load") as saver:
            check_acknowledged(saver, notes)
            check_whole(saver, {thread for _, thread, *_ in notes})
        assert alarms(router) == ""


def test_a_stalled_redis_holds_a_call_up_to_its_deadline_and_the_run_goes_on_after(
    server: Server,
) -> None:
    with (
        running_router(f"{server.url}?timeout=0.5") as router,
        RouterSaver(router.target, timeout_seconds=2) as hasty,
        RouterSaver(router.target, timeout_seconds=90) as patient,
    ):
        config = put(patient, ROOT, 1)
        ended: list[Any] = []
        run = threading.Thread(target=lambda: ended.append(put(patient, config, 2)))
        os.kill(server.pid, signal.SIGSTOP)
        try:
            run.start()
            for _ in throughout(STALL_SECONDS):
                with pytest.raises((DeadlineExceeded, Unavailable)):
                    hasty.get_tuple(ROOT)
        finally:
            os.kill(server.pid, signal.SIGCONT)
        run.join(90)
        assert ended, "the run did not go on"
        assert steps(patient) == [2, 1]


def test_what_was_flushed_under_a_run_is_put_back_and_said(server: Server) -> None:
    with (
        running_router(server.url) as router,
        RouterSaver(router.target, timeout_seconds=20) as saver,
    ):
        config = ROOT
        for step in (1, 2, 3):
            config = put(saver, config, step)
        server.command("FLUSHALL")
        assert steps(saver) == [3, 2, 1]
        server.command("FLUSHALL")
        put(saver, config, 4)
        assert steps(saver) == [4, 3, 2, 1]
        assert "lost writes that it had acknowledged" in alarms(router)
        with (
            running_router(server.url) as other,
            RouterSaver(other.target) as elsewhere,
        ):
            assert steps(elsewhere) == [4, 3, 2, 1]


def test_what_an_older_append_only_file_lacks_is_put_back_and_said(server: Server) -> None:
    with (
        running_router(server.url) as router,
        RouterSaver(router.target, timeout_seconds=20) as saver,
    ):
        config = put(saver, ROOT, 1)
        copy = OlderCopy(server)
        for step in (2, 3):
            config = put(saver, config, step)
        copy.put_back(server)
        config = put(saver, config, 4)
        assert steps(saver) == [4, 3, 2, 1]
        assert "lost writes that it had acknowledged" in alarms(router)
