"""Delta channel history: the seed of a channel, and the writes since, along the parents.

Written from the contract, since the released conformance suite has no tests for it. The default
implementation of the base class, which costs a read for each ancestor, is the oracle on random
trees; a model that knows only the order of the puts is a second one.
"""

from __future__ import annotations

import random
from typing import Any

import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.serde.types import _DeltaSnapshot

from .calls import Calls
from .shapes import OTHER_TASK, TASK, cid, conf, store

pytestmark = pytest.mark.asyncio


async def grow(calls: Calls, length: int, *, thread: str = "t", ns: str = "") -> None:
    """A chain of checkpoints 1..length, each (but the last) with the write that led to the next."""
    for number in range(1, length + 1):
        parent = cid(number - 1) if number > 1 else None
        await store(calls, cid(number), parent=parent, thread=thread, ns=ns)
        if number < length:
            await write(calls, number, f"w{number}", thread=thread, ns=ns)


async def write(
    calls: Calls,
    number: int,
    value: Any,
    *,
    channel: str = "d",
    task: str = TASK,
    path: str = "",
    thread: str = "t",
    ns: str = "",
) -> None:
    await calls.put_writes(conf(thread, ns, cid(number)), [(channel, value)], task, path)


async def history(calls: Calls, number: int | None, channel: str = "d", **where: Any) -> Any:
    """The entry of one channel, its writes reduced to their values."""
    target = conf(**where, checkpoint_id=None if number is None else cid(number))
    entry = (await calls.delta_history(target, [channel]))[channel]
    return {**entry, "writes": [value for _, _, value in entry["writes"]]}


async def test_the_writes_of_all_ancestors_come_oldest_first(calls: Calls) -> None:
    await grow(calls, 4)
    assert await history(calls, 4) == {"writes": ["w1", "w2", "w3"]}


async def test_a_write_is_a_tuple_of_task_channel_and_value(calls: Calls) -> None:
    await grow(calls, 2)
    found = await calls.delta_history(conf(checkpoint_id=cid(2)), ["d"])
    assert found["d"]["writes"] == [(TASK, "d", "w1")]
    assert type(found["d"]["writes"]) is list
    assert type(found["d"]["writes"][0]) is tuple


async def test_the_targets_own_writes_are_left_out(calls: Calls) -> None:
    await grow(calls, 3)
    await write(calls, 3, "pending")
    assert await history(calls, 3) == {"writes": ["w1", "w2"]}


async def test_the_seed_is_the_nearest_stored_value_and_its_own_writes_follow_it(
    calls: Calls,
) -> None:
    await store(calls, cid(1), values={"d": _DeltaSnapshot(["old"])})
    await write(calls, 1, "before the seed")
    await store(calls, cid(2), parent=cid(1), values={"d": _DeltaSnapshot(["seed"])})
    await write(calls, 2, "the seed's own")
    await store(calls, cid(3), parent=cid(2))
    await write(calls, 3, "after")
    await store(calls, cid(4), parent=cid(3))
    found = await history(calls, 4)
    assert found == {"writes": ["the seed's own", "after"], "seed": _DeltaSnapshot(["seed"])}
    assert type(found["seed"]) is _DeltaSnapshot


async def test_the_targets_own_value_is_no_seed(calls: Calls) -> None:
    await grow(calls, 2)
    await store(calls, cid(3), parent=cid(2), values={"d": _DeltaSnapshot(["mine"])})
    assert await history(calls, 3) == {"writes": ["w1"]}


@pytest.mark.parametrize("plain", [["a", "b"], {"k": 1}, "text", 0, "", [], False])
async def test_a_plain_value_is_a_seed_too(calls: Calls, plain: Any) -> None:
    await store(calls, cid(1), values={"d": plain})
    await write(calls, 1, "w1")
    await store(calls, cid(2), parent=cid(1))
    assert await history(calls, 2) == {"writes": ["w1"], "seed": plain}


async def test_a_stored_none_is_a_seed_and_an_empty_version_is_not(calls: Calls) -> None:
    await store(calls, cid(1), values={"d": None})
    await store(calls, cid(2), parent=cid(1), versions={"d": "2.0"})
    await write(calls, 2, "w2")
    await store(calls, cid(3), parent=cid(2))
    assert await history(calls, 3) == {"writes": ["w2"], "seed": None}


async def test_a_version_without_a_value_does_not_stop_the_walk(calls: Calls) -> None:
    await store(calls, cid(1), values={"d": _DeltaSnapshot(["seed"])})
    await write(calls, 1, "w1")
    # Named as new, but empty; and named, but never put by anybody.
    await store(calls, cid(2), parent=cid(1), versions={"d": "2.0"}, new={"d": "2.0"})
    await write(calls, 2, "w2")
    await store(calls, cid(3), parent=cid(2), versions={"d": "3.0"}, new={})
    await write(calls, 3, "w3")
    await store(calls, cid(4), parent=cid(3))
    assert await history(calls, 4) == {
        "writes": ["w1", "w2", "w3"],
        "seed": _DeltaSnapshot(["seed"]),
    }


async def test_a_seed_is_found_through_a_version_that_an_older_checkpoint_stored(
    calls: Calls,
) -> None:
    await store(calls, cid(1), values={"d": ["seed"]}, versions={"d": "1.0"})
    await write(calls, 1, "w1")
    await store(calls, cid(2), parent=cid(1), values={"d": ["seed"]}, versions={"d": "1.0"}, new={})
    await write(calls, 2, "w2")
    await store(calls, cid(3), parent=cid(2))
    assert await history(calls, 3) == {"writes": ["w2"], "seed": ["seed"]}


async def test_a_fork_sees_its_own_parents_and_not_what_lies_between_by_id(calls: Calls) -> None:
    await grow(calls, 3)
    await store(calls, cid(9), parent=cid(1))
    await write(calls, 9, "w9")
    await store(calls, cid(10), parent=cid(9))
    assert await history(calls, 10) == {"writes": ["w1", "w9"]}
    assert await history(calls, 3) == {"writes": ["w1", "w2"]}


async def test_parents_are_followed_also_where_their_ids_are_greater(calls: Calls) -> None:
    await store(calls, cid(8))
    await write(calls, 8, "first")
    await store(calls, cid(5), parent=cid(8))
    await write(calls, 5, "second")
    await store(calls, cid(2), parent=cid(5))
    assert await history(calls, 2) == {"writes": ["first", "second"]}


async def test_each_channel_stops_on_its_own(calls: Calls) -> None:
    await store(calls, cid(1), values={"far": ["far"]})
    await write(calls, 1, "f1", channel="far")
    await write(calls, 1, "n1", channel="near", task=OTHER_TASK)
    await store(calls, cid(2), parent=cid(1), values={"near": ["near"]})
    await write(calls, 2, "f2", channel="far")
    await write(calls, 2, "n2", channel="near", task=OTHER_TASK)
    await store(calls, cid(3), parent=cid(2))
    found = await calls.delta_history(conf(checkpoint_id=cid(3)), ["near", "far", "never"])
    assert found == {
        "near": {"writes": [(OTHER_TASK, "near", "n2")], "seed": ["near"]},
        "far": {"writes": [(TASK, "far", "f1"), (TASK, "far", "f2")], "seed": ["far"]},
        "never": {"writes": []},
    }
    assert list(found) == ["near", "far", "never"]


async def test_inside_a_checkpoint_writes_go_by_path_then_task_then_position(calls: Calls) -> None:
    await store(calls, cid(1))
    at = conf(checkpoint_id=cid(1))
    # A task's writes keep the position that they had, and a path goes by its code points.
    await calls.put_writes(at, [("d", 7)], "0" * 32, "~~late")
    await calls.put_writes(at, [("d", 5), ("x", None), ("d", 6)], "1" * 32, "b")
    await calls.put_writes(at, [("d", 3)], "f" * 32, "B")
    await calls.put_writes(at, [("d", 4)], "2" * 32, "a")
    await calls.put_writes(at, [("d", 2)], "e" * 32, "")
    await calls.put_writes(at, [("d", 1)], "3" * 32, "")
    await store(calls, cid(2), parent=cid(1))
    assert await history(calls, 2) == {"writes": [1, 2, 3, 4, 5, 6, 7]}


async def test_without_an_id_the_target_is_the_newest(calls: Calls) -> None:
    await grow(calls, 3)
    for unnamed in (conf(), conf(checkpoint_id=""), {"configurable": {"thread_id": "t"}}):
        found = await calls.delta_history(unnamed, ["d"])
        assert [value for _, _, value in found["d"]["writes"]] == ["w1", "w2"]


async def test_namespaces_and_threads_are_kept_apart(calls: Calls) -> None:
    await grow(calls, 2)
    await grow(calls, 3, ns="sub:1")
    await grow(calls, 4, thread="u")
    assert await history(calls, 2) == {"writes": ["w1"]}
    assert await history(calls, None, ns="sub:1") == {"writes": ["w1", "w2"]}
    assert await history(calls, None, thread="u") == {"writes": ["w1", "w2", "w3"]}
    # A config without a namespace means the root.
    bare = {"configurable": {"thread_id": "u", "checkpoint_id": cid(2)}}
    assert (await calls.delta_history(bare, ["d"]))["d"]["writes"] == [(TASK, "d", "w1")]


async def test_a_parent_that_was_never_stored_ends_the_walk(calls: Calls) -> None:
    await write(calls, 1, "an orphan's")
    await store(calls, cid(2), parent=cid(1))
    await write(calls, 2, "w2")
    await store(calls, cid(3), parent=cid(2))
    assert await history(calls, 3) == {"writes": ["w2"]}


async def test_a_loop_of_parents_ends_the_walk(calls: Calls) -> None:
    await store(calls, cid(1), parent=cid(2))
    await write(calls, 1, "w1")
    await store(calls, cid(2), parent=cid(1))
    await write(calls, 2, "w2")
    await store(calls, cid(3), parent=cid(2))
    assert await history(calls, 3) == {"writes": ["w1", "w2"]}


async def test_no_channels_unknown_threads_and_unknown_ids_have_an_empty_history(
    calls: Calls,
) -> None:
    await grow(calls, 2)
    assert await calls.delta_history(conf(checkpoint_id=cid(2)), []) == {}
    assert await calls.delta_history(conf("nobody"), ["d"]) == {"d": {"writes": []}}
    assert await calls.delta_history(conf(checkpoint_id=cid(77)), ["d"]) == {"d": {"writes": []}}
    assert await calls.delta_history(conf(checkpoint_id=cid(1)), ["d"]) == {"d": {"writes": []}}


async def test_counters_since_the_last_snapshot_are_kept_in_metadata(calls: Calls) -> None:
    counters = {"d": [3, 17]}
    metadata = {"source": "loop", "step": 1, "counters_since_delta_snapshot": {"d": (3, 17)}}
    await store(calls, cid(1), metadata=metadata)
    found = (await calls.read(conf())).metadata["counters_since_delta_snapshot"]
    assert {name: list(pair) for name, pair in found.items()} == counters


async def test_a_long_history_is_whole_and_in_order(calls: Calls) -> None:
    await grow(calls, 300)
    found = await history(calls, 300)
    assert found == {"writes": [f"w{number}" for number in range(1, 300)]}


def seeds_of(rng: random.Random, number: int) -> dict[str, Any]:
    """Values that a random checkpoint stores: a snapshot now and then, a plain value rarely."""
    made: dict[str, Any] = {}
    for channel in ("d", "e"):
        drawn = rng.random()
        if drawn < 0.15:
            made[channel] = _DeltaSnapshot([f"s{number}"])
        elif drawn < 0.2:
            made[channel] = [f"p{number}"]
    return made


class Tree:
    """A random forest of checkpoints with writes, and what the contract says of it."""

    def __init__(self, seed: int, size: int) -> None:
        rng = random.Random(seed)
        numbers = rng.sample(range(1, 10 * size), size)
        self.parent: dict[int, int | None] = {}
        self.values: dict[int, dict[str, Any]] = {}
        self.writes: dict[int, list[tuple[str, str, str, Any]]] = {}
        for number in numbers:
            before = list(self.parent)
            near = before[-3:] if rng.random() < 0.8 else before
            self.parent[number] = rng.choice(near) if near and rng.random() < 0.95 else None
            self.values[number] = seeds_of(rng, number)
            self.writes[number] = [
                (rng.choice(("", "a", "b", "~~c")), f"{rng.getrandbits(128):032x}", channel, value)
                for value in range(rng.randrange(4))
                for channel in (rng.choice(("d", "e")),)
            ]

    async def plant(self, calls: Calls, thread: str) -> None:
        for number, parent in self.parent.items():
            above = None if parent is None else cid(parent)
            await store(calls, cid(number), parent=above, values=self.values[number], thread=thread)
            for path, task, channel, value in self.writes[number]:
                at = conf(thread, "", cid(number))
                await calls.put_writes(at, [(channel, value)], task, path)

    def says(self, number: int, channel: str) -> dict[str, Any]:
        """The history by the words of the contract, from what was planted alone."""
        parts: list[list[tuple[str, str, Any]]] = []
        at = self.parent[number]
        while at is not None:
            ordered = sorted(self.writes[at])
            parts.append([(task, name, value) for _, task, name, value in ordered])
            if channel in self.values[at]:
                break
            at = self.parent[at]
        flat = [each for part in reversed(parts) for each in part if each[1] == channel]
        return {"writes": flat} | ({} if at is None else {"seed": self.values[at][channel]})


@pytest.mark.parametrize("seed", range(6))
async def test_random_trees_agree_with_the_default_implementation_and_with_a_model(
    calls: Calls, seed: int
) -> None:
    tree, thread = Tree(seed, size=25), f"tree-{seed}"
    await tree.plant(calls, thread)
    for number in tree.parent:
        at = conf(thread, "", cid(number))
        found = await calls.delta_history(at, ["d", "e"])
        expected = {channel: tree.says(number, channel) for channel in ("d", "e")}
        assert found == expected, f"seed {seed}, checkpoint {number}"
        assert found == await by_default(calls, at), f"seed {seed}, checkpoint {number}"


async def by_default(calls: Calls, at: Any) -> Any:
    """The base class's own answer, on top of this saver's `get_tuple` or `aget_tuple`."""
    if calls.flavour == "async":
        default = BaseCheckpointSaver.aget_delta_channel_history
        return await default(calls.saver, config=at, channels=["d", "e"])
    walk = Calls(_DefaultHistory(calls.saver), "sync")
    return await walk.delta_history(at, ["d", "e"])


class _DefaultHistory(BaseCheckpointSaver[Any]):
    """The default history over another saver's reads."""

    def __init__(self, inner: BaseCheckpointSaver[Any]) -> None:
        super().__init__(serde=inner.serde)
        self.get_tuple = inner.get_tuple  # type: ignore[method-assign]
