"""`delete_thread`, `delete_for_runs`, `copy_thread` and `prune`, beyond what conformance asks.

What is kept must read back as before: values that are shared by version, and delta channels, whose
value is spread over a chain of ancestors.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any

import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.serde.types import _DeltaSnapshot

from checkpoint_router.core.errors import DataLoss, Unavailable

from .calls import Calls
from .shapes import OTHER_TASK, TASK, body, chain, cid, conf, ids, parent_of, places, store, version

pytestmark = [pytest.mark.asyncio, pytest.mark.router_only]

COUNTED = {"source": "loop", "step": 1, "counters_since_delta_snapshot": {"d": [1, 1]}}


async def whole(calls: Calls, config: Any) -> list[tuple[Any, ...]]:
    """All that a list shows, without the thread's name."""
    return [
        (
            each.config["configurable"]["checkpoint_ns"],
            each.checkpoint,
            each.metadata,
            parent_of(each),
            each.pending_writes,
        )
        for each in await calls.list(config)
    ]


async def delta_chain(calls: Calls, length: int, snapshot_at: int) -> None:
    """A chain in which the channel `d` has a stored value once, and a write at each step."""
    for number in range(1, length + 1):
        await store(
            calls,
            cid(number),
            parent=cid(number - 1) if number > 1 else None,
            values={"d": _DeltaSnapshot([0])} if number == snapshot_at else {},
            metadata=COUNTED,
        )
        await calls.put_writes(conf(checkpoint_id=cid(number)), [("d", number)], TASK)


# ---- delete_thread ------------------------------------------------------------------------------


async def test_a_deleted_thread_is_gone_in_all_namespaces_with_its_waiting_writes(
    calls: Calls, another: Callable[..., Calls]
) -> None:
    await chain(calls, [1, 2])
    await chain(calls, [3], ns="sub:1")
    await chain(calls, [1], thread="kept")
    await calls.put_writes(conf(checkpoint_id=cid(9)), [("orphan", 1)], TASK)
    await calls.delete_thread("t")
    for reader in (calls, another()):
        assert places(await reader.list(None)) == [("kept", "", cid(1))]
        assert await reader.get_tuple(conf()) is None
        assert await reader.get_tuple(conf("t", "sub:1", cid(3))) is None
    await store(calls, cid(9))
    assert (await calls.read(conf())).pending_writes == []


async def test_a_deleted_thread_can_begin_anew_with_the_same_ids(calls: Calls) -> None:
    for turn in range(3):
        await chain(calls, [1, 2])
        await calls.put_writes(conf(checkpoint_id=cid(2)), [("x", turn)], TASK)
        found = await calls.read(conf())
        assert found.checkpoint["channel_values"] == {"n": 2}
        assert found.pending_writes == [(TASK, "x", turn)]
        await calls.delete_thread("t")
        await calls.delete_thread("t")  # Nothing there: nothing to do.
        assert await calls.list(None) == []


async def test_another_process_begins_a_deleted_thread_anew(
    calls: Calls, another: Callable[..., Calls]
) -> None:
    other = another()
    await chain(other, [1, 2])
    await calls.delete_thread("t")
    await chain(other, [3])
    assert ids(await calls.list(conf())) == [cid(3)]


async def test_a_value_of_a_deleted_thread_is_not_found_by_its_version(calls: Calls) -> None:
    await store(calls, cid(1), values={"x": "secret"}, versions={"x": "1.a"})
    await calls.delete_thread("t")
    await store(calls, cid(2), versions={"x": "1.a"}, new={})
    assert (await calls.read(conf())).checkpoint["channel_values"] == {}


# ---- delete_for_runs ----------------------------------------------------------------------------


async def test_a_runs_checkpoints_go_with_their_writes_and_the_rest_reads_as_before(
    calls: Calls,
) -> None:
    await chain(calls, [1, 2], metadata={"run_id": "a"})
    await chain(calls, [3, 4], parent=cid(2), metadata={"run_id": "b"})
    await chain(calls, [5], ns="sub:1", metadata={"run_id": "b"})
    for number in (2, 3, 4):
        await calls.put_writes(conf(checkpoint_id=cid(number)), [("x", number)], TASK)
    before = await whole(calls, conf())
    await calls.delete_for_runs(["b"])
    assert await whole(calls, None) == before[2:]
    assert (await calls.read(conf())).checkpoint["id"] == cid(2)
    await store(calls, cid(3), parent=cid(2))
    assert (await calls.read(conf())).pending_writes == []


async def test_the_thread_goes_on_after_a_run_was_taken_back(calls: Calls) -> None:
    """The "rollback" of a run that is replaced by another one."""
    await chain(calls, [1], metadata={"run_id": "a"})
    await chain(calls, [2], parent=cid(1), metadata={"run_id": "b"})
    await calls.delete_for_runs(["b"])
    found = await calls.read(conf())
    await chain(calls, [3], parent=found.checkpoint["id"], metadata={"run_id": "c"})
    assert ids(await calls.list(conf())) == [cid(3), cid(1)]
    assert (await calls.read(conf())).checkpoint["channel_values"] == {"n": 3}


async def test_a_value_that_a_remaining_checkpoint_lists_outlives_the_run_that_stored_it(
    calls: Calls, another: Callable[..., Calls]
) -> None:
    values, versions = {"x": ["shared"]}, {"x": "1.a"}
    await store(calls, cid(1), values=values, versions=versions, metadata={"run_id": "a"})
    kept = {"run_id": "b"}
    other = another()  # It has not the value's name in memory, only its version.
    await store(
        other, cid(2), parent=cid(1), values=values, versions=versions, new={}, metadata=kept
    )
    await calls.delete_for_runs(["a"])
    assert (await calls.read(conf())).checkpoint["channel_values"] == values


# ---- copy_thread --------------------------------------------------------------------------------


async def test_a_copy_is_equal_in_everything_and_independent(calls: Calls) -> None:
    await chain(calls, [1, 2, 3])
    await store(calls, cid(4), parent=cid(1), values={"n": {"fork": [4]}})
    await chain(calls, [5, 6], ns="sub:1")
    await calls.put_writes(conf(checkpoint_id=cid(4)), [("x", 1), ("__resume__", 2)], TASK, "p")
    before = await whole(calls, conf(ns=None))
    await calls.copy_thread("t", "copy")
    assert await whole(calls, conf("copy", None)) == before
    assert (await calls.read(conf("copy"))).checkpoint["id"] == cid(4)
    await chain(calls, [7], parent=cid(4), thread="copy")
    assert await whole(calls, conf(ns=None)) == before
    await calls.delete_thread("t")
    assert ids(await calls.list(conf("copy", "")))[0] == cid(7)
    values = (await calls.read(conf("copy", "", cid(2)))).checkpoint["channel_values"]
    assert values == {"n": 2}


async def test_a_copy_again_adds_nothing(calls: Calls) -> None:
    await chain(calls, [1, 2])
    await calls.put_writes(conf(checkpoint_id=cid(2)), [("x", 1)], TASK)
    for _ in range(2):
        await calls.copy_thread("t", "copy")
        assert await whole(calls, conf("copy")) == await whole(calls, conf())


async def test_a_copy_again_brings_what_is_new_and_takes_what_was_pruned(calls: Calls) -> None:
    await chain(calls, [1, 2])
    await calls.copy_thread("t", "copy")
    await chain(calls, [3, 4], parent=cid(2))
    await calls.copy_thread("t", "copy")
    assert await whole(calls, conf("copy")) == await whole(calls, conf())
    await calls.prune(["t"])
    await calls.copy_thread("t", "copy")
    assert ids(await calls.list(conf("copy"))) == [cid(4)]
    await calls.delete_thread("copy")
    await calls.copy_thread("t", "copy")
    assert await whole(calls, conf("copy")) == await whole(calls, conf())


async def test_a_copy_of_a_pruned_thread_has_no_link_to_nothing(calls: Calls) -> None:
    await chain(calls, [1, 2])
    await calls.prune(["t"])
    await calls.copy_thread("t", "copy")
    assert parent_of(await calls.read(conf("copy"))) is None


async def test_a_parent_that_was_never_stored_stays_named_in_a_copy(calls: Calls) -> None:
    await chain(calls, [2], parent=cid(1))
    await calls.copy_thread("t", "copy")
    assert parent_of(await calls.read(conf("copy"))) == cid(1)


@pytest.mark.rivals
@pytest.mark.parametrize("source", ["t", "another"])
async def test_what_a_copy_brings_onto_a_thread_of_its_own_life_is_a_rival_and_takes_nothing(
    calls: Calls, source: str
) -> None:
    await chain(calls, [1, 2])
    await chain(calls, [1, 5], thread="another")
    await calls.copy_thread("t", "copy")
    await chain(calls, [6], parent=cid(2), thread="copy")
    await chain(calls, [3], parent=cid(2))
    await calls.prune(["t", "another"])
    await calls.copy_thread(source, "copy")
    for number in (1, 2, 6, 3 if source == "t" else 5):
        assert (await calls.read(conf("copy", "", cid(number)))).checkpoint["id"] == cid(number)


async def test_delta_channels_of_a_copy_have_the_same_history(calls: Calls) -> None:
    await delta_chain(calls, 6, snapshot_at=2)
    expected = await calls.delta_history(conf(), ["d"])
    await calls.copy_thread("t", "copy")
    await calls.delete_thread("t")
    assert await calls.delta_history(conf("copy"), ["d"]) == expected


async def test_a_copy_of_nothing_is_nothing(calls: Calls) -> None:
    await calls.copy_thread("nobody", "copy")
    assert await calls.list(None) == []


# ---- prune --------------------------------------------------------------------------------------


async def test_the_newest_of_each_namespace_stays_with_its_writes_and_values(
    calls: Calls, another: Callable[..., Calls]
) -> None:
    await chain(calls, [1, 2, 3])
    await chain(calls, [4, 5], ns="memory")
    for number in (2, 3):
        await calls.put_writes(conf(checkpoint_id=cid(number)), [("x", number)], TASK)
    await calls.prune(["t"])
    for reader in (calls, another()):
        assert places(await reader.list(None)) == [("t", "memory", cid(5)), ("t", "", cid(3))]
        found = await reader.read(conf())
        assert found.checkpoint["channel_values"] == {"n": 3}
        assert found.pending_writes == [(TASK, "x", 3)]
        assert found.parent_config is None


async def test_a_pruned_thread_goes_on(calls: Calls, another: Callable[..., Calls]) -> None:
    other = another()
    await chain(calls, [1, 2, 3])
    await other.read(conf())
    await calls.prune(["t"])
    await chain(other, [4], parent=cid(3))
    await chain(calls, [5], parent=cid(4))
    assert ids(await calls.list(conf())) == [cid(5), cid(4), cid(3)]
    assert parent_of(await calls.read(conf(checkpoint_id=cid(4)))) == cid(3)


async def test_values_that_are_known_by_version_alone_outlive_a_prune(
    calls: Calls, another: Callable[..., Calls]
) -> None:
    values, versions = {"x": ["shared"]}, {"x": "1.a"}
    await store(calls, cid(1), values=values, versions=versions)
    for number in (2, 3):
        await store(
            another(), cid(number), parent=cid(number - 1), values=values, versions=versions, new={}
        )
    await calls.prune(["t"])
    assert (await calls.read(conf())).checkpoint["channel_values"] == values


async def test_a_copied_checkpoint_keeps_its_values_when_its_source_is_pruned(
    calls: Calls, another: Callable[..., Calls]
) -> None:
    """The copy stands under its grandparent: no ancestor of it lists the version that it names."""
    await chain(calls, [1, 2])
    values, versions = {"n": 2}, {"n": version(cid(2))}
    other = another()
    await other.read(conf(checkpoint_id=cid(2)))
    await store(other, cid(3), parent=cid(1), values=values, versions=versions, new={})
    await calls.prune(["t"])
    assert (await calls.read(conf())).checkpoint["id"] == cid(3)
    assert (await calls.read(conf())).checkpoint["channel_values"] == values


async def test_delta_channels_read_the_same_after_a_prune(calls: Calls) -> None:
    await delta_chain(calls, 9, snapshot_at=5)
    expected = await calls.delta_history(conf(), ["d"])
    assert [value for _, _, value in expected["d"]["writes"]] == [5, 6, 7, 8]
    await calls.prune(["t"])
    assert await calls.delta_history(conf(), ["d"]) == expected
    assert cid(4) not in ids(await calls.list(conf()))


async def test_delta_channels_without_a_snapshot_keep_their_whole_chain(calls: Calls) -> None:
    await delta_chain(calls, 5, snapshot_at=0)
    expected = await calls.delta_history(conf(), ["d"])
    await calls.prune(["t"])
    assert await calls.delta_history(conf(), ["d"]) == expected
    assert len(expected["d"]["writes"]) == 4


async def test_writes_whose_checkpoint_has_not_come_outlive_a_prune(calls: Calls) -> None:
    await chain(calls, [1, 2])
    await calls.put_writes(conf(checkpoint_id=cid(3)), [("x", 1)], OTHER_TASK)
    await calls.prune(["t"])
    await store(calls, cid(3), parent=cid(2))
    assert (await calls.read(conf())).pending_writes == [(OTHER_TASK, "x", 1)]


async def test_the_namespace_of_a_subgraphs_call_goes_with_its_root(calls: Calls) -> None:
    await chain(calls, [1])
    await chain(calls, [2], ns="node:1", metadata={"parents": {"": cid(1)}})
    await chain(calls, [3], ns="persistent", metadata={"parents": {"": cid(1)}})
    await chain(calls, [4], parent=cid(1))
    await chain(calls, [5], ns="node:4", metadata={"parents": {"": cid(4)}})
    await calls.prune(["t"])
    assert places(await calls.list(None)) == [
        ("t", "node:4", cid(5)),
        ("t", "", cid(4)),
        ("t", "persistent", cid(3)),
    ]


async def test_prune_twice_is_prune_once_and_spares_other_threads(calls: Calls) -> None:
    await chain(calls, [1, 2])
    await chain(calls, [3, 4], thread="other")
    await calls.prune(["t", "nobody"])
    once = await whole(calls, None)
    await calls.prune(["t"])
    await calls.prune([])
    assert await whole(calls, None) == once
    assert places(await calls.list(None)) == [
        ("other", "", cid(4)),
        ("other", "", cid(3)),
        ("t", "", cid(2)),
    ]


async def test_prune_refuses_a_bare_string_and_an_unknown_strategy(calls: Calls) -> None:
    await chain(calls, [1, 2], thread="t")
    with pytest.raises(TypeError, match="thread_ids"):
        await calls.prune("t")
    with pytest.raises(ValueError, match="keep_oldest"):
        await calls.prune(["t"], strategy="keep_oldest")
    with pytest.raises(TypeError, match="run_ids"):
        await calls.delete_for_runs("run")
    assert ids(await calls.list(conf())) == [cid(2), cid(1)]


# ---- reads beside them --------------------------------------------------------------------------


@pytest.fixture
def beside(
    calls: Calls, make_saver: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., None]:
    """Plans what another saver does once this one's read was answered, and before it fetches the
    values that did not fit beside the answer. Real calls on a real router; only their order is
    held, which cannot be had otherwise. The one that reads has no cache, and so must fetch."""
    calls.saver = make_saver(cache_bytes=0)
    other, links = make_saver(), calls.saver._links  # type: ignore[attr-defined]
    plain, aplain = links.call, links.acall
    planned: list[Callable[[BaseCheckpointSaver[Any]], None]] = []

    def call(name: str, *given: Any, **how: Any) -> Any:
        if name == "get_blobs" and planned:
            planned.pop(0)(other)
        return plain(name, *given, **how)

    async def acall(name: str, *given: Any, **how: Any) -> Any:
        if name == "get_blobs" and planned:
            await asyncio.to_thread(planned.pop(0), other)
        return await aplain(name, *given, **how)

    monkeypatch.setattr(links, "call", call)
    monkeypatch.setattr(links, "acall", acall)
    return lambda *steps: planned.extend(steps)


def large() -> dict[str, Any]:
    """Values that do not fit beside one answer."""
    return {channel: os.urandom(3 << 20) for channel in ("x", "y")}


def goes_on(number: int) -> Callable[[BaseCheckpointSaver[Any]], None]:
    """Puts the next checkpoint, and leaves nothing of those before."""

    def step(other: BaseCheckpointSaver[Any]) -> None:
        checkpoint = body(cid(number), {**large(), "d": _DeltaSnapshot([number])})
        versions = dict(checkpoint["channel_versions"])
        other.put(conf("t", "", cid(number - 1)), checkpoint, COUNTED, versions)  # type: ignore[arg-type]
        other.prune(["t"])

    return step


async def test_a_read_of_large_values_beside_prunes_reads_again(
    calls: Calls, beside: Callable[..., None]
) -> None:
    await store(calls, cid(1), values=large())
    beside(*(goes_on(number) for number in (2, 3, 4)))
    assert (await calls.read(conf())).checkpoint["id"] == cid(4)


async def test_a_list_of_large_values_beside_a_prune_lists_again(
    calls: Calls, beside: Callable[..., None]
) -> None:
    await store(calls, cid(1), values=large())
    beside(goes_on(2))
    assert ids(await calls.list(conf())) == [cid(2)]
    beside(goes_on(3))
    assert ids(await calls.list(None)) == [cid(3)]


async def test_a_delta_history_of_large_writes_beside_a_prune_is_read_again(
    calls: Calls, beside: Callable[..., None]
) -> None:
    await store(calls, cid(1), metadata=COUNTED)
    for task, value in zip((TASK, OTHER_TASK), large().values(), strict=True):
        await calls.put_writes(conf(checkpoint_id=cid(1)), [("d", value)], task)
    await store(calls, cid(2), parent=cid(1), metadata=COUNTED)
    beside(goes_on(3))
    history = await calls.delta_history(conf(checkpoint_id=cid(2)), ["d"])
    assert history == {"d": {"writes": []}}, "the checkpoint is gone, and its history with it"


async def test_a_read_of_large_values_beside_a_delete_finds_nothing(
    calls: Calls, beside: Callable[..., None]
) -> None:
    await store(calls, cid(1), values=large())
    beside(lambda other: other.delete_thread("t"))
    assert await calls.get_tuple(conf()) is None


def lost(record: str) -> Callable[[BaseCheckpointSaver[Any]], None]:
    """What a router says of a value that its storage does not have. A fake: storages lose none."""

    def step(other: BaseCheckpointSaver[Any]) -> None:
        raise DataLoss(f"the storage no longer has value {record}")

    return step


async def test_what_is_missing_though_a_newer_answer_names_it_is_lost(
    calls: Calls, beside: Callable[..., None]
) -> None:
    await store(calls, cid(1), values=large())
    beside(lost("a"), lost("b"))
    assert await calls.get_tuple(conf()) is not None
    beside(lost("a"), lost("a"))
    with pytest.raises(DataLoss, match="value a"):
        await calls.get_tuple(conf())


async def test_a_read_that_never_comes_before_a_prune_ends(
    calls: Calls, beside: Callable[..., None]
) -> None:
    await store(calls, cid(1), values=large())
    beside(*(lost(str(number)) for number in range(100)))
    with pytest.raises(Unavailable, match="kept being pruned"):
        await calls.get_tuple(conf())
