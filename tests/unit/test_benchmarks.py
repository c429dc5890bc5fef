"""What could be wrong in the comparison without anybody seeing it: ratios, verdicts, verification.

Nothing here is about how long something takes.
"""

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import CheckpointTuple
from langgraph.checkpoint.memory import InMemorySaver

from benchmarks.engines import at_least, at_most
from benchmarks.overload import CACHES_MB, SETTING_MIN, Load, faults
from benchmarks.peers import Peer, now
from benchmarks.rounds import Results
from benchmarks.rows import one_checkpoint
from benchmarks.stack import COMMIT, ENGINE, STATEMENTS, STORAGE, WIRE, stacked_saver
from benchmarks.values import task_writes
from benchmarks.verify import verify
from benchmarks.wire import Wire


def results(**values: list[float]) -> Results:
    found = Results()
    for peer, numbers in values.items():
        for number in numbers:
            found.add("row", peer, number)
    return found


def test_a_ratio_is_taken_inside_a_round_and_not_of_the_medians() -> None:
    found = results(ours=[1.0, 20.0, 300.0], theirs=[1.0, 40.0, 100.0])
    assert found.ratio("row", "ours", ["theirs"], rate=False) == 1.0
    assert found.median("row", "ours") == 20.0


def test_the_best_rival_of_a_round_is_the_fastest_one() -> None:
    found = results(ours=[4.0, 4.0, 4.0], one=[2.0, 8.0, 2.0], other=[8.0, 2.0, 8.0])
    assert found.ratio("row", "ours", ["one", "other"], rate=False) == 2.0
    assert found.ratio("row", "ours", ["one", "other"], rate=True) == 0.5


def test_a_row_without_a_rival_has_no_ratio() -> None:
    found = results(ours=[1.0])
    assert found.ratio("row", "ours", ["missing"], rate=False) is None
    assert found.ratio("row", "missing", ["ours"], rate=False) is None


@pytest.mark.parametrize(
    ("goal", "ratio", "verdict"),
    [
        (at_most(0.5, 0.75), 0.5, "goal"),
        (at_most(0.5, 0.75), 0.51, "least"),
        (at_most(0.5, 0.75), 0.76, "not met"),
        (at_least(4, 2.5), 4.0, "goal"),
        (at_least(4, 2.5), 2.5, "least"),
        (at_least(4, 2.5), 2.4, "not met"),
        (at_most(0.9), 0.91, "not met"),
    ],
)
def test_a_verdict_knows_which_side_is_better(goal: Any, ratio: float, verdict: str) -> None:
    assert goal.verdict(ratio) == verdict


class Liar(InMemorySaver):
    """Gives back what it was given, but for one thing."""

    def __init__(self, lie: str) -> None:
        super().__init__()
        self.lie = lie

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        return self.get_tuple(config)

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        found = super().get_tuple(config)
        if found is None:
            return None
        values, writes = found.checkpoint["channel_values"], found.pending_writes
        if self.lie == "a message less" and values.get("messages"):
            values["messages"] = values["messages"][:-1]
        if self.lie == "a write less" and writes:
            writes = writes[:-1]
        if self.lie == "writes in another order" and writes:
            writes = writes[::-1]
        if self.lie == "other metadata":
            found.metadata["step"] = 7
        return found._replace(pending_writes=writes)


def peer(saver: InMemorySaver, *, blocking: bool) -> Peer:
    return Peer(name="some saver", promise="", savers=lambda client: saver, blocking=blocking)


@pytest.mark.parametrize("blocking", [False, True])
async def test_an_honest_saver_is_verified(blocking: bool) -> None:
    right, wrong = await verify(peer(InMemorySaver(), blocking=blocking))
    assert right > 100
    assert not wrong


@pytest.mark.parametrize(
    "lie", ["a message less", "a write less", "writes in another order", "other metadata"]
)
async def test_a_saver_that_gives_back_something_else_is_seen(lie: str) -> None:
    _, wrong = await verify(peer(Liar(lie), blocking=False))
    assert wrong, lie
    assert "some saver gave back another" in str(wrong[0])


def test_a_row_that_waits_for_something_else_than_its_blocking_saver_is_an_error() -> None:
    async def waits() -> None:
        await asyncio.sleep(0)

    async def ready() -> int:
        return 7

    assert now(ready()) == 7
    with pytest.raises(RuntimeError, match="waited"):
        now(waits())


async def test_a_profile_peels_every_floor_of_a_call(tmp_path: Path) -> None:
    async with stacked_saver(tmp_path) as (saver, ledger):
        config = await one_checkpoint(saver, "t")
        ledger.clear()
        await saver.aput_writes(config, task_writes(1), "a task")
        assert await saver.aget_tuple(config) is not None
        inside = ledger.seconds[STATEMENTS] + ledger.seconds[COMMIT]
        assert ledger.seconds[WIRE] > ledger.seconds[ENGINE] > ledger.seconds[STORAGE] > inside


def test_bytes_on_the_wire_are_those_of_both_directions() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        other, _ = server.accept()
        with client, other:
            client.sendall(b"before")
            assert other.recv(100) == b"before"
            wire = Wire()
            wire.begin()
            client.sendall(b"x" * 1_000)
            other.sendall(b"y" * 300)
            assert other.recv(1_000, socket.MSG_WAITALL) == b"x" * 1_000
            assert client.recv(300, socket.MSG_WAITALL) == b"y" * 300
            # Both ends are in this process, so each byte is sent by one and received by the other.
            assert wire.ended() == 2 * 1_300


def load(**changes: Any) -> Load:
    stock: dict[str, Any] = {
        "clients": 640,
        "seconds": 1.0,
        "puts": 900,
        "late_ms": [1.0],
        "refused": 5,
        "without_hint": 0,
        "runs": 3,
        "failed": {},
        "router_mb": 100.0,
        "router_seconds": 0.5,
        "client_seconds": 0.5,
    }
    return Load(**(stock | changes))


BEST = load(puts=1_000)


def test_an_overload_that_keeps_its_promises_has_no_fault() -> None:
    assert not faults(load(), BEST, 70.0, held=SETTING_MIN)
    assert not faults(load(refused=0), BEST, 70.0, held=0)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"puts": 799}, "of the best rate"),
        ({"failed": {"DeadlineExceeded": 1}}, "failed"),
        ({"runs": 0}, "no agent's run"),
        ({"refused": 0}, "nothing was refused"),
        ({"without_hint": 1}, "come back"),
        ({"router_mb": 70.0 + CACHES_MB + 4 * SETTING_MIN / 1e6}, "MB"),
    ],
)
def test_each_fault_of_an_overload_is_said(changes: dict[str, Any], said: str) -> None:
    (fault,) = faults(load(**changes), BEST, 70.0, held=SETTING_MIN)
    assert said in fault
