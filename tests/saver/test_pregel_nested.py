"""Real graphs, continued: subgraphs, tasks side by side, errors, delta channels, functions.

As in `test_pregel`, each scenario runs on the saver under test and on InMemorySaver.
"""

from __future__ import annotations

import asyncio
import operator
import threading
from collections.abc import Sequence
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, RetryPolicy, Send, interrupt

from .calls import Flavour, Runs
from .likeness import DURABILITIES, THREAD, Alike, Compile, Log, ask, line, say, story

pytestmark = pytest.mark.asyncio


# ---- subgraphs ----------------------------------------------------------------------------------


@pytest.mark.parametrize("persistent", [None, True], ids=["fresh", "persistent"])
@pytest.mark.parametrize("durability", DURABILITIES)
async def test_a_subgraph_interrupts_resumes_and_remembers(
    alike: Alike, durability: Any, persistent: bool | None
) -> None:
    async def scenario(compiled: Compile) -> list[Any]:
        inner = line(("s", say("s")), ("ask", ask), ("u", say("u"))).compile(
            checkpointer=persistent
        )
        graph = compiled(line(("a", say("a")), ("sub", inner), ("b", say("b"))))
        seen: list[Any] = []
        for turn in ("one", "two"):
            seen.append(await graph.invoke({"log": [turn]}, THREAD, durability=durability))
            state = await graph.get_state(THREAD, subgraphs=True)
            seen.append(state)
            seen.append(await graph.history(state.tasks[0].state.config))
            seen.append(await graph.invoke(Command(resume=turn), THREAD, durability=durability))
        return [*seen, *await story(graph)]

    await alike(scenario)


async def test_time_travel_reaches_into_a_subgraph(alike: Alike) -> None:
    async def scenario(compiled: Compile) -> list[Any]:
        inner = line(("s", say("s")), ("ask", ask), ("u", say("u"))).compile()
        graph = compiled(line(("a", say("a")), ("sub", inner), ("b", say("b"))))
        await graph.invoke({"log": ["in"]}, THREAD)
        waiting = await graph.get_state(THREAD, subgraphs=True)
        await graph.update_state(waiting.tasks[0].state.config, {"log": ["inside"]})
        seen = [await graph.invoke(Command(resume="1"), THREAD), *await story(graph)]
        past = next(each for each in await graph.history(THREAD) if each.next == ("sub",))
        seen += [await graph.invoke(None, past.config), *await story(graph)]
        return [*seen, await graph.invoke(Command(resume="2"), THREAD), *await story(graph)]

    await alike(scenario)


async def test_a_subgraphs_past_is_changed_and_the_graph_around_it_stays(alike: Alike) -> None:
    async def scenario(compiled: Compile) -> list[Any]:
        inner = line(("s", say("s")), ("ask", ask), ("u", say("u"))).compile()
        graph = compiled(line(("a", say("a")), ("sub", inner), ("b", say("b"))))
        await graph.invoke({"log": ["in"]}, THREAD)
        waiting = await graph.get_state(THREAD, subgraphs=True)
        inside = dict(waiting.tasks[0].state.config["configurable"])
        del inside["checkpoint_id"]
        history = await graph.history({"configurable": inside})
        assert len(history) > 1
        await graph.update_state(history[-1].config, {"log": ["inside"]})
        return await story(graph)

    await alike(scenario)


async def test_graphs_in_graphs_in_graphs(alike: Alike) -> None:
    async def scenario(compiled: Compile) -> list[Any]:
        deepest = line(("ask", ask), ("d", say("d"))).compile()
        middle = line(("m", say("m")), ("deep", deepest)).compile()
        graph = compiled(line(("top", middle), ("z", say("z"))))
        seen = [await graph.invoke({"log": ["in"]}, THREAD), *await story(graph)]
        return [*seen, await graph.invoke(Command(resume="ok"), THREAD), *await story(graph)]

    await alike(scenario)


# ---- fan out, errors ----------------------------------------------------------------------------


@pytest.mark.parametrize("durability", DURABILITIES)
async def test_a_parallel_send_keeps_the_order_of_its_tasks(alike: Alike, durability: Any) -> None:
    async def scenario(compiled: Compile) -> list[Any]:
        builder = StateGraph(Log)
        builder.add_node("work", lambda item: {"log": [f"did {item['n']}"]})
        builder.add_node("after", say("after"))
        sends = [Send("work", {"n": each}) for each in range(25)]
        builder.add_conditional_edges(START, lambda state: sends, ["work"])
        builder.add_edge("work", "after")
        graph = compiled(builder)
        return [await graph.invoke({"log": []}, THREAD, durability=durability), *await story(graph)]

    found = await alike(scenario)
    assert found[0]["log"] == [*(f"did {each}" for each in range(25)), "after"]


@pytest.mark.parametrize("durability", DURABILITIES)
async def test_after_an_error_only_what_failed_runs_again(alike: Alike, durability: Any) -> None:
    async def scenario(compiled: Compile) -> list[Any]:
        calls: list[str] = []
        finished = threading.Event()

        def good(state: Any) -> dict[str, Any]:
            calls.append("good")
            return {"log": ["good"]}

        def bad(state: Any) -> dict[str, Any]:
            calls.append("bad")
            # It fails when the other task is known to have ended, or the outcome were a race.
            assert finished.wait(30)
            if calls.count("bad") == 1:
                raise RuntimeError("boom")
            return {"log": ["bad"]}

        builder = line(("good", good))
        builder.add_node("bad", bad)
        builder.add_edge(START, "bad")
        builder.add_node("after", say("after"))
        builder.add_edge(["good", "bad"], "after")
        graph = compiled(builder)

        async def watch() -> None:
            while not finished.is_set():
                tasks = (await graph.get_state(THREAD)).tasks
                if any(task.name == "good" and task.result for task in tasks):
                    finished.set()
                await asyncio.sleep(0.005)

        watching = asyncio.ensure_future(watch())
        with pytest.raises(RuntimeError, match="boom"):
            await graph.stream(
                {"log": []},
                THREAD,
                durability=durability,
                on_chunk=lambda chunk: finished.set() if "good" in chunk else None,
            )
        await watching
        seen = await story(graph)
        ended = await graph.invoke(None, THREAD, durability=durability)
        return [sorted(calls), ended, *seen, *await story(graph)]

    found = await alike(scenario)
    assert found[0] == ["bad", "bad", "good"]
    assert found[1]["log"] == ["bad", "good", "after"]


async def test_a_retry_policy_leaves_no_trace_of_the_failed_attempts(alike: Alike) -> None:
    async def scenario(compiled: Compile) -> list[Any]:
        attempts: list[int] = []

        def flaky(state: Any) -> dict[str, Any]:
            attempts.append(1)
            if len(attempts) < 3:
                raise ValueError("not yet")
            return {"log": [f"attempt {len(attempts)}"]}

        builder = StateGraph(Log)
        policy = RetryPolicy(initial_interval=0.001, jitter=False, retry_on=ValueError)
        builder.add_node("flaky", flaky, retry_policy=policy)
        builder.add_edge(START, "flaky")
        graph = compiled(builder)
        return [await graph.invoke({"log": []}, THREAD), *await story(graph)]

    assert (await alike(scenario))[0] == {"log": ["attempt 3"]}


async def test_a_command_goes_on_elsewhere_and_updates(alike: Alike) -> None:
    async def scenario(compiled: Compile) -> list[Any]:
        def route(state: Any) -> Command[Any]:
            done = len(state["log"]) > 3
            return Command(update={"log": ["r"]}, goto=END if done else "work")

        builder = StateGraph(Log)
        builder.add_node("route", route, destinations=("work", END))
        builder.add_node("work", say("w"))
        builder.add_edge(START, "route")
        builder.add_edge("work", "route")
        graph = compiled(builder)
        return [await graph.invoke({"log": []}, THREAD), *await story(graph)]

    await alike(scenario)


# ---- delta channels -----------------------------------------------------------------------------


def extend(state: list[str], writes: Sequence[list[str]]) -> list[str]:
    """A reducer for which it does not matter how writes are gathered."""
    return [*state, *(word for write in writes for word in write)]


class Deltas(TypedDict, total=False):
    """A list that is stored as its changes, with a snapshot at every third."""

    log: Annotated[list[str], DeltaChannel(extend, snapshot_frequency=3)]
    last: str


@pytest.mark.parametrize("durability", DURABILITIES)
async def test_a_delta_channel_has_its_value_at_each_step_of_its_past(
    alike: Alike, durability: Any
) -> None:
    async def scenario(compiled: Compile) -> list[Any]:
        graph = compiled(line(("a", say("a")), ("b", say("b")), schema=Deltas))
        for turn in range(4):
            await graph.invoke({"log": [str(turn)]}, THREAD, durability=durability)
        history = await graph.history(THREAD)
        past = history[len(history) // 2]
        forked = await graph.update_state(past.config, {"log": ["fork"]}, as_node="a")
        seen = [await graph.invoke(None, forked, durability=durability), *await story(graph)]
        await graph.invoke({"log": ["on"]}, THREAD, durability=durability)
        return [*seen, *await story(graph)]

    await alike(scenario)


async def test_a_delta_channel_in_a_subgraph_with_a_memory_of_its_own(alike: Alike) -> None:
    async def scenario(compiled: Compile) -> list[Any]:
        inner = line(("s", say("s")), ("ask", ask), schema=Deltas).compile(checkpointer=True)
        graph = compiled(line(("sub", inner), ("b", say("b")), schema=Deltas))
        seen: list[Any] = []
        for turn in ("one", "two", "three"):
            seen.append(await graph.invoke({"log": [turn]}, THREAD))
            seen.append(await graph.get_state(THREAD, subgraphs=True))
            seen.append(await graph.invoke(Command(resume=turn), THREAD))
        return [*seen, *await story(graph)]

    await alike(scenario)


# ---- functions, and runs that could not store a write -------------------------------------------


async def test_functions_remember_their_tasks_and_what_they_returned(alike: Alike) -> None:
    async def scenario(compiled: Compile) -> list[Any]:
        called: list[int] = []

        @task
        def double(number: int) -> int:
            called.append(number)
            return 2 * number

        def flow(numbers: list[int], *, previous: Any = None) -> Any:
            doubled = [each.result() for each in [double(number) for number in numbers]]
            answer = interrupt({"doubled": doubled})
            return entrypoint.final(value=[answer, *doubled], save=sum(doubled) + (previous or 0))

        graph = compiled(_Function(flow))
        seen: list[Any] = []
        for turn in range(2):
            seen.append(await graph.invoke([turn, 5], THREAD))
            seen.append(await graph.invoke(Command(resume="ok"), THREAD))
        return [sorted(called), *seen, *await story(graph)]

    found = await alike(scenario)
    assert found[0] == [0, 1, 5, 5]
    assert (found[2], found[4]) == (["ok", 0, 10], ["ok", 2, 10])


class _Function:
    """Compiles a function as a graph builder compiles its graph."""

    def __init__(self, flow: Any) -> None:
        self._flow = flow

    def compile(self, checkpointer: Any) -> Any:
        return entrypoint(checkpointer=checkpointer)(self._flow)


@pytest.mark.parametrize("durability", ["sync", "async"])
async def test_a_run_whose_write_could_not_be_stored_raises_and_goes_on_from_the_stored_head(
    saver: BaseCheckpointSaver[Any], flavour: Flavour, durability: Any
) -> None:
    values: list[Any] = [2**70, 7]
    builder = StateGraph(Anything)
    builder.add_node("a", lambda state: {"seen": ["a"]})
    builder.add_node("b", lambda state: {"seen": ["b"], "value": values.pop(0)})
    builder.add_edge(START, "a")
    builder.add_edge("a", "b")
    graph = Runs(builder.compile(checkpointer=saver), flavour)
    with pytest.raises(TypeError):
        await graph.invoke({"seen": ["in"]}, THREAD, durability=durability)
    stopped = await graph.get_state(THREAD)
    assert (stopped.values, stopped.next) == ({"seen": ["in", "a"]}, ("b",))
    ended = await graph.invoke(None, THREAD, durability=durability)
    assert ended == {"seen": ["in", "a", "b"], "value": 7}


class Anything(TypedDict, total=False):
    """A state that may hold what no serialiser takes."""

    seen: Annotated[list[str], operator.add]
    value: Any
