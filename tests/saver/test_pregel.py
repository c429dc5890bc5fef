"""Real graphs: each scenario runs on the saver under test and on InMemorySaver, and must be alike.

A scenario is written once and run through the sync and the async half of a graph's API.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, StateUpdate, interrupt

from .likeness import DURABILITIES, THREAD, Alike, Compile, Log, add, ask, line, say, story

pytestmark = pytest.mark.asyncio


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


@pytest.mark.parametrize("again", [None, {"log": ["three"]}])
async def test_an_answer_for_a_turn_that_is_long_over_changes_nothing(
    alike: Alike, again: Any
) -> None:
    """Nothing waits at that checkpoint: the answer is stored there, and no checkpoint is."""

    async def scenario(compiled: Compile) -> list[Any]:
        graph = compiled(line(("a", say("a"))))
        for turn in ("one", "two"):
            await graph.invoke({"log": [turn]}, THREAD)
        over = [state for state in await graph.history(THREAD) if not state.next][-1]
        answered = await graph.invoke(Command(resume="late"), over.config)
        state = await graph.get_state(THREAD)
        then = await graph.invoke(again, THREAD)
        return [answered, state, then, await graph.get_state(over.config), *await story(graph)]

    found = await alike(scenario)
    assert found[0]["log"] == ["one", "a"]
    assert found[1]["values"]["log"] == ["one", "a", "two", "a"]


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
