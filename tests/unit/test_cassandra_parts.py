"""Lists on Cassandra whose parts are renewed under two routers that put, remove and read.

The server is real. Where one step has to come between two others, the test says so to one object
of one of the routers.
"""

import asyncio
from functools import cache
from itertools import count
from typing import Any

import pytest

from checkpoint_router.backends.cassandra import CassandraStorage, parts
from checkpoint_router.backends.cassandra.check import CassandraShard
from checkpoint_router.backends.cassandra.listings import BEGINNING, SHARES, thread_line
from checkpoint_router.backends.cassandra.parts import Part, Parts, Versions
from checkpoint_router.backends.cassandra.statements import REMOVED, Name
from checkpoint_router.core.ids import ThreadKey
from checkpoint_router.server.diagnose import check
from checkpoint_router.storage.port import Append, Stored
from checkpoint_router.storage.scrub import Kind
from tests import builders as b
from tests.unit.test_cassandra_shared import one, two, url

__all__ = ["one", "two", "url"]  # fixtures

TENANT = "acme"
NAMES = (TENANT, "t0")
"""Where all threads of these tests stand, but of those that say otherwise."""


@cache
def named(name: str) -> str:
    """A thread's name, of that part."""
    names = (f"{name}-{number}" for number in count())
    return next(n for n in names if thread_line(ThreadKey(TENANT, n), 1, "")[:2] == NAMES)


def thread(name: str) -> ThreadKey:
    return ThreadKey(TENANT, named(name))


def checkpoint(key: ThreadKey) -> Append:
    head = b.header(b.token(key))
    event = b.checkpoint_event(key.thread, 1, checkpoint_id=f"c00000-{key.thread}", head=head)
    return b.append(event, thread=key)


async def put(storage: CassandraStorage, *names: str) -> None:
    for name in names:
        assert isinstance(await storage.append(checkpoint(thread(name))), Stored)


def parts_of(storage: CassandraStorage) -> Parts:
    return storage._parts.listings.parts


async def renew(storage: CassandraStorage) -> None:
    """Both lists of the tenant."""
    for part in (NAMES, newest_part()):
        await parts_of(storage).renew(part)


def newest_part() -> Part:
    return TENANT, "c" + "c00000-"[:BEGINNING]


async def listed(storages: tuple[CassandraStorage, ...], *names: str) -> None:
    """Each router has exactly these in both lists, whatever it asks for at once."""
    for storage in storages:
        for limit in (2, 100):
            found: list[str] = []
            while more := await storage.threads(TENANT, found[-1] if found else "", limit):
                found += more
            assert found == sorted(map(named, names))
            newest: list[tuple[str, str]] = []
            while rows := await storage.newest(TENANT, newest[-1] if newest else None, limit):
                newest += rows
            assert [name for _, name in newest] == sorted(map(named, names), reverse=True)


def reads(storage: CassandraStorage, monkeypatch: pytest.MonkeyPatch) -> list[Name]:
    """What the storage asks for from now on."""
    asked: list[Name] = []
    read = storage._parts.session.read

    def noted(name: Name, *values: Any) -> Any:
        asked.append(name)
        return read(name, *values)

    monkeypatch.setattr(storage._parts.session, "read", noted)
    return asked


async def stored(storage: CassandraStorage, name: str) -> int:
    """Rows of one partition of a list."""
    ask = storage._parts.session.read
    return len(await ask(Name.LIST_AFTER, TENANT, name, "", 1000))


async def test_a_tenants_threads_are_spread_over_parts_and_listed_in_the_order_of_their_names(
    one: CassandraStorage, two: CassandraStorage
) -> None:
    """Also names that say that they belong together, and where all that come next are of one
    part."""
    keys = [ThreadKey(TENANT, f"{{user}}:{number:02d}") for number in range(70)]
    keys += [thread(f"z{number:02d}") for number in range(30)]
    appends = [checkpoint(key) for key in keys]
    for storage, some in ((one, appends[::2]), (two, appends[1::2])):
        assert all(isinstance(a, Stored) for a in await asyncio.gather(*map(storage.append, some)))
    gone = keys[::7]
    await asyncio.gather(*(one.delete(key, 1) for key in gone))
    names = sorted(key.thread for key in keys if key not in gone)
    for limit in (1, 5, 200):
        found: list[str] = []
        while more := await two.threads(TENANT, found[-1] if found else "", limit):
            assert len(more) == min(limit, len(names) - len(found))
            found += more
        assert found == names
    sizes = [await stored(one, f"t{share:x}") for share in range(SHARES)]
    assert sum(sizes) == len(names)
    assert max(sizes[1:]) < 20


async def test_a_page_of_threads_asks_all_parts_once(
    one: CassandraStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And looks once whether they are still the parts; they need not be asked for a name each."""
    keys = [ThreadKey(TENANT, f"thread {number:03d}") for number in range(120)]
    await asyncio.gather(*(one.append(checkpoint(key)) for key in keys))
    asked = reads(one, monkeypatch)
    after = ""
    for first in range(0, 120, 10):
        asked.clear()
        found = await one.threads(TENANT, after, 10)
        assert found == [key.thread for key in keys[first : first + 10]]
        assert asked == [Name.LISTS_AFTER, Name.PARTS]
        after = found[-1]


async def test_checkpoints_that_lie_far_apart_are_found_in_more_and_more_parts_at_once(
    one: CassandraStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where one part has more of them than are asked for."""
    key = thread("a")
    ids = [
        f"{number:07d}-{same}" for number in range(40) for same in range(7 if number == 9 else 1)
    ]
    for index, id in enumerate(ids, 1):
        head = None if index > 1 else b.header(b.token(key))
        event = b.checkpoint_event(key.thread, index, checkpoint_id=id, head=head)
        assert isinstance(await one.append(b.append(event, thread=key)), Stored)
    asked = reads(one, monkeypatch)
    for limit in (3, 5, 100):
        found: list[tuple[str, str]] = []
        while rows := await one.newest(TENANT, found[-1] if found else None, limit):
            found += rows
        assert found == [(id, key.thread) for id in reversed(ids)]
    asked.clear()
    await one.newest(TENANT, None, 20)
    assert asked.count(Name.LISTS_BELOW) == 3


async def test_a_part_that_was_renewed_has_what_it_had_and_grows_and_shrinks_on(
    one: CassandraStorage, two: CassandraStorage
) -> None:
    await put(one, "a", "b", "c")
    await put(two, "d")
    for version in range(1, 4):
        await renew(one)
        assert await parts_of(two).look(NAMES) == Versions(version, version)
        await put(two, f"e{version}")
        await put(one, f"f{version}")
        await two.delete(thread(f"e{version}"), 1)
    await listed((one, two), "a", "b", "c", "d", "f1", "f2", "f3")
    assert (await stored(one, "t0"), await stored(one, "2t0"), await stored(one, "3t0")) == (
        0,
        0,
        7,
    )


async def test_a_part_is_renewed_after_so_many_removals_and_its_reads_meet_none_of_them(
    one: CassandraStorage, two: CassandraStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "RENEW_EACH", {"t": 5, "c": 5})
    await put(one, "stays")
    for number in range(12):
        await put(one, f"goes{number}")
        await one.delete(thread(f"goes{number}"), 1)
        while renewals := list(one._parts.listings._renewals.values()):
            await asyncio.wait(renewals)
    assert await parts_of(two).look(NAMES) == Versions(2, 2)
    assert await parts_of(two).look(newest_part()) == Versions(2, 2)
    await listed((one, two), "stays")


async def test_a_row_that_was_written_to_the_version_before_is_written_again(
    one: CassandraStorage, two: CassandraStorage
) -> None:
    """The put's router knows the version of long ago; all else is renewed before its batch is."""
    await put(two, "a")
    await renew(one)
    await put(two, "b")
    await listed((one, two), "a", "b")


async def test_a_row_that_is_written_while_its_part_is_copied_is_not_lost(
    one: CassandraStorage, two: CassandraStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(one, "a", "b")
    await put(two, "c")
    copy = Parts._copy

    async def overtaken(self: Parts, part: Part, version: int, to: int) -> None:
        await copy(self, part, version, to)
        monkeypatch.setattr(Parts, "_copy", copy)
        await put(two, "d")
        await two.delete(thread("b"), 1)
        await listed((one, two), "a", "c", "d")

    monkeypatch.setattr(Parts, "_copy", overtaken)
    await renew(one)
    await listed((one, two), "a", "c", "d")


async def test_a_row_that_was_read_for_the_copy_and_then_removed_stays_away(
    one: CassandraStorage, two: CassandraStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(one, "a", "b")
    assert await two.threads(TENANT, "", 9) == [named("a"), named("b")]
    session, together = one._parts.session, one._parts.session.together

    async def overtaken(changes: Any) -> None:
        rows = list(changes)
        if rows[0][0] is Name.LIST_PUT:
            monkeypatch.setattr(session, "together", together)
            await two.delete(thread("b"), 1)
        await together(rows)

    monkeypatch.setattr(session, "together", overtaken)
    await renew(one)
    await listed((one, two), "a")


async def test_a_read_of_a_version_that_is_dropped_under_it_reads_the_next_one(
    one: CassandraStorage, two: CassandraStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(one, "a", "b")
    await listed((two,), "a", "b")
    session, read = two._parts.session, two._parts.session.read

    async def overtaken(name: Name, *values: Any) -> Any:
        if name in (Name.LISTS_AFTER, Name.LIST_BELOW):
            monkeypatch.setattr(session, "read", read)
            await renew(one)
        return await read(name, *values)

    monkeypatch.setattr(session, "read", overtaken)
    assert await two.threads(TENANT, "", 9) == [named("a"), named("b")]
    monkeypatch.setattr(session, "read", overtaken)
    newest = await two.newest(TENANT, None, 9)
    assert [name for _, name in newest] == [named("b"), named("a")]


@pytest.mark.parametrize("step", ["lift", "_copy", "write"])
async def test_a_renewal_whose_router_died_half_way_hides_nothing_and_the_next_one_goes_on(
    one: CassandraStorage, two: CassandraStorage, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(one, "a", "b")
    await put(two, "c")
    mine = parts_of(one)
    owner = {"lift": mine._fences, "_copy": mine, "write": mine._session}[step]

    async def dies(*_: Any) -> None:
        raise asyncio.CancelledError

    monkeypatch.setattr(owner, step, dies)
    for part in (NAMES, newest_part()):
        with pytest.raises(asyncio.CancelledError):
            await mine.renew(part)
    monkeypatch.undo()
    await put(two, "d")
    await one.delete(thread("a"), 1)
    await listed((one, two), "b", "c", "d")
    await renew(two)
    await put(one, "e")
    await listed((one, two), "b", "c", "d", "e")
    assert (await stored(one, "t0"), (await parts_of(one).look(NAMES)).low > 0) == (0, True)


async def test_two_routers_that_put_remove_and_renew_at_once_lose_and_keep_nothing(
    one: CassandraStorage, two: CassandraStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "RENEW_EACH", {"t": 4, "c": 4})

    async def live(storage: CassandraStorage, name: str) -> None:
        for number in range(20):
            await put(storage, f"{name}{number:02d}")
            if number % 5:
                await storage.delete(thread(f"{name}{number:02d}"), 1)

    routers = {"x1-": one, "y1-": one, "x2-": two, "y2-": two}
    await asyncio.gather(*(live(storage, name) for name, storage in routers.items()))
    names = [f"{name}{n:02d}" for name in routers for n in range(0, 20, 5)]
    await listed((one, two), *names)
    assert (await parts_of(one).look(NAMES)).now > 3


async def test_a_look_through_the_storage_finds_what_a_renewed_part_lacks_and_mends_it(
    one: CassandraStorage, two: CassandraStorage, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CassandraShard, "grace_seconds", 0.0)
    await put(one, "a", "b")
    await renew(one)
    assert (await check(url, repair=False)).faults == []
    rows = await one._parts.session.read(Name.LIST_OF, TENANT, "1t0", named("a"), "1")
    for row in rows:
        await one._parts.session.write(Name.LIST_REMOVE, REMOVED, TENANT, "1t0", *row)
    assert await two.threads(TENANT, "", 9) == [named("b")]
    (fault,) = (await check(url, repair=True)).faults
    assert (fault.kind, fault.mended) == (Kind.INDEX, True)
    await listed((one, two), "a", "b")
