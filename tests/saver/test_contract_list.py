"""`list`: what it covers, its order, `before`, `limit`, and filters on metadata.

Filters have the meaning that they have in PostgreSQL's JSON containment: it is the only one of the
released savers' meanings in which a nested filter, a null and a truth value can be told apart.
"""

from __future__ import annotations

from typing import Any

import pytest

from .calls import Calls
from .shapes import TASK, body, chain, cid, conf, ids, parent_of, places, store

pytestmark = pytest.mark.asyncio


async def several(calls: Calls) -> None:
    """Two threads and two namespaces, their ids interleaved."""
    await chain(calls, [1, 5, 9], thread="t")
    await chain(calls, [2, 6], thread="t", ns="sub:1")
    await chain(calls, [3, 7], thread="u")
    await chain(calls, [4, 8], thread="u", ns="sub:1")


PLACES = {
    1: ("t", ""), 5: ("t", ""), 9: ("t", ""), 2: ("t", "sub:1"), 6: ("t", "sub:1"),
    3: ("u", ""), 7: ("u", ""), 4: ("u", "sub:1"), 8: ("u", "sub:1"),
}  # fmt: skip


def expected(*numbers: int) -> list[tuple[str, str, str]]:
    return [(*PLACES[number], cid(number)) for number in numbers]


# ---- coverage and order -------------------------------------------------------------------------


async def test_without_a_config_all_threads_are_listed_by_descending_id(calls: Calls) -> None:
    await several(calls)
    assert places(await calls.list(None)) == expected(9, 8, 7, 6, 5, 4, 3, 2, 1)


async def test_an_empty_config_lists_all_threads(calls: Calls) -> None:
    await several(calls)
    assert len(await calls.list({})) == len(PLACES)


async def test_without_a_namespace_all_of_a_thread_are_listed_by_descending_id(
    calls: Calls,
) -> None:
    await several(calls)
    absent = {"configurable": {"thread_id": "t"}}
    for config in (absent, conf("t", None)):
        assert places(await calls.list(config)) == expected(9, 6, 5, 2, 1)


async def test_the_root_namespace_is_listed_alone_when_it_is_named(calls: Calls) -> None:
    await several(calls)
    assert places(await calls.list(conf("t", ""))) == expected(9, 5, 1)
    assert places(await calls.list(conf("t", "sub:1"))) == expected(6, 2)
    assert await calls.list(conf("t", "sub")) == []
    assert await calls.list(conf("nobody")) == []


async def test_a_checkpoint_id_restricts_the_list_to_it(calls: Calls) -> None:
    await several(calls)
    assert places(await calls.list(conf("t", "", cid(5)))) == expected(5)
    assert await calls.list(conf("t", "", cid(6))) == []
    bare = {"configurable": {"thread_id": "t", "checkpoint_id": cid(6)}}
    assert places(await calls.list(bare)) == expected(6)


@pytest.mark.parametrize("nothing", [None, ""])
async def test_a_checkpoint_id_that_says_nothing_restricts_nothing(
    calls: Calls, nothing: Any
) -> None:
    await several(calls)
    config = {"configurable": {"thread_id": "t", "checkpoint_ns": "", "checkpoint_id": nothing}}
    assert places(await calls.list(config)) == expected(9, 5, 1)


async def test_ids_are_ordered_bytewise(calls: Calls) -> None:
    ordered = ["0-a", "0-b", "00", "A", "Z", "_", "a", "b", "~", "é"]
    for each in (*ordered[1::3], *ordered[::3], *ordered[2::3]):
        await store(calls, each)
    assert ids(await calls.list(conf())) == ordered[::-1]
    below = {"configurable": {"checkpoint_id": "a"}}
    assert ids(await calls.list(conf(), before=below)) == ordered[:6][::-1]


async def test_a_listed_tuple_is_the_tuple_that_a_read_by_its_id_gives(calls: Calls) -> None:
    await several(calls)
    await calls.put_writes(conf("t", "sub:1", cid(2)), [("x", 1), ("y", [2])], TASK, "path")
    for listed in await calls.list(None):
        assert listed == await calls.read(listed.config)
        assert listed.config["configurable"].keys() == {
            "thread_id",
            "checkpoint_ns",
            "checkpoint_id",
        }


async def test_a_list_has_parents_and_pending_writes(calls: Calls) -> None:
    await chain(calls, [1, 2])
    await calls.put_writes(conf(checkpoint_id=cid(1)), [("x", 1)], TASK)
    newest, oldest = await calls.list(conf())
    assert (parent_of(newest), newest.pending_writes) == (cid(1), [])
    assert (parent_of(oldest), oldest.pending_writes) == (None, [(TASK, "x", 1)])


async def test_an_id_of_several_namespaces_is_listed_in_each_wherever_a_page_ends(
    calls: Calls,
) -> None:
    numbers, namespaces = range(1, 35), ("b:2", "a:1", "")
    for ns in namespaces:
        await chain(calls, numbers, ns=ns)
    for config in (None, conf(ns=None)):
        found = await calls.list(config)
        assert ids(found) == [cid(number) for number in reversed(numbers) for _ in namespaces]
        assert len({(c, ns) for _, ns, c in places(found)}) == len(found) == 102


async def test_a_long_list_is_whole_and_each_entry_is_there_once(calls: Calls) -> None:
    numbers = list(range(1, 251))
    await chain(calls, numbers, thread="t")
    await chain(calls, numbers, thread="u")
    found = places(await calls.list(None))
    assert len(found) == len(set(found)) == 500
    assert [at for _, _, at in found] == [cid(number) for number in numbers[::-1] for _ in "tu"]
    assert ids(await calls.list(conf("t"), limit=120)) == [cid(n) for n in range(250, 130, -1)]


# ---- before and limit ---------------------------------------------------------------------------


def before(number: int, **more: Any) -> dict[str, Any]:
    return {"configurable": {"checkpoint_id": cid(number), **more}}


async def test_before_is_strictly_smaller_also_for_an_id_of_another_namespace_or_thread(
    calls: Calls,
) -> None:
    await several(calls)
    assert places(await calls.list(conf("t", ""), before=before(5))) == expected(1)
    # A replay names the id of the root while it lists a subgraph's namespace.
    assert places(await calls.list(conf("t", "sub:1"), before=before(5))) == expected(2)
    assert places(await calls.list(conf("t", "sub:1"), before=before(7))) == expected(6, 2)
    elsewhere = before(8, thread_id="u", checkpoint_ns="sub:1")
    assert places(await calls.list(conf("t", ""), before=elsewhere)) == expected(5, 1)
    assert places(await calls.list(None, before=before(4))) == expected(3, 2, 1)


async def test_before_may_be_an_id_that_nobody_stored(calls: Calls) -> None:
    await several(calls)
    assert places(await calls.list(conf("t", ""), before=before(8))) == expected(5, 1)
    assert await calls.list(conf("t", ""), before=before(0)) == []
    above = {"configurable": {"checkpoint_id": "zzz"}}
    assert places(await calls.list(conf("t", ""), before=above)) == expected(9, 5, 1)


@pytest.mark.parametrize("nothing", [{}, {"checkpoint_id": None}, {"checkpoint_id": ""}], ids=str)
async def test_before_without_an_id_says_nothing(calls: Calls, nothing: dict[str, Any]) -> None:
    await several(calls)
    config = {"configurable": {"thread_id": "t", **nothing}}
    assert places(await calls.list(conf("t", ""), before=config)) == expected(9, 5, 1)


async def test_limit_counts_after_all_filters(calls: Calls) -> None:
    await several(calls)
    await store(calls, cid(10), parent=cid(9), metadata={"odd": 1})
    await store(calls, cid(11), parent=cid(10), metadata={"odd": 0})
    await store(calls, cid(12), parent=cid(11), metadata={"odd": 1})
    assert ids(await calls.list(conf(), filter={"odd": 1}, limit=2)) == [cid(12), cid(10)]
    assert places(await calls.list(None, before=before(8), limit=3)) == expected(7, 6, 5)
    assert places(await calls.list(conf("t", "sub:1"), limit=1)) == expected(6)
    assert len(await calls.list(None, limit=10_000)) == 12


async def test_a_limit_of_zero_gives_nothing(calls: Calls) -> None:
    await several(calls)
    assert await calls.list(None, limit=0) == []
    assert await calls.list(conf("t"), limit=0) == []


async def test_a_negative_limit_is_a_clear_error(calls: Calls) -> None:
    await several(calls)
    with pytest.raises(ValueError, match="limit"):
        await calls.list(conf("t"), limit=-1)


# ---- filters ------------------------------------------------------------------------------------

METADATA: dict[str, Any] = {
    "word": "yes",
    "one": 1,
    "float": 1.5,
    "true": True,
    "null": None,
    "map": {"x": 1, "y": {"z": [1, 2]}},
    "list": [1, 2, {"a": 1, "b": 2}],
    "a.dotted key": "d",
    "ключ'; --": "k",
    "": "empty name",
}

MATCHES: list[dict[str, Any]] = [
    {},
    {"word": "yes"},
    {"one": 1},
    {"one": 1.0},
    {"float": 1.5},
    {"true": True},
    {"null": None},
    {"map": {"x": 1}},
    {"map": {}},
    {"map": {"y": {"z": [2]}}},
    {"list": [2]},
    {"list": []},
    {"list": [2, 1, 1]},
    {"list": [{"b": 2}]},
    {"a.dotted key": "d"},
    {"ключ'; --": "k"},
    {"": "empty name"},
    {"word": "yes", "one": 1, "null": None},
]

MISSES: list[dict[str, Any]] = [
    {"word": "no"},
    {"word": "YES"},
    {"absent": None},
    {"absent": "x"},
    {"one": True},
    {"one": "1"},
    {"true": 1},
    {"true": "true"},
    {"null": False},
    {"null": "null"},
    {"word": None},
    {"map": {"x": 2}},
    {"map": {"x": None}},
    {"map": {"absent": None}},
    {"map": {"y": {"z": [3]}}},
    {"map": []},
    {"list": [3]},
    {"list": {}},
    {"list": [{"b": 1}]},
    {"map.x": 1},
    {"word": "yes", "one": 2},
    {"one": 2, "word": "yes"},
]


@pytest.mark.parametrize("wanted", MATCHES, ids=repr)
async def test_a_filter_matches_what_the_metadata_contains(calls: Calls, wanted: Any) -> None:
    await store(calls, cid(1), metadata=METADATA)
    assert ids(await calls.list(conf(), filter=wanted)) == [cid(1)]
    assert ids(await calls.list(None, filter=wanted)) == [cid(1)]


@pytest.mark.parametrize("wanted", MISSES, ids=repr)
async def test_a_filter_leaves_out_what_the_metadata_does_not_contain(
    calls: Calls, wanted: Any
) -> None:
    await store(calls, cid(1), metadata=METADATA)
    assert ids(await calls.list(conf(), filter=wanted)) == []
    assert ids(await calls.list(None, filter=wanted)) == []


async def test_a_filter_finds_what_a_config_added_to_the_metadata(calls: Calls) -> None:
    config = conf()
    config["configurable"]["user_id"] = "u1"
    config["metadata"] = {"run_id": "r1"}
    await calls.put(config, body(cid(1)), {"step": 1}, {})
    assert ids(await calls.list(None, filter={"user_id": "u1", "run_id": "r1"})) == [cid(1)]
    assert await calls.list(None, filter={"user_id": "u2"}) == []
