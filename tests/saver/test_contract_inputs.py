"""What a saver is called with: ids of other types, ids that say nothing, missing ids, live objects.

Every tuple and every returned config has exactly the three keys of the contract.
"""

from __future__ import annotations

import asyncio
import threading
import uuid
from datetime import UTC, datetime
from typing import Any

import pytest

from .calls import Calls
from .shapes import TASK, body, chain, cid, conf, ids, parent_of, store

pytestmark = pytest.mark.asyncio

KEYS = {"thread_id", "checkpoint_ns", "checkpoint_id"}


# ---- ids ----------------------------------------------------------------------------------------


async def test_an_int_thread_id_is_the_thread_of_that_name(calls: Calls) -> None:
    stored = await store(calls, cid(1), thread=7)
    await calls.put_writes(conf(7, "", cid(1)), [("x", 1)], TASK)
    assert stored["configurable"] == {**conf("7", "", cid(1))["configurable"]}
    for thread in (7, "7"):
        found = await calls.read(conf(thread))
        assert found.config == conf("7", "", cid(1))
        assert found.pending_writes == [(TASK, "x", 1)]
        assert ids(await calls.list(conf(thread))) == [cid(1)]
    await calls.delete_thread(7)  # type: ignore[arg-type]
    assert await calls.get_tuple(conf("7")) is None


async def test_a_namespace_of_none_or_none_at_all_is_the_root(calls: Calls) -> None:
    stored = await store(calls, cid(1), ns=None)
    assert stored == conf("t", "", cid(1))
    bare = {"configurable": {"thread_id": "t", "checkpoint_id": cid(1)}}
    await calls.put_writes(conf("t", None, cid(1)), [("x", 1)], TASK)
    await calls.put_writes(bare, [("x", 1), ("y", 2)], TASK)
    for config in (conf("t", None), bare, conf("t", ""), {"configurable": {"thread_id": "t"}}):
        found = await calls.read(config)
        assert found.config == conf("t", "", cid(1))
        assert found.pending_writes == [(TASK, "x", 1), (TASK, "y", 2)]


@pytest.mark.parametrize("nothing", [None, ""])
async def test_a_checkpoint_id_that_says_nothing_is_no_id(calls: Calls, nothing: Any) -> None:
    config = {"configurable": {"thread_id": "t", "checkpoint_ns": "", "checkpoint_id": nothing}}
    await calls.put(config, body(cid(1)), {}, {})
    found = await calls.read(config)
    assert found.checkpoint["id"] == cid(1)
    assert found.parent_config is None
    assert await calls.delta_history(config, ["d"]) == {"d": {"writes": []}}


async def test_a_missing_thread_id_is_a_key_error_everywhere(calls: Calls) -> None:
    bare = {"configurable": {"checkpoint_ns": "", "checkpoint_id": cid(1)}}
    for attempt in (
        lambda: calls.get_tuple(bare),
        lambda: calls.list(bare),
        lambda: calls.put(bare, body(cid(1)), {}, {}),
        lambda: calls.put_writes(bare, [("x", 1)], TASK),
        lambda: calls.delta_history(bare, ["x"]),
    ):
        with pytest.raises(KeyError, match="thread_id"):
            await attempt()
    assert await calls.list(None) == []


@pytest.mark.parametrize("nothing", [{}, {"checkpoint_id": None}, {"checkpoint_id": ""}], ids=str)
async def test_writes_without_a_checkpoint_id_are_a_key_error(calls: Calls, nothing: Any) -> None:
    config = {"configurable": {"thread_id": "t", "checkpoint_ns": "", **nothing}}
    with pytest.raises(KeyError, match="checkpoint_id"):
        await calls.put_writes(config, [("x", 1)], TASK)


@pytest.mark.parametrize(
    "name",
    ["{user-7}:session-3", "a|b:c/d?e#f", "ключ 😀", " space ", "x" * 200, "%00", "../up", "'"],
    ids=ascii,
)
async def test_names_of_threads_and_namespaces_come_back_unchanged(calls: Calls, name: str) -> None:
    ns = f"{name}:1|{name}"
    await store(calls, cid(1), thread=name, ns=ns, values={name: 1}, versions={name: "1"})
    await calls.put_writes(conf(name, ns, cid(1)), [(name, 2)], name, name)
    found = await calls.read(conf(name, ns))
    assert found.config == conf(name, ns, cid(1))
    assert found.checkpoint["channel_values"] == {name: 1}
    assert found.pending_writes == [(name, name, 2)]
    assert [each.config for each in await calls.list(None)] == [conf(name, ns, cid(1))]


async def test_names_that_differ_only_in_form_are_different_threads(calls: Calls) -> None:
    names = ["é", "e\u0301", "E", "e", "e ", " e"]
    for number, name in enumerate(names, 1):
        await store(calls, cid(number), thread=name)
    for number, name in enumerate(names, 1):
        assert ids(await calls.list(conf(name))) == [cid(number)]


# ---- what comes back ----------------------------------------------------------------------------


async def test_configs_have_the_three_keys_and_nothing_of_the_callers(calls: Calls) -> None:
    config = live_config(conf("t", "", None))
    config["configurable"]["checkpoint_id"] = None
    stored = await calls.put(config, body(cid(1)), {}, {})
    assert stored == conf("t", "", cid(1))
    child = live_config(conf("t", "", cid(1)))
    assert await calls.put(child, body(cid(2)), {}, {}) == conf("t", "", cid(2))
    for at in (live_config(conf()), live_config(conf(checkpoint_id=cid(2)))):
        found = await calls.read(at)
        assert found.config == conf("t", "", cid(2))
        assert found.parent_config == conf("t", "", cid(1))
    for listed in await calls.list(live_config(conf())):
        assert listed.config.keys() == {"configurable"}
        assert listed.config["configurable"].keys() == KEYS


def live_config(config: dict[str, Any]) -> dict[str, Any]:
    """A config as a nested graph passes it: full of live objects that nobody can serialise."""
    config["configurable"] |= {
        "__pregel_read": lambda: None,
        "__pregel_checkpointer": threading.Lock(),
        "user_object": object(),
        "checkpoint_map": {"": cid(1)},
    }
    return {**config, "callbacks": [object()], "tags": ["a"], "recursion_limit": 25}


async def test_put_takes_the_config_that_the_last_put_returned(calls: Calls) -> None:
    config: Any = conf()
    for number in (1, 2, 3):
        config = await calls.put(config, body(cid(number)), {}, {})
        await calls.put_writes(config, [("x", number)], TASK)
    parents = {each.checkpoint["id"]: parent_of(each) for each in await calls.list(conf())}
    assert parents == {cid(1): None, cid(2): cid(1), cid(3): cid(2)}
    assert (await calls.read(config)).pending_writes == [(TASK, "x", 3)]


# ---- metadata -----------------------------------------------------------------------------------


async def test_metadata_keeps_unknown_keys_and_nested_values(calls: Calls) -> None:
    metadata = {
        "source": "loop",
        "step": -1,
        "parents": {"": cid(1), "sub": cid(2)},
        "writes": {"legacy": 1},
        "of_a_later_release": [{"deep": [None, True, 1.5]}],
        "run_id": "r",
    }
    await store(calls, cid(1), metadata=metadata)
    assert (await calls.read(conf())).metadata == metadata


async def test_a_stub_of_metadata_is_kept_as_it_is(calls: Calls) -> None:
    await store(calls, cid(1), metadata={"step": -2})
    await store(calls, cid(2), parent=cid(1), metadata={})
    assert [each.metadata for each in await calls.list(conf())] == [{}, {"step": -2}]


async def test_scalars_of_the_config_join_the_metadata_and_replace_nothing(calls: Calls) -> None:
    config: dict[str, Any] = conf("t", "", cid(9))
    config["configurable"] |= {
        "user_id": "u",
        "flag": True,
        "n": 3,
        "ratio": 0.5,
        "both": "configurable",
        "step": 99,
        "none": None,
        "a_list": [1],
        "a_map": {"x": 1},
        "__private": "p",
        "checkpoint_map": {"": cid(1)},
        "langgraph_step": 3,
    }
    config["metadata"] = {"run_id": "r", "both": "metadata", "langgraph_node": "n"}
    config["run_id"] = uuid.uuid4()
    await calls.put(config, body(cid(10)), {"source": "loop", "step": 1}, {})
    assert (await calls.read(conf())).metadata == {
        "source": "loop",
        "step": 1,
        "run_id": "r",
        "both": "metadata",
        "user_id": "u",
        "flag": True,
        "n": 3,
        "ratio": 0.5,
    }


async def test_nul_is_taken_out_of_strings_of_metadata_and_kept_in_values(calls: Calls) -> None:
    config: dict[str, Any] = conf()
    config["configurable"]["user"] = "a\x00b"
    checkpoint = body(cid(1), {"x": "c\x00d"})
    await calls.put(config, checkpoint, {"word": "e\x00f"}, checkpoint["channel_versions"])
    found = await calls.read(conf())
    assert found.metadata == {"user": "ab", "word": "ef"}
    assert found.checkpoint["channel_values"] == {"x": "c\x00d"}


async def test_metadata_that_is_more_than_json_is_kept(calls: Calls) -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    metadata = {"when": moment, "ids": {1, 2}, "word": "w", "raw": b"\xff", "keys": {1: "one"}}
    await store(calls, cid(1), metadata=metadata)
    assert (await calls.read(conf())).metadata == metadata
    assert ids(await calls.list(None, filter={"word": "w"})) == [cid(1)]
    assert ids(await calls.list(None, filter={"word": "other"})) == []


async def test_metadata_that_cannot_be_serialised_fails_in_the_caller(calls: Calls) -> None:
    with pytest.raises(TypeError):
        await store(calls, cid(1), metadata={"too_large": {2**70}})
    assert await calls.get_tuple(conf()) is None


# ---- at once ------------------------------------------------------------------------------------


async def test_many_tasks_write_at_once_and_nothing_is_lost(calls: Calls) -> None:
    await chain(calls, [1])
    at = conf(checkpoint_id=cid(1))
    tasks = [f"{number:032x}" for number in range(100)]
    await asyncio.gather(
        *(calls.put_writes(at, [("x", task), ("y", task)], task) for task in tasks)
    )
    expected = [(task, name, task) for task in tasks for name in ("x", "y")]
    assert (await calls.read(conf())).pending_writes == expected


async def test_many_threads_are_put_at_once_and_kept_apart(calls: Calls) -> None:
    names = [f"thread-{number}" for number in range(40)]
    await asyncio.gather(*(chain(calls, [1, 2, 3], thread=name) for name in names))
    for name in names:
        assert ids(await calls.list(conf(name))) == [cid(3), cid(2), cid(1)]
    assert len(await calls.list(None)) == 120
