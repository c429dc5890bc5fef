"""The known traps of a saver, one test each. Where a trap is tested with its rule, this says where.

| trap | where |
|---|---|
| 1 clock skew | here and `test_clock` |
| 2 bytewise order | `test_contract_list` (ids), `test_contract_writes` (paths, tasks) |
| 3 calls over many threads | here |
| 4 writes before their checkpoint | here and `test_contract_writes` |
| 5 a special write that arrives late | here |
| 6 put and put_writes in any order | here |
| 7 the put chain is serial | a cost, not a behaviour: not testable here |
| 8 stale reads | here, between the savers of one region; followers come with regions |
| 9 fresh objects | `test_contract_rows` |
| 10 large lists, abandoned iterators | here |
| 11 loops and threads | here and `test_tokens` |
| 12 values taken at the call | `test_contract_rows` |
| 13 deadlines, retries, no swallowed error | here |
| 14 three keys | `test_contract_inputs` |
| 15 tags, unknown keys | here and `test_contract_rows` |
| 16 delta history as one call | here |
| 17 no uuid4, no finaliser, no captured serde | here |
| 18 metadata beyond JSON | `test_contract_inputs` |
| 19 methods on the class | `test_conformance` |
| 20 nothing shown before its ancestors | here, on one router; replicas come with regions |
| 21 no compare-and-set by default | here; leases come later |
| 22 a run that failed after all was stored | `test_pregel_nested` |
"""

from __future__ import annotations

import asyncio
import copy
import gc
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from .calls import Calls
from .proxy import Proxy
from .shapes import OTHER_TASK, TASK, body, chain, cid, conf, ids, places, store

pytestmark = pytest.mark.asyncio

AT = conf(checkpoint_id=cid(1))


async def test_trap_1_the_head_is_what_came_last_and_not_the_greatest_id(
    calls: Calls, another: Callable[..., Calls]
) -> None:
    behind = another()
    await chain(calls, [1000, 1001])
    for parent, number in ((1001, 5), (5, 6)):
        assert (await behind.read(conf())).checkpoint["id"] == cid(parent)
        await chain(behind, [number], parent=cid(parent))
    assert (await calls.read(conf())).checkpoint["id"] == cid(6)
    await chain(calls, [1002], parent=cid(6))
    assert (await behind.read(conf())).checkpoint["id"] == cid(1002)
    assert ids(await calls.list(conf())) == [cid(n) for n in (1002, 1001, 1000, 6, 5)]


async def test_trap_3_calls_over_many_threads_reach_all_of_them(calls: Calls) -> None:
    threads = [f"thread-{number}" for number in range(20)]
    for number, thread in enumerate(threads):
        await chain(calls, [10 * number + 1], thread=thread, metadata={"run_id": "keep"})
        await chain(
            calls,
            [10 * number + 2, 10 * number + 3],
            parent=cid(10 * number + 1),
            thread=thread,
            metadata={"run_id": f"run-{number % 4}"},
        )
        await chain(calls, [10 * number + 4], thread=thread, ns="a:1", metadata={"run_id": "keep"})
    newest = [cid(10 * number + 4) for number in reversed(range(20))]
    assert ids(await calls.list(None, limit=77))[::4] == newest[:20]
    await calls.delete_for_runs(["run-0", "run-1", "run-7"])
    left = {thread: 4 if number % 4 > 1 else 2 for number, thread in enumerate(threads)}
    found = [thread for thread, _, _ in places(await calls.list(None))]
    assert {thread: found.count(thread) for thread in threads} == left
    await calls.prune(threads[::2], strategy="delete")
    assert {thread for thread, _, _ in places(await calls.list(None))} == set(threads[1::2])


async def test_trap_4_a_put_keeps_the_writes_that_came_before_it(calls: Calls) -> None:
    await calls.put_writes(AT, [("x", 1)], TASK)
    await calls.put_writes(AT, [("y", 2)], OTHER_TASK)
    for _ in range(2):
        await store(calls, cid(1))
        expected = [(TASK, "x", 1), (OTHER_TASK, "y", 2)]
        assert (await calls.read(conf())).pending_writes == expected
        (listed,) = await calls.list(conf())
        assert listed.pending_writes == expected


@pytest.mark.router_only
async def test_trap_5_a_special_write_that_is_retried_late_replaces_nothing(
    calls: Calls, another: Callable[..., Calls], router: Any
) -> None:
    await chain(calls, [1])
    with Proxy(router.target) as proxy:
        slow = another(target=proxy.target)
        await slow.read(conf())
        proxy.hold_answers()
        first = asyncio.ensure_future(slow.put_writes(AT, [("__resume__", "first")], TASK))
        while (found := await calls.read(AT)).pending_writes != [(TASK, "__resume__", "first")]:
            assert not first.done()
        await calls.put_writes(found.config, [("__resume__", "second")], TASK)
        proxy.cut()
        proxy.pass_all()
        await first  # It did not hear of its success, and has asked again.
        for reader in (calls, slow, another()):
            assert (await reader.read(AT)).pending_writes == [(TASK, "__resume__", "second")]


@pytest.mark.parametrize("turn", range(4))
async def test_trap_6_puts_and_writes_may_overtake_each_other(calls: Calls, turn: int) -> None:
    await chain(calls, [1])
    attempts: list[Callable[[], Any]] = [
        lambda: calls.put_writes(AT, [("x", 1)], TASK),
        lambda: store(calls, cid(2), parent=cid(1), values={"n": 2}),
        lambda: calls.put_writes(conf(checkpoint_id=cid(2)), [("y", 2)], TASK),
        lambda: calls.put_writes(AT, [("z", 3)], OTHER_TASK),
    ]
    await asyncio.gather(*(each() for each in attempts[turn:] + attempts[:turn]))
    assert (await calls.read(AT)).pending_writes == [(TASK, "x", 1), (OTHER_TASK, "z", 3)]
    newest = await calls.read(conf())
    assert newest.checkpoint["id"] == cid(2)
    assert newest.pending_writes == [(TASK, "y", 2)]


@pytest.mark.parametrize("late", [1, 2])
async def test_trap_6_a_fork_keeps_the_writes_that_the_next_checkpoint_overtook(
    calls: Calls, another: Callable[..., Calls], late: int
) -> None:
    await chain(calls, [1, 2, 3])
    await calls.put_writes(conf(checkpoint_id=cid(late)), [("x", late)], TASK)
    past = await calls.read(conf(checkpoint_id=cid(2)))
    named = await calls.put(past.config, body(cid(4)), {}, {})
    assert named["configurable"]["checkpoint_id"] == cid(4)
    for reader in (calls, another()):
        found = {ids([each])[0]: each.pending_writes for each in await reader.list(conf())}
        written = [(TASK, "x", late)]
        assert found == {cid(n): written if n == late else [] for n in (4, 3, 2, 1)}


async def test_trap_8_every_saver_reads_the_last_acknowledged_put_and_write(
    calls: Calls, another: Callable[..., Calls]
) -> None:
    savers = [calls, *(another() for _ in range(4))]
    for number in range(1, 21):
        writer = savers[number % len(savers)]
        await chain(writer, [number], parent=cid(number - 1) if number > 1 else None)
        at = conf(checkpoint_id=cid(number))
        await writer.put_writes(at, [("x", number)], TASK)
        for reader in savers:
            found = await reader.read(conf())
            assert (found.checkpoint["id"], found.pending_writes) == (
                cid(number),
                [(TASK, "x", number)],
            )


async def test_trap_10_values_and_lists_above_any_message_limit_are_whole(calls: Calls) -> None:
    text = "0123456789abcdef" * 65536  # 1 MiB
    for number in range(1, 31):
        parent = cid(number - 1) if number > 1 else None
        await store(calls, cid(number), parent=parent, values={"x": f"{number}{text}"})
    await calls.put_writes(conf(checkpoint_id=cid(30)), [("x", text * 6)], TASK)
    found = await calls.list(conf())
    assert [each.checkpoint["channel_values"]["x"][: -(2**20)] for each in found] == [
        str(number) for number in range(30, 0, -1)
    ]
    assert all(each.checkpoint["channel_values"]["x"].endswith(text) for each in found)
    assert (await calls.read(conf())).pending_writes == [(TASK, "x", text * 6)]


async def test_trap_10_an_abandoned_list_holds_up_nobody(calls: Calls) -> None:
    await chain(calls, list(range(1, 121)))
    saver, config = calls.saver, conf()
    for _ in range(40):
        if calls.flavour == "async":
            listing: Any = saver.alist(config)  # type: ignore[arg-type]
            assert ids([await anext(listing)]) == [cid(120)]
            await listing.aclose()
        else:
            found = await asyncio.to_thread(lambda: next(iter(saver.list(config))))  # type: ignore[arg-type]
            assert ids([found]) == [cid(120)]
    assert len(await calls.list(config)) == 120


async def test_trap_11_one_saver_serves_many_loops_and_threads_at_once(
    saver: BaseCheckpointSaver[Any],
) -> None:
    async def turns(thread: str, numbers: range) -> None:
        hand = Calls(saver, "async")
        await asyncio.gather(*(chain(hand, [each], thread=f"{thread}-{each}") for each in numbers))

    def work(thread: str) -> None:
        for start in (1, 11, 21):  # A new loop for each request, and sync calls between them.
            asyncio.run(turns(thread, range(start, start + 10)))
            config: Any = conf(f"{thread}-{start}", "", None)
            assert saver.get_tuple(config) is not None
            saver.put(config, body(cid(99)), {}, {})

    await asyncio.gather(*(asyncio.to_thread(work, f"w{each}") for each in range(4)))
    found = places(await Calls(saver, "async").list(None))
    assert len({thread for thread, _, _ in found}) == 120
    assert len(found) == 132


async def test_trap_11_a_sync_call_on_the_loops_own_thread_ends(
    saver: BaseCheckpointSaver[Any],
) -> None:
    at: Any = conf()
    await saver.aput(at, body(cid(1)), {}, {})
    named: Any = saver.put(conf("t", "", cid(1)), body(cid(2)), {}, {})  # type: ignore[arg-type]
    saver.put_writes(named, [("x", 1)], TASK)
    found = saver.get_tuple(at)
    assert found is not None
    assert found.pending_writes == [(TASK, "x", 1)]
    assert len(list(saver.list(at))) == 2
    saver.delete_thread("t")
    assert await saver.aget_tuple(at) is None


@pytest.mark.router_only
async def test_trap_13_a_call_without_an_answer_ends_at_its_deadline_and_its_retry_counts_once(
    calls: Calls, another: Callable[..., Calls], router: Any
) -> None:
    from checkpoint_router.core import errors

    # What is left of other tests' loops would keep this one on the process' link, and once it is
    # collected the next call would ask for another connection, which could not be had.
    gc.collect()
    elsewhere = conf("elsewhere", "", cid(1))
    await chain(calls, [1])
    await chain(calls, [1], thread="elsewhere")
    with Proxy(router.target) as proxy:
        patient, hasty = (
            another(target=proxy.target),
            another(target=proxy.target, timeout_seconds=1.0),
        )
        await patient.read(conf())
        await hasty.read(elsewhere)
        proxy.hold_answers()
        for attempt in (
            lambda: hasty.get_tuple(conf()),
            lambda: hasty.list(conf()),
            lambda: hasty.put_writes(elsewhere, [("x", 1)], TASK),
            lambda: hasty.delta_history(conf(), ["x"]),
        ):
            with pytest.raises((errors.DeadlineExceeded, errors.Unavailable)):
                await attempt()
        put = asyncio.ensure_future(chain(patient, [2], parent=cid(1)))
        while (await calls.read(conf())).checkpoint["id"] != cid(2):
            assert not put.done()
        proxy.cut()
        proxy.pass_all()
        await put
        await hasty.put_writes(elsewhere, [("x", 2), ("y", 3)], TASK)
        assert ids(await hasty.list(conf())) == [cid(2), cid(1)]
    assert ids(await calls.list(conf())) == [cid(2), cid(1)]
    # The call that was given up had reached the router; what came after it took that into account.
    assert (await calls.read(elsewhere)).pending_writes == [(TASK, "x", 1), (TASK, "y", 3)]


@pytest.mark.router_only
async def test_trap_13_a_router_that_is_not_there_is_a_clear_error(
    another: Callable[..., Calls],
) -> None:
    from checkpoint_router.core import errors

    nobody = another(target="router://127.0.0.1:9", timeout_seconds=0.5)
    for attempt in (
        lambda: nobody.get_tuple(conf()),
        lambda: store(nobody, cid(1)),
        lambda: nobody.delete_thread("t"),
    ):
        with pytest.raises((errors.Unavailable, errors.DeadlineExceeded), match=r"127\.0\.0\.1:9"):
            await attempt()


@pytest.mark.router_only
async def test_trap_13_connections_that_break_under_way_cost_no_call(
    another: Callable[..., Calls], router: Any
) -> None:
    with Proxy(router.target) as proxy:
        relayed = another(target=proxy.target)
        for number in range(1, 31):
            put = asyncio.ensure_future(
                chain(relayed, [number], parent=cid(number - 1) if number > 1 else None)
            )
            if number % 5 == 0:
                await asyncio.sleep(0)
                proxy.cut()
            await put
            write = conf(checkpoint_id=cid(number))
            await relayed.put_writes(write, [("x", number)], TASK)
        found = await relayed.list(conf())
    assert ids(found) == [cid(number) for number in range(30, 0, -1)]
    assert [each.pending_writes for each in found] == [
        [(TASK, "x", number)] for number in range(30, 0, -1)
    ]


class OwnTags(JsonPlusSerializer):
    """A user's serialiser: tags of its own, and bytes that nobody else can read."""

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        tag, data = super().dumps_typed(obj)
        return f"{tag}+own tag é", bytes(byte ^ 0xA5 for byte in data)

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        tag, _, own = data[0].partition("+")
        assert own == "own tag é", f"a value came back under the tag {data[0]!r}"
        return super().loads_typed((tag, bytes(byte ^ 0xA5 for byte in data[1])))


async def test_trap_15_every_value_goes_through_the_users_serialiser_and_keeps_its_tag(
    calls: Calls,
) -> None:
    calls.saver.serde = OwnTags()
    values = {
        "none": None,
        "text": "t",
        "int": 1,
        "bytes": b"b",
        "list": [1, {2: 3}],
        "large": "x" * 99_999,
    }
    await store(calls, cid(1), values=values)
    await calls.put_writes(AT, list(values.items()), TASK)
    await store(calls, cid(2), parent=cid(1), values={})
    found = await calls.read(AT)
    assert found.checkpoint["channel_values"] == values
    assert found.pending_writes == [(TASK, name, value) for name, value in values.items()]
    listed = await calls.list(conf())
    assert listed[1].checkpoint["channel_values"] == values
    history = await calls.delta_history(conf(), list(values))
    assert {name: each["seed"] for name, each in history.items()} == values


async def test_trap_16_delta_history_reads_no_tuple(
    calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store(calls, cid(1), values={"d": ["seed"]})
    await calls.put_writes(AT, [("d", 1)], TASK)
    await store(calls, cid(2), parent=cid(1))

    def refuse(config: Any) -> Any:
        raise AssertionError("one read for each ancestor is what the default does")

    monkeypatch.setattr(calls.saver, "get_tuple", refuse)
    monkeypatch.setattr(calls.saver, "aget_tuple", refuse)
    found = await calls.delta_history(conf(checkpoint_id=cid(2)), ["d"])
    assert found == {"d": {"writes": [(TASK, "d", 1)], "seed": ["seed"]}}


async def test_trap_17_no_call_draws_a_uuid4(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    """LangGraph's own tests replace `uuid.uuid4` and count what it gives."""

    def refuse() -> Any:
        raise AssertionError("a saver must leave uuid.uuid4 to the graph")

    monkeypatch.setattr(uuid, "uuid4", refuse)
    await chain(calls, [1, 2], metadata={"run_id": "r"})
    await calls.put_writes(AT, [("x", 1)], TASK)
    assert len(await calls.list(None)) == 2
    assert await calls.delta_history(conf(), ["x"]) == {"x": {"writes": [(TASK, "x", 1)]}}
    await calls.delete_thread("t")


async def test_trap_17_a_clone_reads_with_its_own_serialiser_and_its_end_ends_nothing(
    calls: Calls,
) -> None:
    assert not hasattr(type(calls.saver), "__del__")
    await store(calls, cid(1), values={"x": "plain"})
    for _ in range(3):
        clone = copy.copy(calls.saver)  # What `with_allowlist` does, once per run.
        clone.serde = OwnTags()
        other = Calls(clone, calls.flavour)
        await store(other, cid(1), values={"x": "own"}, thread="own")
        assert (await other.read(conf("own"))).checkpoint["channel_values"] == {"x": "own"}
        del clone, other
        gc.collect()
        assert (await calls.read(conf())).checkpoint["channel_values"] == {"x": "plain"}
        await calls.delete_thread("own")


async def test_trap_20_no_reader_sees_a_checkpoint_without_its_past(
    calls: Calls, another: Callable[..., Calls]
) -> None:
    reader, last = another(), 60

    async def write() -> None:
        for number in range(1, last + 1):
            parent = cid(number - 1) if number > 1 else None
            await store(calls, cid(number), parent=parent, values={"n": number})
            await calls.put_writes(conf(checkpoint_id=cid(number)), [("d", number)], TASK)

    writing, seen = asyncio.ensure_future(write()), 0
    while seen < last:
        assert not writing.done() or writing.exception() is None
        found = await reader.get_tuple(conf())
        await asyncio.sleep(0)  # A peer that answers without waiting would never let it write.
        if found is None:
            continue
        number = found.checkpoint["channel_values"]["n"]
        assert number >= seen, "a reader went back in time"
        seen = number
        history = await reader.delta_history(found.config, ["d"])
        assert [value for _, _, value in history["d"]["writes"]] == list(range(1, number))
    await writing


@pytest.mark.rivals
async def test_trap_21_a_put_under_any_parent_is_accepted_from_anybody(
    calls: Calls, another: Callable[..., Calls]
) -> None:
    await chain(calls, [1, 2])
    other = another()
    await calls.read(conf())
    await other.read(conf())
    await chain(calls, [3], parent=cid(2))
    await chain(other, [4], parent=cid(2))
    await chain(other, [5], parent=cid(1))
    for number in (3, 4, 5):
        at = conf(checkpoint_id=cid(number))
        assert (await calls.read(at)).checkpoint["channel_values"] == {"n": number}
