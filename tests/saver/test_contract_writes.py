"""Pending writes: first or last wins, positions, order, and writes before their checkpoint."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from langgraph.checkpoint.base import WRITES_IDX_MAP, BaseCheckpointSaver
from langgraph.types import Interrupt, Overwrite, Send

from .calls import Calls
from .shapes import NULL_TASK, OTHER_TASK, TASK, chain, cid, conf, store

pytestmark = pytest.mark.asyncio

AT = conf(checkpoint_id=cid(1))
SPECIAL = sorted(WRITES_IDX_MAP)
REGULAR = ("plain", "__error_source_node__", "__no_writes__", "__return__", "__pregel_tasks")


async def pending(calls: Calls, at: Any = AT) -> Any:
    """The writes of a checkpoint; a list and the read by id must agree on them."""
    found = await calls.read(at)
    (listed,) = await calls.list(at)
    assert listed.pending_writes == found.pending_writes
    return found.pending_writes


@pytest.mark.parametrize("channel", REGULAR)
async def test_the_first_regular_write_at_a_position_wins(calls: Calls, channel: str) -> None:
    await chain(calls, [1])
    await calls.put_writes(AT, [(channel, "first")], TASK)
    await calls.put_writes(AT, [(channel, "second")], TASK)
    await calls.put_writes(AT, [("another channel", "third")], TASK)
    assert await pending(calls) == [(TASK, channel, "first")]


@pytest.mark.parametrize("channel", SPECIAL)
async def test_the_last_special_write_wins(calls: Calls, channel: str) -> None:
    await chain(calls, [1])
    for value in ("first", "second", "third"):
        await calls.put_writes(AT, [(channel, value)], TASK)
    assert await pending(calls) == [(TASK, channel, "third")]


async def test_a_longer_second_call_adds_only_what_is_new(calls: Calls) -> None:
    """The null task: each call repeats all that it wrote before, and positions stay put."""
    await chain(calls, [1])
    await calls.put_writes(AT, [("a", 1)], NULL_TASK)
    await calls.put_writes(AT, [("a", 1), ("b", 2)], NULL_TASK)
    await calls.put_writes(AT, [("a", "changed"), ("b", "changed"), ("c", 3)], NULL_TASK)
    assert await pending(calls) == [(NULL_TASK, "a", 1), (NULL_TASK, "b", 2), (NULL_TASK, "c", 3)]


async def test_a_mixed_call_keeps_the_first_of_each_regular_and_the_last_of_each_special(
    calls: Calls,
) -> None:
    await chain(calls, [1])
    await calls.put_writes(AT, [("x", 1), ("__resume__", "A"), ("y", 1)], TASK)
    await calls.put_writes(AT, [("x", 2), ("__resume__", "B"), ("y", 2)], TASK)
    assert await pending(calls) == [(TASK, "__resume__", "B"), (TASK, "x", 1), (TASK, "y", 1)]


async def test_special_writes_have_positions_of_their_own_and_move_no_other(calls: Calls) -> None:
    await chain(calls, [1])
    await calls.put_writes(AT, [("__interrupt__", "i"), ("x", 1)], TASK)
    await calls.put_writes(AT, [("before x", 0), ("lost, x stands here", 2)], TASK)
    await calls.put_writes(AT, [("__error__", "e")], TASK)
    assert await pending(calls) == [
        (TASK, "__interrupt__", "i"),
        (TASK, "__error__", "e"),
        (TASK, "before x", 0),
        (TASK, "x", 1),
    ]


async def test_of_one_special_channel_twice_in_a_call_the_last_stays(calls: Calls) -> None:
    await chain(calls, [1])
    await calls.put_writes(AT, [("__resume__", "A"), ("x", 1), ("__resume__", "B")], TASK)
    assert await pending(calls) == [(TASK, "__resume__", "B"), (TASK, "x", 1)]


async def test_one_channel_twice_in_a_call_is_two_writes(calls: Calls) -> None:
    await chain(calls, [1])
    await calls.put_writes(AT, [("x", 1), ("x", 1)], TASK)
    assert await pending(calls) == [(TASK, "x", 1), (TASK, "x", 1)]


async def test_tasks_do_not_share_positions(calls: Calls) -> None:
    await chain(calls, [1])
    await calls.put_writes(AT, [("x", 1), ("__resume__", 1)], TASK)
    await calls.put_writes(AT, [("x", 2), ("__resume__", 2)], OTHER_TASK)
    assert await pending(calls) == [
        (TASK, "__resume__", 1),
        (TASK, "x", 1),
        (OTHER_TASK, "__resume__", 2),
        (OTHER_TASK, "x", 2),
    ]


async def test_an_empty_list_of_writes_is_accepted_and_leaves_nothing(calls: Calls) -> None:
    await calls.put_writes(AT, [], TASK)
    await chain(calls, [1])
    await calls.put_writes(AT, [], TASK)
    assert await pending(calls) == []
    await calls.put_writes(AT, [("x", 1)], TASK)
    await calls.put_writes(AT, [], TASK)
    assert await pending(calls) == [(TASK, "x", 1)]


async def test_writes_without_a_checkpoint_wait_for_it(calls: Calls) -> None:
    await chain(calls, [1])
    at = conf(checkpoint_id=cid(2))
    await calls.put_writes(at, [("x", "first")], TASK)
    await calls.put_writes(at, [("__resume__", "A")], TASK)
    assert await calls.get_tuple(at) is None
    assert (await calls.read(conf())).checkpoint["id"] == cid(1)
    await calls.put_writes(at, [("x", "second")], TASK)
    await calls.put_writes(at, [("__resume__", "B")], TASK)
    await store(calls, cid(2), parent=cid(1))
    assert await pending(calls, at) == [(TASK, "__resume__", "B"), (TASK, "x", "first")]
    await calls.put_writes(at, [("x", "third")], TASK)
    assert await pending(calls, at) == [(TASK, "__resume__", "B"), (TASK, "x", "first")]


async def test_the_first_call_on_a_thread_may_be_a_write(calls: Calls) -> None:
    await calls.put_writes(AT, [("x", 1)], TASK)
    assert await calls.get_tuple(conf()) is None
    assert await calls.list(conf()) == []
    await store(calls, cid(1))
    assert await pending(calls) == [(TASK, "x", 1)]


async def test_another_process_brings_the_checkpoint_of_waiting_writes(
    calls: Calls, another: Any
) -> None:
    await calls.put_writes(AT, [("x", 1)], TASK)
    other: Calls = another()
    await store(other, cid(1))
    assert await pending(other) == [(TASK, "x", 1)]
    assert await pending(calls) == [(TASK, "x", 1)]


async def test_a_later_checkpoint_neither_inherits_nor_clears_writes(calls: Calls) -> None:
    await chain(calls, [1])
    await calls.put_writes(AT, [("x", 1)], TASK)
    await chain(calls, [2], parent=cid(1))
    assert await pending(calls, conf(checkpoint_id=cid(2))) == []
    assert await pending(calls) == [(TASK, "x", 1)]
    await calls.put_writes(AT, [("late", 2)], OTHER_TASK)
    assert await pending(calls) == [(TASK, "x", 1), (OTHER_TASK, "late", 2)]
    assert (await calls.read(conf())).pending_writes == []


async def test_writes_belong_to_their_namespace_thread_and_checkpoint(calls: Calls) -> None:
    places = [("t", "", 1), ("t", "", 2), ("t", "sub:1", 1), ("u", "", 1)]
    for thread, ns, number in places:
        await store(calls, cid(number), thread=thread, ns=ns)
        at = conf(thread, ns, cid(number))
        await calls.put_writes(at, [("x", [thread, ns, number])], TASK)
    for thread, ns, number in places:
        found = await pending(calls, conf(thread, ns, cid(number)))
        assert found == [(TASK, "x", [thread, ns, number])]


ORDER = [
    # (task path, task id), as code points order them: neither locale, case nor UTF-16 has a say
    ("", "f0"),
    (" ", "01"),
    ("A", "02"),
    ("B", "03"),
    ("a", "04"),
    ("a", "04-"),
    ("a", "E4"),
    ("a", "e4"),
    ("a", "~"),
    ("aa", "05"),
    ("~", "06"),
    ("~~late", "07"),
    ("é", "08"),
    ("\uffee", "09"),
    ("\U0001f600", "0a"),
]


@pytest.mark.parametrize("turn", range(3))
async def test_writes_are_sorted_by_path_and_task_in_code_point_order(
    calls: Calls, turn: int
) -> None:
    await chain(calls, [1])
    arrivals = (ORDER, ORDER[::-1], ORDER[1::2] + ORDER[::2])[turn]
    for path, task in arrivals:
        await calls.put_writes(AT, [("x", [path, task])], task, path)
    assert [tuple(value) for _, _, value in await pending(calls)] == ORDER


async def test_a_write_is_a_tuple_in_a_list_and_no_writes_are_an_empty_list(calls: Calls) -> None:
    await chain(calls, [1])
    assert await pending(calls) == []
    await calls.put_writes(AT, [("x", 1)], TASK)
    found = await pending(calls)
    assert type(found) is list
    assert [type(each) for each in found] == [tuple]


async def test_the_path_of_a_task_is_a_parameter_with_that_name(
    saver: BaseCheckpointSaver[Any],
) -> None:
    """Pregel looks for the name in the signature, and leaves the path out where it is not there."""
    for method in (saver.put_writes, saver.aput_writes):
        assert list(inspect.signature(method).parameters)[:4] == [
            "config",
            "writes",
            "task_id",
            "task_path",
        ]
        kinds = {each.kind for each in inspect.signature(method).parameters.values()}
        assert inspect.Parameter.VAR_POSITIONAL not in kinds


async def test_what_tasks_write_comes_back_as_the_serialiser_would_give_it(calls: Calls) -> None:
    writes: list[tuple[str, Any]] = [
        ("__pregel_tasks", Send("node", {"k": (1, 2)})),
        ("x", Overwrite([1])),
        ("none", None),
        ("__interrupt__", (Interrupt(value="approve?", id="1"),)),
        ("__error__", ValueError("boom")),
        ("__scheduled__", None),
    ]
    await chain(calls, [1])
    await calls.put_writes(AT, writes, TASK)
    serde = calls.saver.serde
    expected = {
        channel: repr(serde.loads_typed(serde.dumps_typed(value))) for channel, value in writes
    }
    assert {channel: repr(value) for _, channel, value in await pending(calls)} == expected


async def test_many_writes_of_one_call_keep_their_order(calls: Calls) -> None:
    await chain(calls, [1])
    writes = [(f"c{number % 7}", number) for number in range(500)]
    await calls.put_writes(AT, writes, TASK)
    assert [(name, value) for _, name, value in await pending(calls)] == writes
