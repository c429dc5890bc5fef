"""Values that a saver keeps: what they save, and that none of them is ever believed."""

from __future__ import annotations

import copy
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from msgspec import structs

from checkpoint_router import RouterSaver
from checkpoint_router.client.cache import Cache
from checkpoint_router.core import growing, limits
from checkpoint_router.core.answers import Growth
from checkpoint_router.core.errors import InvalidArgument
from checkpoint_router.core.growing import named
from checkpoint_router.core.records import Typed
from checkpoint_router.wire import puts
from tests.contract.savers import Line, Routers
from tests.contract.shard import BACKENDS

KIB = limits.KIB


def value(size: int, fill: bytes = b"v") -> Typed:
    """A list of that many bytes."""
    return Typed("msgpack", b"\x91" + fill * (size - 1))


def filled(cache: Cache, *sizes: int, thread: str = "t") -> list[bytes]:
    """Values of these sizes, taken in turn, and their names."""
    made = [named(value(size, bytes([at]))) for at, size in enumerate(sizes)]
    for one in made:
        cache.add(thread, [(one.hash, one.value)])
    return [one.hash for one in made]


# ---- the cache itself --------------------------------------------------------------------------


def test_what_was_used_least_lately_makes_room() -> None:
    cache = Cache(100 * KIB)
    first, second, third = filled(cache, 30 * KIB, 30 * KIB, 30 * KIB)
    assert cache.get("t", first) is not None
    (fourth,) = filled(cache, 29 * KIB)
    assert cache.get("t", second) is None
    assert all(cache.get("t", hash) is not None for hash in (first, third, fourth))
    assert cache.held_bytes <= 100 * KIB


def test_a_value_that_is_too_large_leaves_the_others_alone() -> None:
    cache = Cache(10 * KIB)
    small, large = filled(cache, 5 * KIB, 10 * KIB)
    assert cache.get("t", large) is None
    assert cache.get("t", small) is not None


def test_small_values_count_for_more_than_their_bytes() -> None:
    cache = Cache(100 * KIB)
    filled(cache, *itertools.repeat(130, 200))
    assert len(cache.some("t", 1000)) <= 100


def test_a_cache_of_no_bytes_keeps_nothing() -> None:
    cache = Cache(0)
    (hash,) = filled(cache, 1)
    assert cache.get("t", hash) is None
    blob, named = cache.new_blob("t", value(2000), hash)
    cache.learn("t", named)
    assert cache.held_bytes == blob.kept == 0
    assert blob.continues == hash


def test_a_value_names_its_older_self_only_where_it_may_continue_that() -> None:
    cache = Cache(100 * KIB)
    (hash,) = filled(cache, 2000)
    assert cache.new_blob("t", value(2100, b"w"), hash)[0].continues is None
    assert cache.new_blob("t", value(2100, b"\0"), hash)[0].continues == hash
    cache.clear()
    assert cache.new_blob("t", value(2100, b"w"), hash)[0].continues == hash


@pytest.mark.parametrize("size", [-1, True, 1.5, "1"])
def test_a_size_that_is_none_is_refused(size: Any) -> None:
    with pytest.raises(InvalidArgument, match="cache_bytes"):
        RouterSaver("router://127.0.0.1:1", cache_bytes=size)


def test_a_value_is_its_threads_own() -> None:
    cache = Cache(100 * KIB)
    (hash,) = filled(cache, 2000, thread="one")
    assert cache.get("other", hash) is None
    cache.forget("other")
    assert cache.get("one", hash) is not None
    cache.forget("one")
    assert cache.get("one", hash) is None
    assert cache.held_bytes == 0


def test_bytes_that_came_under_another_name_are_not_given() -> None:
    cache = Cache(100 * KIB)
    cache.add("t", [(named(value(2000)).hash, value(2000, b"w"))])
    assert cache.get("t", named(value(2000)).hash) is None
    assert cache.held_bytes == 0


@pytest.mark.parametrize("asked_before", [True, False])
def test_bytes_that_changed_in_memory_are_not_given(asked_before: bool) -> None:
    cache = Cache(100 * KIB)
    (hash,) = filled(cache, 2000)
    if asked_before:
        assert cache.get("t", hash) is not None
    spoil(cache)
    assert cache.get("t", hash) is None
    assert cache.held_bytes == 0


def spoil(cache: Cache) -> None:
    """Every value in it loses a byte."""
    for entry in cache._entries.values():
        entry.value = Typed(entry.value.tag, entry.value.data[:-1] + b"?")
        if entry.named is not None:
            entry.named = structs.replace(entry.named, value=entry.value)


# ---- savers ------------------------------------------------------------------------------------


@pytest_asyncio.fixture
async def routers(tmp_path: Path) -> AsyncIterator[Routers]:
    """A router in this process, on memory."""
    routers = Routers(BACKENDS[0], tmp_path)
    await routers.open()
    yield routers
    await routers.close()


def conf(**more: Any) -> Any:
    """The thread of these tests."""
    return {"configurable": {"thread_id": "t", "checkpoint_ns": "", **more}}


def messages(count: int) -> list[str]:
    """The first messages of one conversation."""
    return [f"{number:06d} " + "x" * 505 for number in range(count)]


async def put(saver: RouterSaver, number: int, said: list[str], *, at: Any = None) -> Any:
    """The next checkpoint of the conversation."""
    version = f"{number:032}.5"
    checkpoint: Any = {
        "v": 4, "id": f"{number:08d}", "ts": "", "versions_seen": {},
        "channel_values": {"messages": said}, "channel_versions": {"messages": version},
    }  # fmt: skip
    return await saver.aput(at or conf(), checkpoint, {}, {"messages": version})


async def read(saver: RouterSaver, **more: Any) -> list[str]:
    """What the conversation is."""
    found = await saver.aget_tuple(conf(**more))
    assert found is not None
    said: list[str] = found.checkpoint["channel_values"]["messages"]
    return said


async def test_a_list_that_grew_is_put_for_the_price_of_its_growth(routers: Routers) -> None:
    saver, line = routers.saver("acme")
    at = await put(saver, 1, messages(200))
    line.reset()
    await put(saver, 2, messages(201), at=at)
    assert line.calls == {"put": 1}
    assert line.bytes < 3 * 512
    other, _ = routers.saver("acme", cache_bytes=0)
    assert await read(other) == messages(201)


async def test_what_was_put_or_read_is_not_fetched_again(routers: Routers) -> None:
    saver, line = routers.saver("acme")
    other, line_of_other = routers.saver("acme")
    await put(saver, 1, messages(200))
    for who, its in ((saver, line), (other, line_of_other)):
        assert await read(who) == messages(200)
        its.reset()
        assert await read(who) == messages(200)
        assert its.calls == {"get_tuple": 1}
        assert its.bytes < 1024


async def test_of_what_another_saver_grew_the_growth_is_read(routers: Routers) -> None:
    saver, line = routers.saver("acme")
    other, _ = routers.saver("acme")
    await put(other, 1, messages(200))
    assert await read(saver) == messages(200)
    at = await other.aget_tuple(conf())
    assert at is not None
    after = await put(other, 2, messages(201), at=at.config)
    await put(other, 3, messages(202), at=after)
    line.reset()
    assert await read(saver) == messages(202)
    assert line.calls == {"get_tuple": 1}
    assert line.bytes < 4 * 512
    line.reset()
    assert await read(saver) == messages(202)
    assert line.bytes < 1024


@pytest.mark.parametrize("count", [10, 200])
async def test_a_router_that_just_started_asks_its_storage_once(
    routers: Routers, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    saver, line = routers.saver("acme")
    await put(saver, 1, messages(count))
    await routers.change()
    asked: list[str] = []
    storage = routers.engine.shard.storage
    for name in ("events", "records", "blobs"):
        plain = getattr(storage, name)
        monkeypatch.setattr(storage, name, counted(asked, name, plain))
    line.reset()
    for _ in range(3):
        assert await read(saver) == messages(count)
    # Of few bytes all is asked for at once; memory does that by asking itself for both.
    assert asked == (["events"] if count == 200 else ["records", "events", "blobs"])
    assert line.bytes < 3 * 1024


def counted(asked: list[str], name: str, plain: Any) -> Any:
    """The same, noting that it was asked."""

    async def call(*given: Any) -> Any:
        asked.append(name)
        return await plain(*given)

    return call


async def test_a_listing_brings_what_the_saver_does_not_have(routers: Routers) -> None:
    saver, line = routers.saver("acme")
    at = await put(saver, 1, messages(100))
    await put(saver, 2, ["another"] * 100, at=at)
    expected = [["another"] * 100, messages(100)]
    for _ in range(2):
        line.reset()
        listed = [t.checkpoint["channel_values"]["messages"] async for t in saver.alist(conf())]
        assert listed == expected
        assert line.calls == {"list_tuples": 1}
    assert line.bytes < 2048


async def test_a_history_of_changes_brings_what_the_saver_does_not_have(routers: Routers) -> None:
    saver, _ = routers.saver("acme")
    at = await put(saver, 1, messages(200))
    await saver.aput_writes(at, [("messages", messages(100))], "a task")
    await put(saver, 2, ["another"], at=at)
    other, line = routers.saver("acme")
    writes = [("a task", "messages", messages(100))]
    expected = {"messages": {"seed": messages(200), "writes": writes}}
    for is_there in (False, True, False):
        line.reset()
        asked = other.aget_delta_channel_history(config=conf(), channels=["messages"])
        assert await asked == expected
        assert line.calls == {"get_delta_history": 1}
        assert (line.bytes < 1024) is is_there
        if is_there:
            spoil(other._reading.sessions.cache)


async def test_clones_share_what_they_keep(routers: Routers) -> None:
    saver, line = routers.saver("acme")
    await put(saver, 1, messages(200))
    assert await read(copy.copy(saver)) == messages(200)
    assert line.bytes < 2 * 200 * 512


async def test_a_deleted_or_pruned_thread_is_forgotten(routers: Routers) -> None:
    saver, _ = routers.saver("acme")
    cache = saver._reading.sessions.cache
    at = await put(saver, 1, messages(10))
    await saver.aprune(["t"])
    assert cache.held_bytes == 0
    await put(saver, 2, messages(11), at=at)
    await saver.adelete_for_runs(["any"])
    assert cache.held_bytes == 0
    await put(saver, 3, messages(12))
    await saver.adelete_thread("t")
    assert cache.held_bytes == 0


@pytest.mark.parametrize("remembered", [True, False], ids=["remembered", "long ago"])
async def test_a_thread_that_another_deleted_is_forgotten(
    routers: Routers, remembered: bool
) -> None:
    saver, _ = routers.saver("acme")
    other, _ = routers.saver("acme")
    await put(saver, 1, messages(10))
    await other.adelete_thread("t")
    if not remembered:
        saver._reading.sessions._threads.clear()
    assert await saver.aget_tuple(conf()) is None
    assert saver._reading.sessions.cache.held_bytes == 0


async def test_a_conversation_costs_little_more_than_what_is_said(routers: Routers) -> None:
    sent = {}
    for size in (limits.CACHE_BYTES_DEFAULT, 64 * KIB, 0):
        saver, line = routers.saver(f"acme-{size}", cache_bytes=size)
        for turn in range(1, 101):
            if turn > 1:
                assert await read(saver) == messages(2 * turn - 2)
            await put(saver, turn, messages(2 * turn))
        sent[size] = line.bytes
    assert sent[limits.CACHE_BYTES_DEFAULT] < 0.05 * sent[0]
    # Too small for the whole of it: worth nothing beyond its size, and no worse than none.
    assert sent[64 * KIB] < sent[0]


# ---- caches that lie ---------------------------------------------------------------------------


async def two_turns(routers: Routers) -> tuple[RouterSaver, Line, Any]:
    """A saver that has the second of two checkpoints, and where that is."""
    saver, line = routers.saver("acme")
    at = await put(saver, 1, messages(50))
    at = await put(saver, 2, messages(51), at=at)
    line.reset()
    return saver, line, at


async def test_a_base_that_was_pruned_costs_a_second_round_trip(routers: Routers) -> None:
    saver, line, at = await two_turns(routers)
    other, _ = routers.saver("acme", cache_bytes=0)
    beyond = await other.aget_tuple(conf())
    assert beyond is not None
    await put(other, 3, ["short"], at=beyond.config)
    await other.aprune(["t"])
    await put(saver, 4, messages(52), at=at)
    assert line.calls == {"put": 2}
    assert await read(other, checkpoint_id="00000004") == messages(52)


async def test_a_thread_that_was_made_anew_has_none_of_the_old_values(routers: Routers) -> None:
    saver, line, _ = await two_turns(routers)
    other, _ = routers.saver("acme")
    await other.adelete_thread("t")
    await put(other, 1, ["new"])
    assert await read(saver) == ["new"]
    assert line.calls == {"get_tuple": 2}
    line.reset()
    found = await saver.aget_tuple(conf())
    assert found is not None
    await put(saver, 2, messages(52), at=found.config)
    assert line.calls == {"get_tuple": 1, "put": 1}
    assert await read(other) == messages(52)


async def test_a_router_that_knows_nothing_by_heart_rebuilds_from_its_storage(
    routers: Routers,
) -> None:
    saver, line, at = await two_turns(routers)
    await routers.change()
    await put(saver, 3, messages(52), at=at)
    assert line.calls == {"put": 1}
    assert line.bytes < 3 * 512
    assert await read(routers.saver("acme")[0]) == messages(52)


async def test_bytes_that_changed_in_memory_are_neither_shown_nor_built_on(
    routers: Routers,
) -> None:
    saver, line, at = await two_turns(routers)
    cache = saver._reading.sessions.cache
    spoil(cache)
    assert await read(saver) == messages(51)
    assert line.calls == {"get_tuple": 1}
    spoil(cache)
    line.reset()
    await put(saver, 3, messages(52), at=at)
    assert line.calls == {"put": 1}
    assert await read(routers.saver("acme")[0]) == messages(52)


async def test_a_router_that_rebuilds_much_already_asks_for_whole_values(
    routers: Routers, monkeypatch: pytest.MonkeyPatch
) -> None:
    saver, line, at = await two_turns(routers)
    monkeypatch.setattr(limits, "REBUILT_BYTES_MAX", 40 * KIB)
    await put(saver, 3, messages(52), at=at)
    assert line.calls == {"put": 2}
    assert await read(routers.saver("acme")[0]) == messages(52)
    assert routers.engine._writing._rebuilt_bytes == 0


def lying(growth: Growth) -> Growth:
    """One that says something else than it should."""
    return structs.replace(growth, tail=growth.tail[:-1] + b"?")


async def test_a_growth_that_does_not_make_its_name_is_sent_whole(
    routers: Routers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as from a client with a fault. (The lie is ours; no client of ours tells it.)"""
    saver, line, at = await two_turns(routers)
    monkeypatch.setattr(puts, "growth_of", lambda blob: lying(growing.growth_of(blob)))
    await put(saver, 3, messages(52), at=at)
    assert line.calls == {"put": 2}
    assert await read(routers.saver("acme")[0]) == messages(52)


async def test_a_growth_that_a_router_got_wrong_is_fetched_whole(
    routers: Routers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as from a router with a fault. (The lie is ours; no router of ours tells it.)"""
    saver, line, _ = await two_turns(routers)
    other, _ = routers.saver("acme")
    found = await other.aget_tuple(conf())
    assert found is not None
    await put(other, 3, messages(52), at=found.config)

    growth_from = growing.growth_from

    def wrong(*given: Any) -> Growth | None:
        made = growth_from(*given)
        return made and lying(made)

    monkeypatch.setattr(growing, "growth_from", wrong)
    assert await read(saver) == messages(52)
    assert line.calls == {"get_tuple": 1, "get_blobs": 1}


async def test_what_is_evicted_while_a_read_is_on_its_way_is_still_there_for_it(
    routers: Routers, monkeypatch: pytest.MonkeyPatch
) -> None:
    saver, line, _ = await two_turns(routers)
    plain = line.acall

    async def acall(name: str, request: Any, **how: Any) -> Any:
        saver._reading.sessions.cache.clear()
        return await plain(name, request, **how)

    monkeypatch.setattr(line, "acall", acall)
    assert await read(saver) == messages(51)
    assert line.calls == {"get_tuple": 1}
