"""Real graphs: each scenario runs on the saver under test and on InMemorySaver, and must be alike.

A scenario is written once and run through the sync and the async half of a graph's API.
"""

from __future__ import annotations

import asyncio
import operator
import threading
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, RetryPolicy, Send, StateUpdate, interrupt

from .calls import Flavour
from .likeness import THREAD, Compile, Scenario, observe, story

pytestmark = pytest.mark.asyncio

Alike = Callable[[Scenario], Awaitable[list[Any]]]
DURABILITIES = ("sync", "async", "exit")


@pytest.fixture
def alike(saver: BaseCheckpointSaver[Any], flavour: Flavour) -> Alike:
    """Runs a scenario on both savers, compares, and gives what it observed on ours."""

    async def compare(scenario: Scenario) -> list[Any]:
        expected = await observe(InMemorySaver(), flavour, scenario)
        found: list[Any] = await observe(saver, flavour, scenario)
        assert found == expected
        return found

    return compare


class Log(TypedDict, total=False):
    """A list that grows, and a value that is replaced."""

    log: Annotated[list[str], operator.add]
    last: str


def say(word: str) -> Any:
    """A node that appends `word`."""
    return lambda state: {"log": [word], "last": word}


def add(word: str) -> Any:
    """A node that appends `word`, and may do so beside others."""
    return lambda state: {"log": [word]}


def line(*nodes: tuple[str, Any], schema: Any = Log) -> StateGraph[Any]:
    """A graph of nodes one after the other."""
    builder = StateGraph(schema)
    for before, (name, node) in zip([START, *(each[0] for each in nodes)], nodes, strict=False):
        builder.add_node(name, node)
        builder.add_edge(before, name)
    return builder


def ask(state: Log) -> dict[str, Any]:
    """A node that asks a person."""
    answer = interrupt({"about": len(state["log"])})
    return {"log": [f"answer {answer}"]}


# ---- runs, modes, streams -----------------------------------------------------------------------


@pytest.mark.parametrize("durability", DURABILITIES)
async def test_a_run_and_a_second_turn_in_each_durability(alike: Alike, durability: Any) -> None:
    async def scenario(compiled: Compile) -> list[Any]:
        graph = compiled(line(("a", say("a")), ("b", say("b")), ("c", say("c"))))
        first = await graph.invoke({"log": ["one"]}, THREAD, durability=durability)
        second = await graph.invoke({"log": ["two"]}, THREAD, durability=durability)
        return [first, second, *await story(graph)]

    found = await alike(scenario)
    assert found[1]["log"] == ["one", "a", "b", "c", "two", "a", "b", "c"]


@pytest.mark.parametrize("durability", DURABILITIES)
async def test_streams_of_each_mode(alike: Alike, durability: Any) -> None:
    async def scenario(compiled: Compile) -> list[Any]:
        graph = compiled(line(("a", say("a")), ("ask", ask), ("b", say("b"))))
        modes = ["values", "updates", "tasks"]
        options = {"stream_mode": modes, "durability": durability}
        chunks = await graph.stream({"log": ["in"]}, THREAD, **options)
        more = await graph.stream(Command(resume="yes"), THREAD, **options)
        return [*chunks, "then", *more, *await story(graph)]

    await alike(scenario)


async def test_metadata_of_a_run_is_found_by_filter_limit_and_before(alike: Alike) -> None:
    async def scenario(compiled: Compile) -> list[Any]:
        graph = compiled(line(("a", say("a")), ("b", say("b"))))
        for user in ("u1", "u2"):
            config = {"configurable": {**THREAD["configurable"], "user_id": user}, "tags": ["x"]}
            await graph.invoke(
                {"log": [user]}, {**config, "metadata": {"run_id": f"run of {user}"}}
            )
        by_user = await graph.history(THREAD, filter={"user_id": "u1"})
        two = await graph.history(THREAD, limit=2)
        earlier = await graph.history(THREAD, before=two[-1].config, limit=3)
        inputs = await graph.history(THREAD, filter={"source": "input", "run_id": "run of u2"})
        return [by_user, two, earlier, inputs]

    by_user, two, earlier, inputs = await alike(scenario)
    assert (len(by_user), len(two), len(earlier), len(inputs)) == (4, 2, 3, 1)


async def test_threads_that_run_at_once_do_not_mix(alike: Alike) -> None:
    async def scenario(compiled: Compile) -> list[Any]:
        graph = compiled(line(("a", say("a")), ("b", say("b"))))
        configs = [{"configurable": {"thread_id": f"t{each}"}} for each in range(8)]
        await asyncio.gather(
            *(graph.invoke({"log": [str(n)]}, config) for n, config in enumerate(configs))
        )
        return [(await graph.get_state(config)).values for config in configs]

    assert (await alike(scenario))[3] == {"log": ["3", "a", "b"], "last": "b"}


# ---- interrupts ---------------------------------------------------------------------------------


@pytest.mark.parametrize("durability", DURABILITIES)
async def test_an_interrupt_waits_and_a_resume_goes_on(alike: Alike, durability: Any) -> None:
    async def scenario(compiled: Compile) -> list[Any]:
        graph = compiled(line(("a", say("a")), ("ask", ask), ("again", ask), ("b", say("b"))))
        seen = [await graph.invoke({"log": []}, THREAD, durability=durability)]
        for answer in ("yes", "no"):
            seen += await story(graph)
            seen.append(await graph.invoke(Command(resume=answer), THREAD, durability=durability))
        return [*seen, *await story(graph)]

    found = await alike(scenario)
    assert {"log": ["a", "answer yes", "answer no", "b"], "last": "b"} in found


async def test_two_interrupts_of_one_task_keep_their_answers(alike: Alike) -> None:
    async def scenario(compiled: Compile) -> list[Any]:
        def twice(state: Any) -> dict[str, Any]:
            return {"log": [interrupt("first"), interrupt("second")]}

        graph = compiled(line(("twice", twice), ("b", say("b"))))
        seen = [await graph.invoke({"log": []}, THREAD), *await story(graph)]
        seen += [await graph.invoke(Command(resume="1"), THREAD), *await story(graph)]
        return [await graph.invoke(Command(resume="2"), THREAD), *seen, *await story(graph)]

    found = await alike(scenario)
    assert found[0] == {"log": ["1", "2", "b"], "last": "b"}


async def test_parallel_interrupts_are_answered_by_their_ids(alike: Alike) -> None:
    async def scenario(compiled: Compile) -> list[Any]:
        builder = StateGraph(Log)
        for name in ("left", "right", "plain"):
            builder.add_node(name, say("plain") if name == "plain" else ask)
            builder.add_edge(START, name)
        graph = compiled(builder)
        await graph.invoke({"log": []}, THREAD)
        waiting = await graph.get_state(THREAD)
        (left,) = (each for each in waiting.tasks if each.name == "left")
        partly = await graph.invoke(Command(resume={left.interrupts[0].id: "one"}), THREAD)
        rest = {each.id: "two" for each in (await graph.get_state(THREAD)).interrupts}
        return [
            waiting,
            partly,
            await graph.invoke(Command(resume=rest), THREAD),
            *await story(graph),
        ]

    found = await alike(scenario)
    assert found[2]["log"] == ["answer one", "plain", "answer two"]


async def test_static_breakpoints_stop_before_and_after(alike: Alike) -> None:
    async def scenario(compiled: Compile) -> list[Any]:
        nodes = (("a", say("a")), ("b", say("b")), ("c", say("c")))
        graph = compiled(line(*nodes), interrupt_before=["b"], interrupt_after=["b"])
        seen = [await graph.invoke({"log": []}, THREAD)]
        for _ in range(2):
            seen += [(await graph.get_state(THREAD)).next, await graph.invoke(None, THREAD)]
        return [*seen, *await story(graph)]

    assert (await alike(scenario))[4]["log"] == ["a", "b", "c"]


# ---- changing state from outside, and the past --------------------------------------------------


async def test_state_is_updated_from_outside_once_and_in_bulk(alike: Alike) -> None:
    async def scenario(compiled: Compile) -> list[Any]:
        nodes = ((name, add(name)) for name in "abc")
        graph = compiled(line(*nodes), interrupt_before=["b"])
        await graph.invoke({"log": []}, THREAD)
        seen = [await graph.update_state(THREAD, {"log": ["edited"]}, as_node="a")]
        seen += await story(graph)
        updates = [
            [StateUpdate({"log": ["x"]}, "a")],
            [StateUpdate({"log": ["y"]}, "b"), StateUpdate({"log": ["z"]}, "a")],
        ]
        seen.append(await graph.bulk_update_state(THREAD, updates))
        seen.append(await graph.update_state(THREAD, None, as_node="__copy__"))
        seen += await story(graph)
        seen.append(await graph.invoke(None, THREAD))
        seen.append(await graph.update_state(THREAD, None, as_node=END))
        return [*seen, *await story(graph)]

    await alike(scenario)


async def test_a_thread_may_begin_with_an_update(alike: Alike) -> None:
    async def scenario(compiled: Compile) -> list[Any]:
        graph = compiled(line(("a", say("a")), ("b", say("b"))))
        given = await graph.update_state(THREAD, {"log": ["by hand"]}, as_node="a")
        return [given, await graph.invoke(None, given), *await story(graph)]

    found = await alike(scenario)
    assert found[1]["log"] == ["by hand", "b"]


@pytest.mark.parametrize("durability", DURABILITIES)
async def test_time_travel_replays_and_forks(alike: Alike, durability: Any) -> None:
    async def scenario(compiled: Compile) -> list[Any]:
        calls: list[str] = []

        def count(word: str) -> Callable[[Log], dict[str, Any]]:
            def node(state: Log) -> dict[str, Any]:
                calls.append(word)
                return {"log": [word]}

            return node

        graph = compiled(line(("a", count("a")), ("b", count("b")), ("c", count("c"))))
        await graph.invoke({"log": ["in"]}, THREAD)
        past = next(each for each in await graph.history(THREAD) if each.next == ("b",))
        seen = [await graph.invoke(None, past.config, durability=durability), *await story(graph)]
        forked = await graph.update_state(past.config, {"log": ["other"]}, as_node="a")
        seen += [await graph.invoke(None, forked, durability=durability), *await story(graph)]
        seen.append(await graph.invoke({"log": ["new"]}, past.config, durability=durability))
        return [*seen, list(calls), *await story(graph)]

    await alike(scenario)


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


class Deltas(TypedDict, total=False):
    """A list that is stored as its changes, with a snapshot at every third."""

    log: Annotated[
        list[str],
        DeltaChannel(
            lambda state, writes: [*state, *(w for ws in writes for w in ws)], snapshot_frequency=3
        ),
    ]
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
