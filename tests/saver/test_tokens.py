"""The causal token that rides unseen: what the thread id looks like, and which calls find it.

One run, nested graphs included, has one token and one segment. Whether it had is seen from outside:
a run with two segments would be its own rival, and `undisputed` fails every test that leaves a
conflict without having rivals.
"""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from typing import Any

import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import START, StateGraph
from langgraph.types import Command, Send

from checkpoint_router.core import errors
from checkpoint_router.v1.admin_service_pb2 import GetThreadRequest

from .calls import Calls, Flavour, Runs
from .conftest import MakeSaver, conflicts_of
from .likeness import THREAD, Alike, Compile, Log, add, ask, line, say, story
from .shapes import TASK, body, chain, cid, conf, ids, parent_of, store

pytestmark = [pytest.mark.asyncio, pytest.mark.router_only]

WAIT_SECONDS_MAX = 30.0


@pytest.fixture
def graph(saver: BaseCheckpointSaver[Any], flavour: Flavour) -> Callable[[Any], Runs]:
    """Compiles a graph on the saver under test."""
    return lambda builder: Runs(builder.compile(checkpointer=saver), flavour)


# ---- what a thread id looks like ----------------------------------------------------------------


async def carriers(calls: Calls) -> list[Any]:
    """A thread id from each place that gives one out."""
    put = await store(calls, cid(1))
    child = await store(calls, cid(2), parent=cid(1))
    newest, named = await calls.read(conf()), await calls.read(conf(checkpoint_id=cid(1)))
    configs = [put, child, newest.config, newest.parent_config, named.config]
    configs += [each.config for each in await calls.list(conf())]
    return [config["configurable"]["thread_id"] for config in configs if config]


async def test_the_thread_id_of_a_read_is_like_the_plain_text(calls: Calls) -> None:
    for carried in await carriers(calls):
        assert isinstance(carried, str)
        assert carried == "t"
        assert "t" == carried  # noqa: SIM300  # both sides decide
        assert not carried != "t"  # noqa: SIM202  # `!=` is a method of its own
        assert carried != "u"
        assert hash(carried) == hash("t")
        assert {carried: 1}["t"] == 1
        assert {"t", carried} == {"t"}
        assert f"{carried}|{carried.upper()}" == "t|T"
        assert repr(carried) == "'t'"
        assert sorted(["u", carried, "a"]) == ["a", "t", "u"]


async def test_another_kind_of_text_decides_itself_whether_it_is_equal(calls: Calls) -> None:
    class Anything(str):
        __slots__ = ()

        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = str.__hash__

    for carried in await carriers(calls):
        assert carried == Anything("something else")
        assert Anything("something else") == carried


async def test_copies_of_a_thread_id_are_plain_text(calls: Calls) -> None:
    serde = calls.saver.serde
    for carried in await carriers(calls):
        made = [
            pickle.loads(pickle.dumps(carried)),  # noqa: S301  # our own bytes
            copy.copy(carried),
            copy.deepcopy({"deep": carried})["deep"],
            json.loads(json.dumps(carried)),
            serde.loads_typed(serde.dumps_typed(carried)),
            str(carried),
        ]
        assert made == ["t"] * 6
        assert {type(each) for each in made} == {str}


async def test_a_config_that_went_through_json_goes_on_where_it_stood(
    calls: Calls, another: Callable[..., Calls]
) -> None:
    stored: Any = await store(calls, cid(1))
    for number in (2, 3, 4):
        sent: Any = json.loads(json.dumps(stored))
        stored = await another().put(sent, body(cid(number)), {}, {})
    assert ids(await calls.list(conf())) == [cid(number) for number in (4, 3, 2, 1)]


async def test_a_thread_id_of_another_savers_read_is_plain_text_to_this_one(
    calls: Calls, another: Callable[..., Calls]
) -> None:
    await chain(calls, [1])
    elsewhere = another(tenant=f"{calls.saver.tenant}-other")  # type: ignore[attr-defined]
    found = await calls.read(conf())
    assert await elsewhere.get_tuple(found.config) is None
    await elsewhere.put(found.config, body(cid(2)), {}, {})
    assert ids(await elsewhere.list(conf())) == [cid(2)]
    assert ids(await calls.list(conf())) == [cid(1)]


# ---- calls outside any run ----------------------------------------------------------------------


async def test_reads_between_the_writes_of_one_saver_make_no_rivals(calls: Calls) -> None:
    """Each call names its ids by hand, as tests, tools and migrations do."""
    at = conf(checkpoint_id=cid(2))
    await chain(calls, [1])
    await calls.put_writes(at, [("x", 1)], TASK)
    await calls.get_tuple(at)
    await calls.read(conf())
    await calls.put_writes(at, [("x", 1), ("y", 2)], TASK)
    await store(calls, cid(2), parent=cid(1))
    await calls.list(conf())
    await calls.put_writes(at, [("x", 1), ("y", 2), ("z", 3)], TASK)
    assert (await calls.read(conf())).pending_writes == [
        (TASK, "x", 1),
        (TASK, "y", 2),
        (TASK, "z", 3),
    ]


async def test_a_list_between_the_writes_of_one_saver_makes_no_rivals(calls: Calls) -> None:
    """Who puts with the config of the last put, and writes by an id alone."""
    first = await calls.put(conf(), body(cid(1)), {}, {})
    assert ids(await calls.list(conf())) == [cid(1)]
    await calls.put_writes(conf(checkpoint_id=cid(1)), [("x", 1)], TASK)
    await calls.put(first, body(cid(2)), {}, {})
    found = {ids([each])[0]: each.pending_writes for each in await calls.list(conf())}
    assert found == {cid(2): [], cid(1): [(TASK, "x", 1)]}


async def test_a_late_write_to_an_old_checkpoint_moves_no_head(calls: Calls) -> None:
    await chain(calls, [1, 2])
    await calls.put_writes(conf(checkpoint_id=cid(1)), [("late", 1)], TASK)
    assert (await calls.read(conf())).checkpoint["id"] == cid(2)
    assert (await calls.read(conf(checkpoint_id=cid(1)))).pending_writes == [(TASK, "late", 1)]


async def test_who_reads_an_old_checkpoint_by_its_id_goes_back_to_it_with_a_put_and_not_before(
    calls: Calls, another: Callable[..., Calls], admin: Any, tenant: str
) -> None:
    await chain(calls, [1, 2, 3])
    old = await calls.read(conf(checkpoint_id=cid(2)))
    await calls.put_writes(old.config, [("again", 1)], TASK)
    for reader in (calls, another()):
        now = await reader.read(conf())
        assert (now.checkpoint["id"], now.pending_writes) == (cid(3), [])
        there = await reader.read(conf(checkpoint_id=cid(2)))
        assert there.pending_writes == [(TASK, "again", 1)]
    drawn = admin.GetThread(GetThreadRequest(tenant=tenant, thread_id="t")).nodes
    assert [(n.checkpoint_id, len(n.writes)) for n in drawn if n.writes] == [(cid(2), 1)]
    await calls.put(old.config, body(cid(4)), {}, {})
    found = await calls.read(conf())
    assert (found.checkpoint["id"], parent_of(found)) == (cid(4), cid(2))
    # What lay ahead is kept, and listed.
    assert ids(await calls.list(conf())) == [cid(4), cid(3), cid(2), cid(1)]


async def test_a_put_in_one_namespace_moves_no_head_of_another(calls: Calls) -> None:
    await chain(calls, [1], ns="sub")
    await chain(calls, [2, 3])
    inner = await calls.read(conf(ns="sub", checkpoint_id=cid(1)))
    await calls.put(inner.config, body(cid(4)), {}, {})
    assert (await calls.read(conf(ns="sub"))).checkpoint["id"] == cid(4)
    assert (await calls.read(conf())).checkpoint["id"] == cid(3)


@pytest.mark.rivals
async def test_what_two_savers_put_without_knowing_of_each_other_is_a_conflict_and_kept(
    calls: Calls, another: Callable[..., Calls], admin: Any, tenant: str
) -> None:
    other = another()
    await chain(calls, [1])
    left, right = await calls.read(conf()), await other.read(conf())
    for hand, config, number in ((calls, left.config, 2), (other, right.config, 3)):
        whole = body(cid(number), {"n": number})
        await hand.put(config, whole, {}, whole["channel_versions"])
    (record,) = conflicts_of(admin, tenant, "t").conflicts
    assert record.open
    assert sorted(n.checkpoint_id for side in record.sides for n in side.checkpoints) == [
        cid(2),
        cid(3),
    ]
    (winning,) = [side.checkpoints[0].checkpoint_id for side in record.sides if side.wins]
    for reader in (calls, other, another()):
        assert (await reader.read(conf())).checkpoint["id"] == winning
        for number in (2, 3):
            found = await reader.read(conf(checkpoint_id=cid(number)))
            assert found.checkpoint["channel_values"] == {"n": number}


# ---- runs ---------------------------------------------------------------------------------------


def nested(width: int) -> StateGraph[Any]:
    """Several fresh subgraphs side by side, each with a subgraph of its own, and one at the end."""
    deepest = line(("d", add("d"))).compile()
    inner = line(("s", add("s")), ("deep", deepest)).compile()
    builder: StateGraph[Any] = StateGraph(Log)
    builder.add_node("inner", inner)
    builder.add_node("last", line(("l", add("l"))).compile())
    builder.add_conditional_edges(
        START, lambda state: [Send("inner", {"log": []}) for _ in range(width)], ["inner"]
    )
    builder.add_edge("inner", "last")
    return builder


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
async def test_the_first_run_of_a_thread_is_one_run_in_all_its_graphs(
    alike: Alike, durability: Any
) -> None:
    async def scenario(compiled: Compile) -> list[Any]:
        graph = compiled(nested(6))
        ended = await graph.invoke({"log": ["in"]}, THREAD, durability=durability)
        return [ended, *await story(graph)]

    ended, now, *_ = await alike(scenario)
    assert (now["values"], now["next"]) == (ended, [])


async def test_first_runs_of_many_threads_at_once_do_not_mix(
    graph: Callable[[Any], Runs],
) -> None:
    compiled = graph(nested(3))
    configs = [{"configurable": {"thread_id": f"t{each}"}} for each in range(10)]
    runs = (compiled.invoke({"log": [str(n)]}, config) for n, config in enumerate(configs))
    for number, ended in enumerate(await asyncio.gather(*runs)):
        state = await compiled.get_state(configs[number])
        assert state.values == ended
        assert ended["log"][0] == str(number)


async def test_a_config_of_an_old_state_serves_every_later_turn(alike: Alike) -> None:
    """Users keep the config of a state, and with it a thread id that bears an old token."""

    async def scenario(compiled: Compile) -> list[Any]:
        graph = compiled(nested(2))
        await graph.invoke({"log": ["0"]}, THREAD)
        kept = (await graph.get_state(THREAD)).config["configurable"]["thread_id"]
        turns = [
            await graph.invoke({"log": [turn]}, {"configurable": {"thread_id": kept}})
            for turn in ("1", "2", "3")
        ]
        return [*turns, *await story(graph)]

    await alike(scenario)


async def test_replaying_an_old_state_is_one_run_in_all_its_graphs(
    graph: Callable[[Any], Runs],
) -> None:
    compiled = graph(line(("a", say("a")), ("sub", nested(2).compile()), ("b", say("b"))))
    ended = await compiled.invoke({"log": ["in"]}, THREAD)
    past = next(each for each in await compiled.history(THREAD) if each.next == ("sub",))
    again = await compiled.invoke(None, past.config)
    assert again == ended
    assert (await compiled.get_state(THREAD)).values == ended


@pytest.mark.parametrize("persistent", [None, True], ids=["fresh", "persistent"])
async def test_an_update_inside_a_subgraph_leaves_the_graph_around_it_as_it_was(
    graph: Callable[[Any], Runs], persistent: bool | None
) -> None:
    inner = line(("s", say("s")), ("ask", ask)).compile(checkpointer=persistent)
    compiled = graph(line(("a", say("a")), ("sub", inner), ("b", say("b"))))
    await compiled.invoke({"log": ["in"]}, THREAD)
    before = await compiled.get_state(THREAD, subgraphs=True)
    await compiled.update_state(before.tasks[0].state.config, {"log": ["inside"]})
    after = await compiled.get_state(THREAD, subgraphs=True)
    assert after.config == before.config
    assert (after.next, after.interrupts) == (before.next, before.interrupts)
    assert after.tasks[0].state.values["log"] == [*before.tasks[0].state.values["log"], "inside"]
    ended = await compiled.invoke(Command(resume="yes"), THREAD)
    assert "inside" in ended["log"]


async def test_reads_from_inside_a_node_disturb_no_run(
    saver: BaseCheckpointSaver[Any], graph: Callable[[Any], Runs]
) -> None:
    seen: list[Any] = []

    def look(state: Any) -> Any:
        found = saver.get_tuple(THREAD)  # type: ignore[arg-type]
        seen.append((found is not None, len(list(saver.list(THREAD)))))  # type: ignore[arg-type]
        return {"log": ["looked"]}

    compiled = graph(line(("a", say("a")), ("look", look), ("b", say("b"))))
    for turn in (1, 2):
        await compiled.invoke({"log": ["in"]}, THREAD, durability="sync")
        assert (await compiled.get_state(THREAD)).values["log"] == ["in", "a", "looked", "b"] * turn
    assert [found for found, _ in seen] == [True, True]
    assert seen[0][1] >= 2


@pytest.mark.rivals
@pytest.mark.parametrize("begun", [False, True], ids=["first runs", "later runs"])
async def test_two_runs_at_once_in_one_process_are_two_rivals_and_neither_is_lost(
    graph: Callable[[Any], Runs], admin: Any, tenant: str, begun: bool
) -> None:
    barrier = threading.Barrier(2)

    def meet(state: Any) -> Any:
        if state["log"][-1] != "before":
            barrier.wait(WAIT_SECONDS_MAX)
        return {"log": [f"met {state['log'][-1]}"]}

    compiled = graph(line(("meet", meet), ("sub", line(("s", add("s"))).compile())))
    if begun:
        await compiled.invoke({"log": ["before"]}, THREAD)
    ends = await asyncio.gather(
        compiled.invoke({"log": ["one"]}, THREAD), compiled.invoke({"log": ["two"]}, THREAD)
    )
    records = conflicts_of(admin, tenant, "t").conflicts
    assert len(records) == 1
    assert len({side.segment for side in records[0].sides}) == 2
    kept = []
    for side in records[0].sides:
        last = [name for name in side.checkpoints if name.checkpoint_ns == ""][-1]
        state = await compiled.get_state(conf(checkpoint_id=last.checkpoint_id))
        kept.append(state.values)
        if side.wins:
            assert (await compiled.get_state(THREAD)).values == state.values
    assert sorted(kept, key=str) == sorted(ends, key=str)


@pytest.mark.parametrize("clone", ["allowlist", "copy"])
async def test_clones_of_a_saver_go_on_with_each_others_runs(
    saver: BaseCheckpointSaver[Any], flavour: Flavour, clone: str
) -> None:
    before: list[str] = []
    for turn in ("1", "2", "3"):
        cloned = copy.copy(saver) if clone == "copy" else saver.with_allowlist([("a", "B")])
        compiled = Runs(nested(2).compile(checkpointer=cloned), flavour)
        ended = await compiled.invoke({"log": [turn]}, THREAD)
        assert ended["log"][: len(before) + 1] == [*before, turn]
        state = await Runs(nested(2).compile(checkpointer=saver), flavour).get_state(THREAD)
        assert state.values == ended
        before = ended["log"]


async def test_a_run_on_a_thread_that_is_deleted_meanwhile_is_told_and_a_new_one_begins_anew(
    graph: Callable[[Any], Runs], make_saver: MakeSaver
) -> None:
    other = make_saver()

    def delete(state: Any) -> Any:
        if "delete" in state["log"]:
            other.delete_thread("t")
        return {"log": ["x"]}

    compiled = graph(line(("a", say("a")), ("delete", delete), ("b", say("b"))))
    with pytest.raises(errors.ThreadDeleted):
        await compiled.invoke({"log": ["delete"]}, THREAD, durability="sync")
    assert (await compiled.get_state(THREAD)).values == {}
    ended = await compiled.invoke({"log": ["anew"]}, THREAD)
    assert ended["log"] == ["anew", "a", "x", "b"]


# ---- other processes ----------------------------------------------------------------------------

PROGRAM = """
import asyncio, os, sys
sys.path[:0] = sys.argv[3:]
from checkpoint_router import RouterSaver
from checkpoint_router.core.errors import RouterError
from tests.saver.shapes import body, cid, conf

saver = RouterSaver(sys.argv[1], tenant=sys.argv[2])
"""


async def program(router: Any, tenant: str, text: str) -> str:
    """Runs a Python program with a saver of its own; returns what it says."""
    arguments = ["-c", PROGRAM + textwrap.dedent(text), router.target, tenant, *sys.path]
    ran = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=2 * WAIT_SECONDS_MAX,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


async def test_a_read_after_another_process_ended_its_put_sees_it(
    calls: Calls, router: Any, tenant: str
) -> None:
    await chain(calls, [1])
    await calls.read(conf())
    await program(router, tenant, "saver.put(saver.get_tuple(conf()).config, body(cid(2)), {}, {})")
    assert (await calls.read(conf())).checkpoint["id"] == cid(2)
    await chain(calls, [3], parent=cid(2))
    said = await program(
        router,
        tenant,
        """
        async def main():
            found = await saver.aget_tuple(conf())
            await saver.aput(found.config, body(cid(4)), {}, {})
            print(found.checkpoint["id"])
        asyncio.run(main())
        """,
    )
    assert said.split() == [cid(3)]
    assert (await calls.read(conf())).checkpoint["id"] == cid(4)


async def test_a_forked_child_is_refused_clearly_and_its_parent_goes_on(
    calls: Calls, router: Any, tenant: str
) -> None:
    """Also where another worker was in the midst of a call: it holds a lock, and is not there."""
    said = await program(
        router,
        tenant,
        """
        import signal, threading
        first = saver.put(conf(), body(cid(1)), {}, {})
        held, over = threading.Event(), threading.Event()
        def hold():
            with saver._reading.sessions.lock:
                held.set()
                over.wait()
        worker = threading.Thread(target=hold, daemon=True)
        worker.start()
        held.wait()
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            for call in (saver.put, lambda *given: asyncio.run(saver.aput(*given))):
                try:
                    call(first, body(cid(2)), {}, {})
                    print("worked", flush=True)
                except RouterError as error:
                    print(type(error).__name__, "spawn" in str(error), flush=True)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        over.set()
        worker.join()
        saver.put(first, body(cid(3)), {}, {})
        """,
    )
    assert said.split() == ["ForkedSaver", "True"] * 2
    assert ids(await calls.list(conf())) == [cid(3), cid(1)]


async def test_workers_that_share_a_saver_made_before_they_were_forked_lose_and_double_nothing(
    saver: BaseCheckpointSaver[Any], router: Any, tenant: str
) -> None:
    await program(
        router,
        tenant,
        """
        from langgraph.graph import START, StateGraph
        from tests.saver.likeness import Log, add
        builder = StateGraph(Log)
        builder.add_node("end", add("end"))
        for n in map(str, range(9)):
            builder.add_node(n, add(n))
            builder.add_edge(START, n)
            builder.add_edge(n, "end")
        graph = builder.compile(checkpointer=saver)
        def work(name):
            graph.invoke({"log": []}, conf(f"{name} sync"))
            asyncio.run(graph.ainvoke({"log": []}, conf(f"{name} async")))
        children = []
        for n in range(2):
            children.append(os.fork())
            if children[-1] == 0:
                work(f"worker {n}")
                os._exit(0)
        for child in children:
            assert os.waitpid(child, 0)[1] == 0
        work("parent")
        """,
    )
    for name in ("worker 0", "worker 1", "parent"):
        for half in ("sync", "async"):
            found = [each async for each in saver.alist(conf(f"{name} {half}"))]  # type: ignore[arg-type]
            logs = [
                sorted(value for _, channel, value in each.pending_writes or () if channel == "log")
                for each in found
            ]
            assert logs == [[], [["end"]], [[str(n)] for n in range(9)], [[]]]
