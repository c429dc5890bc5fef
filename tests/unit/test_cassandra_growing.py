"""Values that grow on one Cassandra under two routers: append logs that nobody guards.

The server is real; what stands in its tables is counted through a router's own session. Where a
request has to fail or to be overtaken at a certain moment, the test says so to one session.
"""

import asyncio
import random
from collections import Counter
from typing import Any

import pytest

from checkpoint_router.backends.cassandra import CassandraStorage, growing
from checkpoint_router.backends.cassandra.growing import unpack_path
from checkpoint_router.backends.cassandra.statements import BLOB, SEGMENT, Name
from checkpoint_router.core.answers import NewBlob
from checkpoint_router.core.errors import Unavailable
from checkpoint_router.core.ids import EventId
from checkpoint_router.storage.port import Append, Erase, MissingBlobs, Stored
from tests import builders as b
from tests.unit.test_cassandra_shared import Answers, one, two, url

__all__ = ["one", "two", "url"]  # fixtures

FIRST = b.new_blob(b"\x91" + b"a" * 4000)


def grown(base: NewBlob, tail: str, times: int = 100) -> NewBlob:
    """A list that `base` became."""
    return b.new_blob(base.value.data + tail.encode() * times, continues=base)


def chain(base: NewBlob, count: int, tail: str = "b") -> list[NewBlob]:
    """Ages of a list, each of which continues the one before it."""
    ages = [base]
    for _ in range(count):
        ages.append(grown(ages[-1], tail))
    return ages


def checkpoint(name: str, *blobs: NewBlob, sent: bool = True) -> Append:
    event = b.checkpoint_event(name, 1, checkpoint_id=f"c00000-{name}", blobs=blobs)
    return b.append(event, blobs=blobs if sent else ())


async def put(storage: CassandraStorage, name: str, *blobs: NewBlob) -> EventId:
    append = checkpoint(name, *blobs)
    answer = await storage.append(append)
    assert isinstance(answer, Stored), answer
    return append.entry.id


def erase(stored: int, events: list[EventId], blobs: list[NewBlob]) -> Erase:
    hashes = tuple(blob.hash for blob in blobs)
    return Erase(
        thread=b.THREAD,
        gen=1,
        operation=random.Random(str(events)).randbytes(16),
        events=tuple(events),
        blobs=hashes,
        stored=stored,
    )


async def readable(storages: tuple[CassandraStorage, ...], *blobs: NewBlob) -> None:
    """Each is there for each, whole."""
    for storage in storages:
        found = (await storage.blobs(b.THREAD, 1, [x.hash for x in blobs], 1 << 40)).found
        assert found == {x.hash: x.value for x in blobs}
        assert await storage.missing_blobs(b.THREAD, 1, [x.hash for x in blobs]) == ()


async def paths(storage: CassandraStorage) -> dict[bytes, list[growing.Path]]:
    """Where each value that grew stands."""
    of = (b.THREAD.tenant, b.THREAD.thread, 1, BLOB)
    found: dict[bytes, list[growing.Path]] = {}
    for hash, _, path in await storage._parts.session.read(Name.PATHS, *of):
        if path:
            found.setdefault(hash, []).append(unpack_path(path))
    return found


async def appended(storage: CassandraStorage) -> int:
    """Bytes in all logs."""
    session = storage._parts.session
    of = f"tenant = '{b.THREAD.tenant}' AND thread = '{b.THREAD.thread}' AND gen = 1"
    rows = await session.ask(
        f"SELECT body FROM {storage.target.keyspace}.thread WHERE {of} AND kind = {SEGMENT}"  # noqa: S608 - ours
    )
    return sum(len(body) for (body,) in rows)


@pytest.fixture
def asked(one: CassandraStorage, monkeypatch: pytest.MonkeyPatch) -> Counter[Name]:
    """What the first router's session reads."""
    counter: Counter[Name] = Counter()
    read = one._parts.session.read

    async def counted(name: Name, *values: Any) -> Any:
        counter[name] += 1
        return await read(name, *values)

    monkeypatch.setattr(one._parts.session, "read", counted)
    return counter


# What is stored ------------------------------------------------------------------------------


async def test_a_value_that_grows_costs_its_text_and_a_put_of_it_reads_the_fence_alone(
    one: CassandraStorage, two: CassandraStorage, asked: Counter[Name]
) -> None:
    ages = chain(FIRST, 30)
    await put(one, "s0", ages[0])
    asked.clear()
    for number, age in enumerate(ages[1:], 1):
        await put(one, f"s{number}", age)
    assert set(asked) == {Name.FENCE}
    assert await appended(one) == len(ages[-1].value.data) - 1
    assert {len(path) for some in (await paths(one)).values() for path in some} == {1}
    await readable((one, two), *ages)
    sizes = await two.blob_sizes(b.THREAD, 1, [age.hash for age in ages])
    assert sizes == {age.hash: len(age.value.data) for age in ages}


async def test_a_router_that_takes_over_reads_the_value_once_and_appends_only_what_is_new(
    one: CassandraStorage, two: CassandraStorage, asked: Counter[Name]
) -> None:
    ages = chain(FIRST, 3)
    for number, age in enumerate(ages):
        await put(two, f"s{number}", age)
    before = await appended(two)
    later = chain(ages[-1], 4)[1:]
    for number, age in enumerate(later):
        await put(one, f"t{number}", age)
    assert asked[Name.SEGMENTS] <= 3  # the first look at the thread, and the value
    assert await appended(one) - before == 400
    assert {len(p) for age in later for p in (await paths(one))[age.hash]} == {2}
    await readable((one, two), *ages, *later)


async def test_routers_that_take_turns_copy_rarely_and_no_value_stands_in_too_many_logs(
    one: CassandraStorage, two: CassandraStorage
) -> None:
    ages = chain(FIRST, 40)
    for number, age in enumerate(ages):
        await put((one, two)[number % 2], f"s{number}", age)
    assert max(len(p) for some in (await paths(one)).values() for p in some) <= growing.PATH_MAX
    assert await appended(one) < 5 * len(ages[-1].value.data)
    await readable((one, two), *ages)


async def test_a_log_of_many_appends_is_begun_anew(
    one: CassandraStorage, two: CassandraStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(growing, "PIECES_MAX", 4)
    ages = chain(FIRST, 12)
    for number, age in enumerate(ages):
        await put(one, f"s{number}", age)
    logs = {path[-1].log for some in (await paths(one)).values() for path in some}
    assert len(logs) == 3
    await readable((one, two), *ages)


async def test_a_fork_begins_where_its_base_ends_and_neither_branch_sees_the_other(
    one: CassandraStorage, two: CassandraStorage
) -> None:
    ages = chain(FIRST, 4)
    fork = chain(ages[2], 3, "f")[1:]
    for number, age in enumerate((*ages, *fork)):
        await put(one, f"s{number}", age)
    assert await appended(one) == len(ages[-1].value.data) - 1 + 300
    await readable((one, two), *ages, *fork)


# Two at once ---------------------------------------------------------------------------------


async def test_two_routers_that_grow_one_value_at_once_disturb_nobody(
    one: CassandraStorage, two: CassandraStorage
) -> None:
    await put(one, "s", FIRST)
    base = grown(FIRST, "b")
    await put(one, "t", base)
    await readable((two,), base)
    mine, yours = chain(base, 10, "m")[1:], chain(base, 10, "y")[1:]

    async def grow(storage: CassandraStorage, name: str, ages: list[NewBlob]) -> None:
        for number, age in enumerate(ages):
            await put(storage, f"{name}{number}", age)

    await asyncio.gather(grow(one, "m", mine), grow(two, "y", yours))
    await readable((one, two), FIRST, base, *mine, *yours)


async def test_a_tail_whose_batch_lands_late_is_its_own_value_and_nobody_elses(
    one: CassandraStorage, two: CassandraStorage
) -> None:
    base = grown(FIRST, "b")
    await put(one, "s", FIRST)
    await put(one, "t", base)
    late, early = grown(base, "l"), grown(base, "e", 90)
    answers = Answers(one)
    answers.drop = 1
    slow = asyncio.ensure_future(put(one, "late", late))
    while not answers.dropped:
        await asyncio.sleep(0)
    await put(two, "early", early)
    await slow
    await answers.land()
    await readable((one, two), base, late, early, FIRST)


async def test_a_batch_whose_tail_is_not_there_yet_is_not_shown(
    one: CassandraStorage, two: CassandraStorage
) -> None:
    """As a reader meets it that reads one replica that has the batch, and others that have not."""
    base = grown(FIRST, "b")
    await put(one, "s", FIRST)
    await put(one, "t", base)
    answers = Answers(one)
    answers.drop = 1 << 30
    late = grown(base, "l")
    slow = asyncio.ensure_future(put(one, "late", late))
    while not answers.dropped:
        await asyncio.sleep(0)
    rows = answers.dropped[0]
    tail = [row for row in rows if row[0] is Name.PUT_SEGMENT]
    assert len(tail) == 1
    await two._parts.session.together([row for row in rows if row not in tail])
    assert len((await two.image(b.THREAD)).entries) == 2
    assert await two.missing_blobs(b.THREAD, 1, [late.hash]) == (late.hash,)
    await two._parts.session.together(tail)
    assert len((await two.image(b.THREAD)).entries) == 3
    answers.drop = 0
    await slow
    await readable((one, two), late)


async def test_bytes_whose_fate_is_unknown_are_never_written_over(
    one: CassandraStorage, two: CassandraStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = grown(FIRST, "b")
    await put(one, "s", FIRST)
    await put(one, "t", base)
    session, write = one._parts.session, one._parts.session.write
    held: list[tuple[Any, ...]] = []

    async def lost(name: Name, *values: Any) -> None:
        if name is Name.PUT_SEGMENT:
            held.append((name, *values))
            raise Unavailable("timed out")
        await write(name, *values)

    monkeypatch.setattr(session, "write", lost)
    # Of two writings of one row the greater would win.
    gone, next_ = grown(base, "z", 100_000), grown(base, "n", 100_000)
    with pytest.raises(Unavailable, match="timed out"):
        await one.put_blobs(b.THREAD, 1, [gone])
    monkeypatch.setattr(session, "write", write)
    assert await one.put_blobs(b.THREAD, 1, [next_])
    after = grown(next_, "m")
    assert await one.put_blobs(b.THREAD, 1, [after])
    for row in held:
        await write(*row)
    await readable((one, two), base, next_, after)
    assert await two.missing_blobs(b.THREAD, 1, [gone.hash]) == (gone.hash,)


# Prunes --------------------------------------------------------------------------------------


async def test_a_prune_leaves_a_log_as_long_as_any_value_stands_in_it(
    one: CassandraStorage, two: CassandraStorage
) -> None:
    ages = chain(FIRST, 4)
    fork = grown(ages[2], "f")
    ids = [await put(one, f"s{n}", age) for n, age in enumerate(ages)]
    ids.append(await put(two, "fork", fork))
    assert await two.erase(erase(6, ids[:5], ages))
    await readable((one, two), fork)
    assert await one.missing_blobs(b.THREAD, 1, [a.hash for a in ages]) == tuple(
        a.hash for a in ages
    )
    later = grown(fork, "l")
    ids.append(await put(one, "later", later))
    await readable((one, two), fork, later)
    assert await one.erase(erase(7, ids[5:], [fork, later]))
    assert (await appended(one), await paths(one)) == (0, {})


@pytest.mark.parametrize("ahead", [False, True])
async def test_a_value_that_grew_from_one_that_was_pruned_elsewhere_is_asked_for(
    one: CassandraStorage, two: CassandraStorage, ahead: bool
) -> None:
    base = grown(FIRST, "b")
    ids = [await put(two, "s", FIRST), await put(two, "t", base)]
    await put(two, "kept")
    assert await one.erase(erase(3, ids, [FIRST, base]))
    late = grown(base, "l")
    if ahead:
        assert await two.put_blobs(b.THREAD, 1, [late])
    refused = await two.append(checkpoint("late", late, sent=not ahead))
    assert refused == MissingBlobs((late.hash,))
    await put(two, "late", late)
    await readable((one, two), late)
    assert len(await paths(one)) <= 1


async def test_a_prune_between_two_requests_of_a_read_is_no_loss(
    one: CassandraStorage, two: CassandraStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = grown(FIRST, "b")
    ids = [await put(one, "s", FIRST), await put(one, "t", base)]
    session, read = two._parts.session, two._parts.session.read

    async def overtaken(name: Name, *values: Any) -> Any:
        if name is Name.SEGMENTS:
            monkeypatch.setattr(session, "read", read)
            assert await one.erase(erase(2, ids, [FIRST, base]))
        return await read(name, *values)

    monkeypatch.setattr(session, "read", overtaken)
    assert (await two.blobs(b.THREAD, 1, [base.hash], 1 << 30)).found == {}


async def test_a_prune_that_a_read_noticed_first_is_noticed_by_the_put_under_way_too(
    one: CassandraStorage, two: CassandraStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The read loads all that the router knows of the thread anew, while the put's batch is on
    its way: as a prune that looked at the thread before the batch was anywhere."""
    base = grown(FIRST, "b")
    ids = [await put(two, "s", FIRST), await put(two, "t", base)]
    session, together = two._parts.session, two._parts.session.together

    async def overtaken(changes: Any) -> None:
        rows = list(changes)
        if any(name is Name.PUT_LOG for name, _ in rows):
            monkeypatch.setattr(session, "together", together)
            assert await one.erase(erase(2, ids, [FIRST, base]))
            assert len((await two.image(b.THREAD)).entries) == 2
        await together(rows)

    monkeypatch.setattr(session, "together", overtaken)
    late = grown(base, "l")
    assert await two.append(checkpoint("late", late)) == MissingBlobs((late.hash,))
    await put(two, "late", late)
    await readable((one, two), late)


async def test_any_sequence_of_growth_forks_prunes_and_changes_of_router_is_read_back(
    one: CassandraStorage, two: CassandraStorage
) -> None:
    chance = random.Random(11)
    live: dict[EventId, NewBlob] = {}
    stored = 0
    for turn in range(120):
        storage = chance.choice((one, two))
        if live and chance.random() < 0.12:
            gone = chance.sample(sorted(live), chance.randint(1, len(live)))
            left = {x.hash for id, x in live.items() if id not in gone}
            unnamed = [live[id] for id in gone if live[id].hash not in left]
            assert await storage.erase(erase(stored, gone, unnamed))
            live = {id: x for id, x in live.items() if id not in gone}
        else:
            ages = list(live.values()) or [FIRST]
            base = ages[-1] if chance.random() < 0.7 else chance.choice(ages)
            new = grown(base, chance.choice("xyz"), chance.randint(1, 3000))
            answer = await storage.append(checkpoint(f"s{turn}", new))
            if isinstance(answer, MissingBlobs):
                answer = await storage.append(checkpoint(f"s{turn}", new))
            assert isinstance(answer, Stored), answer
            stored += 1
            live[b.event_id(f"s{turn}")] = new
        if turn % 10 == 0:
            await readable((one, two), *live.values())
    await readable((one, two), *live.values())
    await one.erase(erase(stored, list(live), list(live.values())))
    assert (await appended(one), await paths(one)) == (0, {})
