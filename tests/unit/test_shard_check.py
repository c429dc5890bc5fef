"""Looks through whole storages: each kind of damage is found, and what is an index is mended."""

import asyncio
import random
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from checkpoint_router.backends.cassandra import check as cassandra_check
from checkpoint_router.backends.cassandra.check import CassandraShard
from checkpoint_router.backends.cassandra.listings import Listings
from checkpoint_router.backends.cassandra.session import Session
from checkpoint_router.backends.cassandra.statements import Name
from checkpoint_router.backends.redis import check as redis_check
from checkpoint_router.backends.redis import layout
from checkpoint_router.backends.sqlite import check as sqlite_check
from checkpoint_router.core.errors import InvalidArgument, Unavailable
from checkpoint_router.core.ids import ThreadKey, slot_of
from checkpoint_router.server.diagnose import check
from checkpoint_router.storage.port import Erase, Storage, Stored
from checkpoint_router.storage.scrub import Kind, Report
from tests import builders as b
from tests.contract import servers

from . import damage
from .redis_shard import router_on

Plant = Callable[[str, int], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """A real one, and its table of damage."""

    name: str
    url: Callable[[Path], str]
    cases: dict[str, set[Kind]]
    plant: Plant
    """Gets the URL, and the actor of whoever wrote."""
    records: Callable[[str], Any]


def _of(*tables: Any) -> dict[str, set[Kind]]:
    return {name: kinds for table in tables for name, (_, kinds) in table.items()}


def _redis(name: str, url: Callable[[], str], *, cluster: bool) -> Engine:
    return Engine(
        name=name,
        url=lambda _: url(),
        cases=_of(damage.REDIS),
        plant=lambda url, _: damage.damage_redis(url, cluster=cluster),
        records=lambda url: damage.records_of_redis(url, cluster=cluster),
    )


ENGINES = (
    Engine(
        name="sqlite",
        url=lambda d: f"sqlite:{d}/shard",
        cases=_of(damage.SQLITE),
        plant=lambda url, _: damage.damage_sqlite(url),
        records=damage.records_of_sqlite,
    ),
    _redis("redis", servers.redis, cluster=False),
    _redis("redis-cluster", servers.redis_cluster, cluster=True),
    Engine(
        name="cassandra",
        url=lambda _: servers.cassandra("check"),
        cases=_of(damage.CASSANDRA_LISTS, damage.CASSANDRA),
        plant=damage.damage_cassandra,
        records=damage.records_of_cassandra,
    ),
)


@pytest.fixture(params=ENGINES, ids=lambda engine: engine.name)
def engine(request: pytest.FixtureRequest) -> Engine:
    chosen: Engine = request.param
    return chosen


@pytest.fixture
def url(engine: Engine, tmp_path: Path) -> str:
    """Of an empty storage."""
    return engine.url(tmp_path)


GRACE_SECONDS = 1.0
"""No put of a test is under way for longer, on a server that is well."""


@pytest.fixture(autouse=True)
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CassandraShard, "grace_seconds", GRACE_SECONDS)


COMMAND_LINE = f"""
from checkpoint_router.backends.cassandra.check import CassandraShard
from checkpoint_router.cli import main
CassandraShard.grace_seconds = {GRACE_SECONDS}
main()
"""
"""The same in a process of its own."""


async def look(url: str, *, repair: bool = False, begin: str = "") -> Report:
    """On a loop of its own, as a process of its own has one."""
    return await asyncio.to_thread(lambda: asyncio.run(check(url, repair=repair, begin=begin)))


async def look_and_stop(url: str) -> Report:
    """As Ctrl-C ends it."""

    def interrupt(done: int, total: int) -> None:
        task = asyncio.current_task()
        assert task is not None
        if 16 < done <= 24:
            task.cancel()

    return await asyncio.to_thread(
        lambda: asyncio.run(check(url, repair=False, progress=interrupt))
    )


def found(report: Report) -> dict[str, set[Kind]]:
    """Kinds of what is broken still, by thread."""
    kinds: dict[str, set[Kind]] = {}
    for fault in report.faults:
        if not fault.mended:
            name = fault.thread.thread if fault.thread else fault.record
            kinds.setdefault(name, set()).add(fault.kind)
    return kinds


async def test_each_damage_is_found_and_what_is_an_index_is_mended(
    engine: Engine, url: str
) -> None:
    threads = [ThreadKey("acme", name) for name in engine.cases]
    async with router_on(url) as storage:
        await asyncio.gather(*(damage.fill(storage, thread) for thread in threads))
        actor = storage.actor
    whole = await look(url)
    assert (found(whole), whole.threads, whole.events) == ({}, len(threads), 4 * len(threads))
    await asyncio.to_thread(engine.plant, url, actor)
    before = await asyncio.to_thread(engine.records, url)

    assert found(await look(url)) == {name: kinds for name, kinds in engine.cases.items() if kinds}
    assert await asyncio.to_thread(engine.records, url) == before, "a look changes nothing"

    mended = await look(url, repair=True)
    only_index = {name for name, kinds in engine.cases.items() if Kind.INDEX in kinds}
    assert {f.thread.thread for f in mended.faults if f.thread and f.mended} == only_index
    left = found(await look(url))
    assert left == found(mended)
    assert left == {
        n: kinds - {Kind.INDEX} for n, kinds in engine.cases.items() if kinds - {Kind.INDEX}
    }
    assert await asyncio.to_thread(engine.records, url) == before, "records are never touched"


async def test_a_mended_index_is_the_one_that_was_there(engine: Engine, url: str) -> None:
    """What routers ask of the lists, and a put that comes twice, get the answers of before."""
    names = ["a", "b", "c"]
    async with router_on(url) as storage:
        await asyncio.gather(*(damage.fill(storage, ThreadKey("acme", name)) for name in names))
    async with router_on(url) as storage:
        before = await answers(storage, names)
    await asyncio.to_thread(_lose_all_lists, engine, url)
    assert not (await look(url)).whole
    assert (await look(url, repair=True)).whole
    async with router_on(url) as storage:
        assert await answers(storage, names) == before
    assert (await look(url)).faults == []


async def answers(storage: Storage, names: list[str]) -> list[Any]:
    """Of every verb that rests on an index."""
    asked: list[Any] = [
        await storage.threads("acme", "", 99),
        await storage.newest("acme", None, 99),
        await storage.threads_of_runs("acme", ["r3"]),
        *[await storage.slot_threads(slot_of(name), None, 99) for name in names],
    ]
    for name in names:
        (first, *_) = damage.appends(ThreadKey("acme", name))
        asked.append(await storage.append(first))
        asked.append(await storage.image(ThreadKey("acme", name)))
    return asked


async def test_a_look_that_stops_goes_on_from_its_cursor_and_reads_each_thread_once(
    engine: Engine, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name, value in (
        (sqlite_check, "_AT_ONCE", 16),
        (cassandra_check, "_AT_ONCE_THREADS", 16),
        (cassandra_check, "_NAMES_MAX", 40),
        (redis_check, "_PAGE", 16),
        (redis_check, "_NAMES_MAX", 20),
    ):
        monkeypatch.setattr(module, name, value)
    cases = list(engine.cases)
    names = [*cases[::2], *(f"t{number}" for number in range(48 - len(cases))), *cases[1::2]]
    async with router_on(url) as storage:
        await asyncio.gather(*(damage.fill(storage, ThreadKey("acme", name)) for name in names))
        actor = storage.actor
    await asyncio.to_thread(engine.plant, url, actor)
    whole = await look(url)
    assert whole.threads == len(names)
    part = await look_and_stop(url)
    assert part.stopped == "it was interrupted."
    parts = part, await look(url, begin=part.cursor)
    assert (parts[1].begun, parts[1].cursor, parts[1].stopped) == (part.cursor, "", "")
    assert all(part.threads and part.faults for part in parts)
    for count in ("threads", "events", "values"):
        assert sum(getattr(part, count) for part in parts) == getattr(whole, count)
    in_parts = [fault for part in parts for fault in part.faults]
    assert sorted(map(repr, in_parts)) == sorted(map(repr, whole.faults))
    with pytest.raises(InvalidArgument, match="no cursor of a look through"):
        await look(url, begin="another:7")


async def test_a_cassandra_that_is_away_while_names_are_read_costs_none_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its silence is a fake: which of many requests meets it cannot be had otherwise."""
    url, threads = servers.cassandra("check"), 9
    async with router_on(url) as storage:
        keys = [ThreadKey("acme", f"thread {number}") for number in range(threads)]
        await asyncio.gather(*(damage.fill(storage, key) for key in keys))
    read = Session.read
    failed: list[Name] = []

    def fails_once(session: Session, asked: Name, *values: Any) -> Any:
        if asked is Name.ALL_THREADS and not failed:
            failed.append(asked)
            raise Unavailable("Cassandra did not serve a request.")
        return read(session, asked, *values)

    monkeypatch.setattr(Session, "read", fails_once)
    report = await look(url)
    assert (report.threads, report.faults, len(failed)) == (threads, [], 1)


def _lose_all_lists(engine: Engine, url: str) -> None:
    if engine.name == "sqlite":
        with closing(damage.sqlite_rows(url)) as conn, conn:
            for name in ("event_id", "event_newest", "event_run", "thread_name"):
                conn.execute(f"DROP INDEX {name}")
            conn.execute("UPDATE event SET cid = NULL, run = NULL")
            conn.execute("UPDATE thread SET slot = 0")
    elif engine.name == "cassandra":
        with closing(damage.CassandraRows(url)) as rows:
            rows.run("TRUNCATE KS.listing")
    else:
        with closing(damage.redis_client(url, cluster=engine.name != "redis")) as client:
            for key in list(client.scan_iter("*")):
                if any(b"}:%c" % kind in key for kind in b"ceijnrt") or b":slots:" in key:
                    client.delete(key)


async def test_a_redis_that_lost_what_belongs_to_no_thread_is_named() -> None:
    url = servers.redis()
    async with router_on(url) as storage:
        await damage.fill(storage)
    slot = slot_of(b.THREAD.thread)
    with closing(damage.redis_client(url, cluster=False)) as client:
        key = client.getdel(layout.SYSTEM_KEY)
        (fault,) = (await look(url, repair=True)).faults
        assert (fault.kind, fault.record) == (Kind.RECORD, "the key that seals tokens")
        client.set(layout.SYSTEM_KEY, key)
        client.delete(layout.slot_key(slot))
        (fault,) = (await look(url)).faults
        assert (fault.kind, fault.record) == (Kind.NOTE, f"slot {slot}")
        client.hset(layout.slot_key(slot), mapping={"inc": "x" * 16, "seq": 6})
        for lost in client.scan_iter(f"cr:{{{slot}}}:*"):
            if lost != layout.slot_key(slot):
                client.delete(lost)
        (fault,) = (await look(url, repair=True)).faults
        assert (fault.kind, fault.record) == (Kind.LOG, f"slot {slot}")
        assert "counted 6 writes" in fault.text


async def test_a_check_and_a_repair_beside_writers_find_nothing_and_do_no_harm(
    engine: Engine, url: str
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}: decides what the writers do")
    over = asyncio.Event()
    shared = engine.name != "sqlite"  # there a repair is refused while a router has it
    async with AsyncExitStack() as routers:
        storages = [await routers.enter_async_context(router_on(url)) for _ in range(1 + shared)]
        writers = [Writer(storage, number, seed) for storage in storages for number in range(2)]
        writing = [asyncio.create_task(writer.write(over)) for writer in writers]
        for number in range(2 if engine.name == "cassandra" else 8):  # there a look takes seconds
            repair = shared and number % 2 == 1
            puts = sum(writer.puts for writer in writers)
            report = await look(url, repair=repair)
            broken = [f for f in report.faults if f.kind is not Kind.NOTE]
            assert broken == []
            async with asyncio.timeout(30):
                while sum(writer.puts for writer in writers) < puts + 10:
                    await asyncio.sleep(0)
        over.set()
        await asyncio.gather(*writing)
        images = [await writer.storage.image(writer.thread) for writer in writers]
        assert [len(image.entries) for image in images] == [len(w.stored) for w in writers]
    assert (await look(url)).faults == []


async def test_a_put_of_which_half_is_there_at_the_first_look_is_no_damage(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The rows in the lists are held up, which cannot be had of a server that is well."""
    url = servers.cassandra("check")
    may_write, has_written = asyncio.Event(), threading.Event()
    loop, write = asyncio.get_running_loop(), Listings.write

    async def late(*args: Any, **named: Any) -> Any:
        await may_write.wait()
        return await write(*args, **named)

    def between_the_looks(done: int, total: int) -> None:
        loop.call_soon_threadsafe(may_write.set)
        assert has_written.wait(30)

    monkeypatch.setattr(Listings, "write", late)
    async with router_on(url) as storage, router_on(url) as other:
        put = asyncio.create_task(storage.append(damage.appends()[0]))
        put.add_done_callback(lambda _: has_written.set())
        async with asyncio.timeout(30):
            while not (await other.image(b.THREAD)).entries:
                await asyncio.sleep(0)
        report = await asyncio.to_thread(
            lambda: asyncio.run(check(url, repair=False, progress=between_the_looks))
        )
        assert isinstance(await put, Stored)
    assert (report.events, report.faults) == (1, [])


class Writer:
    """Puts, prunes and deletes, in a thread of its own."""

    def __init__(self, storage: Storage, number: int, seed: int) -> None:
        self.storage = storage
        self.thread = ThreadKey("acme", f"{number} of {storage.actor:x}")
        self.puts = 0
        self.stored: list[Any] = []
        """Of the live generation."""
        self._chance = random.Random(f"{seed} {number}")
        self._gen = 1

    async def write(self, over: asyncio.Event) -> None:
        while not over.is_set():
            await self._put()
            if self._chance.random() < 0.2:
                await self._prune()
            if len(self.stored) == 12:
                self._gen = await self.storage.delete(self.thread, self._gen)
                self.stored.clear()

    async def _put(self) -> None:
        index = len(self.stored) + 1
        value = b.new_blob(b"\xdc\x00\x01" + b"x" * 3000 + bytes(index))
        event = b.checkpoint_event(
            f"s{self._gen}",
            index,
            checkpoint_id=f"c{index}",
            run_id=f"r{index}",
            gen=self._gen,
            blobs=[value],
            head=b.header(b.token(self.thread, gen=self._gen)) if index == 1 else None,
        )
        self.stored.append(b.append(event, thread=self.thread, blobs=[value]))
        assert isinstance(await self.storage.append(self.stored[-1]), Stored)
        self.puts += 1

    async def _prune(self) -> None:
        gone = self._chance.choice(self.stored)
        erase = Erase(
            thread=self.thread,
            gen=self._gen,
            operation=self._chance.randbytes(16),
            events=(gone.entry.id,),
            blobs=gone.names,
            stored=len(self.stored),
        )
        assert await self.storage.erase(erase)


async def test_a_repair_that_is_killed_is_finished_by_the_next(engine: Engine, url: str) -> None:
    names = [f"t{number}" for number in range(12)]
    async with router_on(url) as storage:
        await asyncio.gather(*(damage.fill(storage, ThreadKey("acme", name)) for name in names))
    await asyncio.to_thread(_lose_all_lists, engine, url)
    before = await asyncio.to_thread(engine.records, url)
    command = [sys.executable, "-c", COMMAND_LINE, "shard", "check", "--repair"]
    repair = await asyncio.create_subprocess_exec(*command, "--storage", url)
    with _watched(engine, url) as some_are_back:
        async with asyncio.timeout(60):
            while repair.returncode is None:
                if await asyncio.to_thread(some_are_back):
                    repair.kill()
                    await repair.wait()
                await asyncio.sleep(0.005)  # the repair is to have the processor
    assert (await look(url, repair=True)).whole
    assert (await look(url)).faults == []
    assert await asyncio.to_thread(engine.records, url) == before


@contextmanager
def _watched(engine: Engine, url: str) -> Iterator[Callable[[], bool]]:
    """Tells whether some of what `_lose_all_lists` took is back."""
    if engine.name == "sqlite":

        def listed() -> bool:
            with closing(damage.sqlite_rows(url)) as conn:
                return bool(conn.execute("SELECT 1 FROM event WHERE cid IS NOT NULL").fetchone())

        yield listed
    elif engine.name == "cassandra":
        with closing(damage.CassandraRows(url)) as rows:
            yield lambda: bool(rows.run("SELECT k1 FROM KS.listing LIMIT 1"))
    else:
        with closing(damage.redis_client(url, cluster=engine.name != "redis")) as client:
            yield lambda: any(b"}:n" in key for key in client.scan_iter("*"))
