"""What a put stores and a read gives back: the rules that no released suite guards, and their kin.

Each test is one fault that a saver could have and still be called conformant.
"""

from __future__ import annotations

import asyncio
import math
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.serde.types import _DeltaSnapshot
from langgraph.types import Send

from .calls import Calls
from .shapes import TASK, body, chain, cid, conf, ids, parent_of, store, version

pytestmark = pytest.mark.asyncio


# ---- newest -------------------------------------------------------------------------------------


async def test_a_checkpoint_put_again_does_not_become_the_newest(calls: Calls) -> None:
    await chain(calls, [1, 2, 3])
    await store(calls, cid(1), values={"n": 1})
    await store(calls, cid(2), parent=cid(1), values={"n": 2})
    assert (await calls.read(conf())).checkpoint["id"] == cid(3)


async def test_a_thread_imported_newest_first_has_its_newest_as_head(calls: Calls) -> None:
    for number in (4, 3, 2):
        await store(calls, cid(number), parent=cid(number - 1))
    await store(calls, cid(1))
    assert (await calls.read(conf())).checkpoint["id"] == cid(4)


async def test_each_namespace_has_a_newest_of_its_own(calls: Calls) -> None:
    await chain(calls, [1, 2])
    await chain(calls, [3, 4], ns="sub")
    await chain(calls, [5], ns="sub|deeper:1")
    assert (await calls.read(conf())).checkpoint["id"] == cid(2)
    assert (await calls.read(conf(ns="sub"))).checkpoint["id"] == cid(4)
    assert (await calls.read(conf(ns="sub|deeper:1"))).checkpoint["id"] == cid(5)
    assert await calls.get_tuple(conf(ns="sub|deeper")) is None


async def test_a_branch_from_an_old_checkpoint_is_the_newest_and_the_other_stays_readable(
    calls: Calls,
) -> None:
    await chain(calls, [1, 2, 3])
    await store(calls, cid(4), parent=cid(1), values={"n": 4})
    assert (await calls.read(conf())).checkpoint["id"] == cid(4)
    assert (await calls.read(conf(checkpoint_id=cid(3)))).checkpoint["channel_values"] == {"n": 3}
    assert ids(await calls.list(conf())) == [cid(4), cid(3), cid(2), cid(1)]


async def test_an_id_that_is_not_stored_is_none_and_never_the_newest(calls: Calls) -> None:
    await chain(calls, [1, 2])
    assert await calls.get_tuple(conf(checkpoint_id=cid(9))) is None
    assert await calls.get_tuple(conf(checkpoint_id="no id at all")) is None
    assert await calls.get_tuple(conf("elsewhere")) is None


async def test_the_parent_is_what_was_given_and_not_the_newest(calls: Calls) -> None:
    await chain(calls, [1, 2])
    await store(calls, cid(3), parent=cid(1))
    await store(calls, cid(4))
    await store(calls, cid(5), parent=cid(99))
    parents = {
        number: parent_of(await calls.read(conf(checkpoint_id=cid(number)))) for number in (3, 4, 5)
    }
    assert parents == {3: cid(1), 4: None, 5: cid(99)}


# ---- values and versions ------------------------------------------------------------------------


async def test_an_empty_version_reads_as_absent_and_not_as_the_older_value(calls: Calls) -> None:
    await store(calls, cid(1), values={"x": "old", "y": 1}, versions={"x": "1.a", "y": "1.b"})
    later = {"x": "2.a", "y": "1.b"}
    await store(calls, cid(2), parent=cid(1), values={"y": 1}, versions=later, new={"x": "2.a"})
    found = (await calls.read(conf())).checkpoint
    assert found["channel_values"] == {"y": 1}
    assert found["channel_versions"] == later


async def test_a_stored_none_reads_as_none(calls: Calls) -> None:
    await store(calls, cid(1), values={"branch:to:b": None})
    assert (await calls.read(conf())).checkpoint["channel_values"] == {"branch:to:b": None}


async def test_a_channel_that_is_not_new_reads_through_its_version(calls: Calls) -> None:
    await store(calls, cid(1), values={"x": [1]}, versions={"x": "1.a"})
    for number in (2, 3, 4):
        values = {"x": [1], "y": number}
        await store(
            calls,
            cid(number),
            parent=cid(number - 1),
            values=values,
            versions={"x": "1.a", "y": f"{number}.b"},
            new={"y": f"{number}.b"},
        )
        assert (await calls.read(conf())).checkpoint["channel_values"] == values


async def test_a_fork_without_new_versions_has_all_values_of_its_source(calls: Calls) -> None:
    """Time travel: the fork's parent is the checkpoint that it repeats."""
    await chain(calls, [1, 2])
    values, versions = {"n": 2}, {"n": version(cid(2))}
    await store(calls, cid(3), parent=cid(2), values=values, versions=versions, new={})
    assert (await calls.read(conf())).checkpoint["channel_values"] == values


async def test_a_copy_under_the_grandparent_has_all_values_of_its_source(calls: Calls) -> None:
    """`update_state(as_node="__copy__")`: no ancestor of the copy lists its version."""
    await chain(calls, [1, 2])
    values, versions = {"n": 2}, {"n": version(cid(2))}
    await store(calls, cid(3), parent=cid(1), values=values, versions=versions, new={})
    assert (await calls.read(conf())).checkpoint["channel_values"] == values


async def test_another_process_forks_without_new_versions(calls: Calls, another: Any) -> None:
    await store(calls, cid(1), values={"x": {"deep": [1, 2]}}, versions={"x": "1.a"})
    other: Calls = another()
    found = await other.read(conf())
    await store(
        other,
        cid(2),
        parent=cid(1),
        values=found.checkpoint["channel_values"],
        versions={"x": "1.a"},
        new={},
    )
    assert (await calls.read(conf(checkpoint_id=cid(2)))).checkpoint["channel_values"] == {
        "x": {"deep": [1, 2]}
    }


async def test_values_put_by_hand_without_new_versions_are_kept(calls: Calls) -> None:
    await store(calls, cid(1), values={"x": [1], "y": "text"}, new={})
    assert (await calls.read(conf())).checkpoint["channel_values"] == {"x": [1], "y": "text"}


async def test_two_branches_that_reuse_a_version_keep_their_own_values(calls: Calls) -> None:
    """Integer versions of threads begun under another saver repeat across branches."""
    await store(calls, cid(1), values={"x": "root"}, versions={"x": 1})
    await store(calls, cid(2), parent=cid(1), values={"x": "left"}, versions={"x": 2})
    await store(calls, cid(3), parent=cid(1), values={"x": "right"}, versions={"x": 2})
    for number, expected in ((1, "root"), (2, "left"), (3, "right")):
        found = await calls.read(conf(checkpoint_id=cid(number)))
        assert found.checkpoint["channel_values"] == {"x": expected}


async def test_a_version_means_the_same_value_only_inside_its_namespace_and_thread(
    calls: Calls,
) -> None:
    for thread, ns in (("t", ""), ("t", "sub"), ("u", "")):
        await store(
            calls, cid(1), values={"x": thread + ns}, versions={"x": 1}, thread=thread, ns=ns
        )
        found = await store(
            calls,
            cid(2),
            parent=cid(1),
            values={"x": thread + ns},
            versions={"x": 1},
            new={},
            thread=thread,
            ns=ns,
        )
        assert (await calls.read(found)).checkpoint["channel_values"] == {"x": thread + ns}


async def test_version_types_are_kept(calls: Calls) -> None:
    versions: dict[str, Any] = {"i": 3, "s": "00000003.0.5", "f": 3.5}
    seen = {"node": {"i": 2}, "__interrupt__": {"s": "00000002.0.1"}, "__input__": {}}
    await store(
        calls, cid(1), values={"i": 1, "s": 1, "f": 1}, versions=versions, versions_seen=seen
    )
    found = (await calls.read(conf())).checkpoint
    assert found["channel_versions"] == versions
    assert {name: type(each) for name, each in found["channel_versions"].items()} == {
        "i": int,
        "s": str,
        "f": float,
    }
    assert found["versions_seen"] == seen


async def test_versions_of_two_branches_differ_and_grow(calls: Calls) -> None:
    next_version = calls.saver.get_next_version
    first = next_version(None, None)
    left, right = next_version(first, None), next_version(first, None)
    assert first < left
    assert first < right
    assert left != right
    assert next_version(7, None) > next_version(None, None)
    # A thread begun under a saver whose counter has more digits goes on growing here.
    for count in (1, 9, 10, 10**6):
        elsewhere = f"{count:032}.{2**62:016}"
        assert elsewhere < next_version(elsewhere, None) < next_version(f"{count + 1:032}.1", None)


async def test_updated_channels_and_unknown_keys_of_a_checkpoint_are_kept(calls: Calls) -> None:
    more: dict[str, Any] = {
        "updated_channels": ["a", "b"],
        "pending_sends": [],
        "of_a_later_release": {"k": [1, None]},
    }
    await store(calls, cid(1), **more)
    for found in (await calls.read(conf()), *await calls.list(conf())):
        assert {name: found.checkpoint[name] for name in more} == more  # type: ignore[literal-required]
        assert found.checkpoint["v"] == 4
        assert found.checkpoint["ts"] == "2026-01-01T00:00:00+00:00"


@dataclass
class Point:
    """A user's own type."""

    x: int
    y: int


VALUES: dict[str, Any] = {
    "set": {1, 2},
    "int keys": {1: "one", 2: {3: "three"}},
    "bytes": b"\x00\xff",
    "bytearray": bytearray(b"ab"),
    "datetime": datetime(2026, 1, 2, 3, 4, 5, 6, UTC),
    "decimal": Decimal("1.10"),
    "uuid": uuid.UUID(int=7),
    "nul": "a\x00b",
    "wide": "\U0001f600\uffee",
    "snapshot": _DeltaSnapshot(["x"]),
    "send": Send("node", {"a": 1}),
    "message": AIMessage("hello", id="1"),
    "dataclass": Point(1, 2),
    "large": "x" * 300_000,
    "empty": "",
    "infinite": math.inf,
}


@pytest.mark.parametrize("kind", VALUES)
async def test_values_come_back_with_their_types(calls: Calls, kind: str) -> None:
    await store(calls, cid(1), values={"x": VALUES[kind]})
    await calls.put_writes(conf(checkpoint_id=cid(1)), [("x", VALUES[kind])], TASK)
    found = await calls.read(conf())
    assert found.checkpoint["channel_values"] == {"x": VALUES[kind]}
    assert found.pending_writes == [(TASK, "x", VALUES[kind])]
    assert type(found.checkpoint["channel_values"]["x"]) is type(VALUES[kind])


@pytest.mark.parametrize(
    "value", ["\ud800 alone", (1, 2), float("nan"), ValueError("boom")], ids=repr
)
async def test_a_value_comes_back_as_the_serialiser_would_give_it(calls: Calls, value: Any) -> None:
    expected = calls.saver.serde.loads_typed(calls.saver.serde.dumps_typed(value))
    await store(calls, cid(1), values={"x": value})
    assert repr((await calls.read(conf())).checkpoint["channel_values"]["x"]) == repr(expected)


async def test_a_value_that_cannot_be_serialised_fails_in_the_caller_and_names_its_channel(
    calls: Calls,
) -> None:
    await chain(calls, [1])
    bad = {"fine": 1, "the_bad_one": {"deep": [2**70]}}
    with pytest.raises(TypeError) as put_error:
        await store(calls, cid(2), parent=cid(1), values=bad)
    with pytest.raises(TypeError) as write_error:
        await calls.put_writes(conf(checkpoint_id=cid(1)), [("the_bad_one", 2**70)], TASK)
    found = await calls.read(conf())
    assert (found.checkpoint["id"], found.pending_writes) == (cid(1), [])
    for error in (put_error.value, write_error.value):
        assert "the_bad_one" in " ".join((str(error), *getattr(error, "__notes__", ())))


# ---- when a value is taken ----------------------------------------------------------------------


async def test_a_value_that_changes_after_the_put_returned_is_stored_as_it_was(
    calls: Calls,
) -> None:
    live = {"list": [1]}
    await store(calls, cid(1), values=live)
    await calls.put_writes(conf(checkpoint_id=cid(1)), [("x", live)], TASK)
    live["list"].append(2)
    found = await calls.read(conf())
    assert found.checkpoint["channel_values"] == {"list": [1]}
    assert found.pending_writes == [(TASK, "x", {"list": [1]})]


async def test_a_value_that_changes_while_a_put_is_on_its_way_is_stored_as_it_was(
    saver: BaseCheckpointSaver[Any],
) -> None:
    """Pregel starts a put, and the next superstep changes the very objects that it was given.

    Only the async half can show it: there the moment after the start is the caller's own.
    """
    live = {"x": [1]}
    whole: Any = body(cid(1), live)
    at: Any = conf(checkpoint_id=cid(1))
    put = asyncio.ensure_future(saver.aput(conf(), whole, {}, whole["channel_versions"]))  # type: ignore[arg-type]
    write = asyncio.ensure_future(saver.aput_writes(at, [("x", live)], TASK))
    await asyncio.sleep(0)  # Both have started, neither can be done.
    live["x"].append(2)
    await asyncio.gather(put, write)
    found = await saver.aget_tuple(at)
    assert found is not None
    assert found.checkpoint["channel_values"] == {"x": [1]}
    assert found.pending_writes == [(TASK, "x", {"x": [1]})]


async def test_what_was_read_belongs_to_the_reader(calls: Calls) -> None:
    await store(calls, cid(1), values={"x": [1]}, versions_seen={"n": {"x": 1}})
    await calls.put_writes(conf(checkpoint_id=cid(1)), [("x", [1])], TASK)
    for at in (conf(), conf(checkpoint_id=cid(1))):
        taken = await calls.read(at)
        taken.checkpoint["channel_values"]["x"].append(2)
        taken.checkpoint["channel_versions"].clear()
        taken.checkpoint["versions_seen"]["n"]["x"] = 9
        taken.metadata["step"] = 99
        taken.pending_writes[0][2].append(2)  # type: ignore[index]
        taken.config["configurable"]["checkpoint_id"] = "changed"
    for again in (await calls.read(conf()), *await calls.list(conf())):
        assert again.checkpoint["channel_values"] == {"x": [1]}
        assert again.checkpoint["channel_versions"] == {"x": version(cid(1))}
        assert again.checkpoint["versions_seen"] == {"n": {"x": 1}}
        assert again.metadata["step"] == 1
        assert again.pending_writes == [(TASK, "x", [1])]
        assert ids([again]) == [cid(1)]


async def test_a_put_changes_nothing_that_it_was_given(calls: Calls) -> None:
    given: Any = (
        conf(checkpoint_id=cid(7)),
        body(cid(1), {"x": [1]}),
        {"source": "loop"},
        {"x": "1.a"},
    )
    before = repr(given)
    await calls.put(*given)
    assert repr(given) == before


# ---- the same id twice --------------------------------------------------------------------------


async def test_a_second_put_of_an_id_replaces_the_first_and_keeps_its_writes(calls: Calls) -> None:
    await chain(calls, [1])
    await store(
        calls,
        cid(2),
        parent=cid(1),
        values={"x": "old"},
        versions={"x": "1.a"},
        metadata={"step": 1, "gone": 1},
    )
    await calls.put_writes(conf(checkpoint_id=cid(2)), [("x", 1)], TASK)
    await store(
        calls,
        cid(2),
        parent=cid(1),
        values={"x": "new"},
        versions={"x": "2.a"},
        metadata={"step": 2},
    )
    found = await calls.read(conf())
    assert found.checkpoint["channel_values"] == {"x": "new"}
    assert found.metadata == {"step": 2}
    assert found.pending_writes == [(TASK, "x", 1)]
    assert parent_of(found) == cid(1)
    assert ids(await calls.list(conf())) == [cid(2), cid(1)]


async def test_a_second_put_of_an_id_may_change_its_parent(calls: Calls) -> None:
    await chain(calls, [1, 2])
    await store(calls, cid(3), parent=cid(2))
    await store(calls, cid(3), parent=cid(1))
    assert parent_of(await calls.read(conf(checkpoint_id=cid(3)))) == cid(1)


# ---- between processes --------------------------------------------------------------------------


async def test_each_process_reads_what_the_other_one_wrote_last(calls: Calls, another: Any) -> None:
    hands: list[Calls] = [calls, another()]
    parent = None
    for number in range(1, 9):
        writer, reader = hands[number % 2], hands[1 - number % 2]
        await store(writer, cid(number), parent=parent, values={"n": number})
        await writer.put_writes(conf(checkpoint_id=cid(number)), [("x", number)], TASK)
        found = await reader.read(conf())
        assert found.checkpoint["channel_values"] == {"n": number}
        assert found.pending_writes == [(TASK, "x", number)]
        parent = cid(number)
