"""Checks for which the suite has no test of the same size: short stories that a fault spoils.

A scene is called as a test is; `on_shard` makes one of a test of the storage contract.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from checkpoint_router import RouterSaver
from checkpoint_router.core.answers import Session
from checkpoint_router.core.clock import ranges_of
from checkpoint_router.core.errors import DeadlineExceeded, RouterError, Stale, Unavailable
from checkpoint_router.core.ids import Dot, EventId, ThreadKey
from checkpoint_router.core.token import parse
from checkpoint_router.engine.engine import Engine
from checkpoint_router.storage.memory import MemoryStorage
from checkpoint_router.storage.port import Append, Appended, Stored
from tests import builders as b
from tests.contract.shard import BACKENDS, Shard
from tests.saver.calls import Calls
from tests.saver.conftest import conflicts_of
from tests.saver.shapes import TASK, body, chain, cid, conf
from tests.unit.sqlite_shard import checkpoint, on_writer, shard
from tests.wire.raw import ask_raw

SECONDS_MAX = 30.0

ROOT = Path(__file__).resolve().parents[2]


def on_shard(check: Callable[..., Any], backend: str = "sqlite", *, opened: bool = True) -> Any:
    """A test of the storage contract, on one backend in a directory of its own."""

    async def run(tmp_path: Path) -> None:
        shard = Shard(next(each for each in BACKENDS if each.name == backend), tmp_path)
        if opened:
            await shard.storage.open()
        have = {"shard": shard, "storage": shard.storage}
        try:
            wanted = inspect.signature(check).parameters
            await check(**{name: made for name, made in have.items() if name in wanted})
        finally:
            await shard.storage.close()

    return run


async def an_append_that_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    """The event cannot be written, when its values were."""
    async with shard(tmp_path) as storage:
        put = checkpoint(1)
        # Stands for a fault of the disk at this very page.
        refuse = "BEFORE INSERT ON main.event BEGIN SELECT RAISE(ABORT, 'planted'); END"
        on_writer(storage, f"CREATE TEMP TRIGGER refuse {refuse}")
        with pytest.raises(RouterError):
            await storage.append(put)
        assert (await storage.image(b.THREAD)).entries == ()
        assert await storage.missing_blobs(b.THREAD, 1, put.names) == put.names
        on_writer(storage, "DROP TRIGGER refuse")
        assert await storage.append(put) == Stored(Dot(storage.actor, 1))


class _Failing(MemoryStorage):
    """A storage that takes its time for an append, and then cannot write."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.go_on = asyncio.Event(), asyncio.Event()

    async def append(self, append: Append) -> Appended:
        self.asked.set()
        await self.go_on.wait()
        raise Unavailable("the disk is full.")


async def _put_on_its_way(storage: _Failing) -> tuple[Engine, asyncio.Task[Any]]:
    """An engine on that storage, which has been asked to store a put."""
    engine = Engine(storage, now_ms=lambda: b.FIRST_HLC >> 16, version="test")
    await engine.open()
    deadline = asyncio.get_running_loop().time() + SECONDS_MAX
    first = await engine.get_tuple(b.THREAD, "", None, None, deadline=deadline)
    event = b.checkpoint_event(head=b.header(first.token), hlc=first.clock.hlc + 1)
    put = asyncio.ensure_future(engine.put(b.THREAD, event, None, (), deadline=deadline))
    asked = asyncio.ensure_future(storage.asked.wait())
    await asyncio.wait({put, asked}, return_when=asyncio.FIRST_COMPLETED)
    asked.cancel()
    return engine, put


async def no_read_rests_on_an_event_that_was_never_stored() -> None:
    """Others read while a put is on its way to a storage that will refuse it."""
    storage = _Failing()
    engine, put = await _put_on_its_way(storage)
    deadline = asyncio.get_running_loop().time() + SECONDS_MAX
    meanwhile = await engine.get_tuple(b.THREAD, "elsewhere", None, None, deadline=deadline)
    storage.go_on.set()
    with pytest.raises(Unavailable):
        await put
    assert parse(meanwhile.token).seen == ()
    await engine.close()


async def a_put_is_answered_after_the_storage_has_it() -> None:
    """The answer to a put waits for the storage, and says what the storage says."""
    storage = _Failing()
    engine, put = await _put_on_its_way(storage)
    assert not put.done()
    storage.go_on.set()
    with pytest.raises(Unavailable):
        await put
    await engine.close()


async def a_read_inside_a_run_shows_its_own_line() -> None:
    """Two runs began on an empty thread; the one that loses reads what it wrote itself."""
    engine = Engine(MemoryStorage(), now_ms=lambda: b.FIRST_HLC >> 16, version="test")
    await engine.open()
    deadline = asyncio.get_running_loop().time() + SECONDS_MAX
    first = await engine.get_tuple(b.THREAD, "", None, None, deadline=deadline)
    for name, ahead in (("s1", 1), ("s2", 2)):
        event = b.checkpoint_event(
            name, checkpoint_id=name, head=b.header(first.token), hlc=first.clock.hlc + ahead
        )
        await engine.put(b.THREAD, event, None, (), deadline=deadline)
    outside = await engine.get_tuple(b.THREAD, "", None, None, deadline=deadline)
    assert outside.tuple is not None
    assert outside.tuple.checkpoint_id == "s2"
    for name in ("s1", "s2"):
        run = Session(
            token=first.token, segment=b.segment(name), acknowledged=((1, 1),), inside=True
        )
        found = await engine.get_tuple(b.THREAD, "", None, run, deadline=deadline)
        assert found.tuple is not None
        assert found.tuple.checkpoint_id == name
    await engine.close()


async def values_are_those_of_the_call(saver: RouterSaver) -> None:
    """They change between the call and the first moment in which anybody waits for it."""
    live = {"x": [1]}
    whole: Any = body(cid(1), live)
    at: Any = conf(checkpoint_id=cid(1))
    put = saver.aput(conf(), whole, {}, whole["channel_versions"])  # type: ignore[arg-type]  # as users write it
    write = saver.aput_writes(at, [("x", live)], TASK)
    live["x"].append(2)
    await asyncio.gather(put, write)
    found = await saver.aget_tuple(at)
    assert found is not None
    assert found.checkpoint["channel_values"] == {"x": [1]}
    assert found.pending_writes == [(TASK, "x", {"x": [1]})]


class _Lost:
    """In the place of a saver's links: calls that nobody answers in time, and what they were."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []

    def __call__(self, name: str, request: bytes, **_: Any) -> Any:
        self.requests.append(request)
        raise DeadlineExceeded("nobody waits any more.")


async def a_call_that_lands_after_it_was_given_up_is_no_rival(
    calls: Calls, saver: RouterSaver, router: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its sender waits no longer, reads anew and goes on; then the network delivers it after all.
    That it leaves no conflict is looked for after each check."""
    await chain(calls, [1])
    before = await calls.read(conf())
    lost = _Lost()
    with monkeypatch.context() as network:
        network.setattr(saver._links, "call", lost)
        with pytest.raises(DeadlineExceeded):
            await calls.put(before.config, body(cid(2)), {}, {})
    again = await calls.read(conf())
    await calls.put(again.config, body(cid(3)), {}, {})
    await asyncio.to_thread(ask_raw, router.address, "Put", lost.requests[0])
    assert (await calls.read(conf())).checkpoint["id"] == cid(3)


async def a_deleted_thread_has_no_conflicts(
    calls: Calls, another: Callable[..., Calls], admin: Any, tenant: str
) -> None:
    """Its rivals are gone, and with them what an operator is told of them."""
    other = another()
    await chain(calls, [1])
    left, right = await calls.read(conf()), await other.read(conf())
    await calls.put(left.config, body(cid(2)), {}, {})
    await other.put(right.config, body(cid(3)), {}, {})
    assert len((await asyncio.to_thread(conflicts_of, admin, tenant, "t")).conflicts) == 1
    await calls.delete_thread("t")
    assert not (await asyncio.to_thread(conflicts_of, admin, tenant, "t")).conflicts


async def a_run_goes_on_after_its_first_call_was_lost(
    calls: Calls, saver: RouterSaver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call that was lost was the first of its segment, and no router ever saw it."""
    await chain(calls, [1])
    at = (await calls.read(conf())).config
    with monkeypatch.context() as network:
        network.setattr(saver._links, "call", _Lost())
        with pytest.raises(DeadlineExceeded):
            await calls.put_writes(at, [("x", "lost")], TASK)
    await calls.put_writes(at, [("x", "kept")], TASK)
    assert (await calls.read(at)).pending_writes == [(TASK, "x", "kept")]


async def a_call_is_not_taken_without_the_one_before_it(
    calls: Calls, another: Callable[..., Calls], router: Any, tenant: str
) -> None:
    """The router loses an event that it had acknowledged; what the run does next rests on it."""
    await chain(calls, [1])
    stored = await calls.put(conf("t", "", cid(1)), body(cid(2)), {}, {})
    router.do(_lose_the_last_event(router.running.engine, ThreadKey(tenant, "t")))
    with pytest.raises(Stale):
        await calls.put(stored, body(cid(3)), {}, {})
    assert (await another().read(conf())).checkpoint["id"] == cid(1)


async def _lose_the_last_event(engine: Engine, thread: ThreadKey) -> None:
    """Takes the event out of the storage in memory, and has the engine read that again."""
    storage = engine.shard.storage
    assert isinstance(storage, MemoryStorage)
    kept = storage._threads[thread]
    last: EventId = list(kept.entries)[-1]
    del kept.entries[last], kept.payload[last]
    kept.indices[last.segment] = ranges_of(e.index for e in kept.entries)
    async with engine.shard.threads.use(thread) as state:
        state.doubtful = True


def a_forked_child_has_no_run_of_its_parent(plant: str = "") -> None:
    """In a process of its own, for this one has threads that a fork would leave behind."""
    said = subprocess.run(
        [sys.executable, "-m", "tests.planted.forked", plant],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert said.stdout.split() == ["parent", "True", "child", "False"], said.stdout + said.stderr


class Drawn:
    """In the place of hypothesis' data: always the same number, which a fault is known by."""

    def __init__(self, number: int) -> None:
        self._number = number

    def draw(self, strategy: object) -> int:
        return self._number
