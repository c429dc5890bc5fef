"""Two routers on one storage: what one acknowledged, the other shows and builds on.

The storage is memory, seen by each router as a storage of its own: the rules are the engine's.
"""

import asyncio
from collections.abc import AsyncIterator
from copy import deepcopy
from dataclasses import dataclass

import pytest

from checkpoint_router.core.answers import PruneStrategy, ReadAnswer, Session
from checkpoint_router.core.errors import DigestMismatch, Stale, ThreadDeleted, Unavailable
from checkpoint_router.core.ids import ThreadKey
from checkpoint_router.core.records import Event, Header
from checkpoint_router.engine.engine import Engine
from checkpoint_router.storage.memory import MemoryStorage
from checkpoint_router.storage.port import Known, ThreadImage
from tests import builders as b


@dataclass
class Looked:
    """One look at a thread's index."""

    partial: bool
    entries: int


class Watched(MemoryStorage):
    """Notes every look at a thread's index, holds them back and fails them on demand. (A fake: no
    engine waits or fails when a test wants it.)"""

    def __init__(self, other: MemoryStorage) -> None:
        super().__init__()
        self._threads, self._key, self._shared = other._threads, other._key, True
        self.looks: list[Looked] = []
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.fails = False

    async def image(self, thread: ThreadKey, known: Known | None = None) -> ThreadImage:
        """As the storage's own."""
        image = await super().image(thread, known)
        self.looks.append(Looked(image.partial, len(image.entries)))
        await self.go_on.wait()
        if self.fails:
            raise Unavailable("it is away")
        return image


@dataclass
class Router:
    """An engine, with the few calls that the tests make."""

    engine: Engine

    async def read(self, session: Session | None = None, seconds: float = 5) -> ReadAnswer:
        """The newest checkpoint."""
        deadline = asyncio.get_running_loop().time() + seconds
        return await self.engine.get_tuple(b.THREAD, "", None, session, deadline=deadline)

    async def shows(self) -> str | None:
        """The id of the newest checkpoint."""
        found = (await self.read()).tuple
        return None if found is None else found.checkpoint_id

    async def put(self, event: Event, seconds: float = 5) -> None:
        """Stores one event."""
        deadline = asyncio.get_running_loop().time() + seconds
        answer = await self.engine.put(b.THREAD, event, None, [], deadline=deadline)
        assert answer.missing == ()

    async def step(self, name: str, gen: int = 1) -> Event:
        """A run that reads, and puts one checkpoint of its own name."""
        read = await self.read()
        event = first(name, read, gen)
        await self.put(event)
        return event


def first(name: str, read: ReadAnswer, gen: int = 1) -> Event:
    """The first event of a run that read that."""
    head = Header(token=read.token)
    hlc = read.clock.hlc + 1
    return b.checkpoint_event(name, checkpoint_id=f"c-{name}", head=head, hlc=hlc, gen=gen)


def later(name: str, index: int, before: Event) -> Event:
    """A further event of that run, after all the earlier ones."""
    after, hlc = ((1, index - 1),), before.hlc + 1
    return b.checkpoint_event(
        name, index, checkpoint_id=f"c-{name}-{index}", after=after, hlc=hlc, gen=before.gen
    )


async def looked(watched: Watched) -> None:
    """Until the second router has looked at the thread, and found that it must wait."""
    async with asyncio.timeout(5):
        while not watched.looks:
            await asyncio.sleep(0)


@pytest.fixture
async def one() -> AsyncIterator[Router]:
    """A router."""
    engine = Engine(MemoryStorage(), now_ms=lambda: 1 << 24, version="test")
    await engine.open()
    yield Router(engine)
    await engine.close()


@pytest.fixture
def watched(one: Router) -> Watched:
    """The storage of the first router, as the second one sees it."""
    storage = one.engine.shard.storage
    assert isinstance(storage, MemoryStorage)
    storage._shared = True
    one.engine.shard.threads._shared = True
    return Watched(storage)


@pytest.fixture
async def two(watched: Watched) -> AsyncIterator[Router]:
    """Another router on the same storage."""
    engine = Engine(watched, now_ms=lambda: 1 << 24, version="test")
    await engine.open()
    yield Router(engine)
    await engine.close()


async def test_a_read_shows_what_another_router_acknowledged(one: Router, two: Router) -> None:
    for name in ("a", "b", "c"):
        await one.step(name)
        assert await two.shows() == f"c-{name}"
    await two.step("d")
    assert await one.shows() == "c-d"


async def test_a_look_at_a_known_thread_brings_only_what_is_new(
    one: Router, two: Router, watched: Watched
) -> None:
    for name in ("a", "b", "c"):
        await one.step(name)
    await two.step("d")
    await one.step("e")
    watched.looks.clear()
    await two.shows()
    await two.shows()
    assert watched.looks == [Looked(partial=True, entries=1), Looked(partial=True, entries=0)]


async def test_reads_share_a_look_only_if_it_began_after_they_came(
    one: Router, two: Router, watched: Watched
) -> None:
    await one.step("a")
    await two.shows()
    watched.looks.clear()
    watched.go_on.clear()
    early = asyncio.ensure_future(two.shows())
    await looked(watched)
    await one.step("b")
    late = [asyncio.ensure_future(two.shows()) for _ in range(5)]
    await asyncio.sleep(0)
    watched.go_on.set()
    assert await asyncio.gather(*late) == ["c-b"] * 5
    await early
    assert len(watched.looks) == 2


async def test_reads_that_wait_for_a_look_that_fails_fail_with_it(
    one: Router, two: Router, watched: Watched
) -> None:
    await one.step("a")
    await two.shows()
    watched.looks.clear()
    watched.go_on.clear()
    watched.fails = True
    reads = [asyncio.ensure_future(two.shows()) for _ in range(5)]
    await looked(watched)
    watched.go_on.set()
    assert all(isinstance(r, Unavailable) for r in await _gathered(*reads))
    assert len(watched.looks) == 1
    watched.fails = False
    assert await two.shows() == "c-a"


async def _gathered(*calls: asyncio.Future[str | None]) -> list[object]:
    return list(await asyncio.gather(*calls, return_exceptions=True))


async def test_a_run_goes_on_at_another_router(one: Router, two: Router) -> None:
    await two.shows()
    event = await one.step("a")
    event = later("a", 2, event)
    await two.put(event)
    await one.put(later("a", 3, event))
    assert await two.shows() == "c-a-3"


async def test_a_put_waits_for_an_event_that_another_router_has_yet_to_take(
    one: Router, two: Router, watched: Watched
) -> None:
    read = await one.read()
    event = first("a", read)
    waiting = asyncio.ensure_future(two.put(later("a", 2, event)))
    await looked(watched)
    await one.put(event)
    await waiting
    assert await one.shows() == "c-a-2"


async def test_a_read_waits_for_what_its_session_knows(
    one: Router, two: Router, watched: Watched
) -> None:
    read = await one.read()
    session = Session(
        token=read.token, segment=b.segment("a"), acknowledged=((1, 1),), inside=False
    )
    with pytest.raises(Stale):
        await two.read(session, seconds=0.1)
    watched.looks.clear()
    waiting = asyncio.ensure_future(two.read(session))
    await looked(watched)
    await one.put(first("a", read))
    found = (await waiting).tuple
    assert found is not None
    assert found.checkpoint_id == "c-a"


async def test_a_retry_at_another_router_makes_no_second_event(
    one: Router, two: Router, watched: Watched
) -> None:
    read = await two.read()
    event = first("a", read)
    await one.put(event)
    await two.put(event)
    assert len((await watched.image(b.THREAD)).entries) == 1
    with pytest.raises(DigestMismatch):
        await two.put(b.checkpoint_event("a", head=Header(token=read.token), hlc=event.hlc + 5))


async def test_a_delete_at_one_router_ends_the_runs_at_the_other(one: Router, two: Router) -> None:
    event = await one.step("a")
    assert await two.shows() == "c-a"
    assert (await one.engine.delete_thread(b.THREAD, None, b"")).gen == 2
    with pytest.raises(ThreadDeleted):
        await two.put(later("a", 2, event))
    assert await two.shows() is None


async def test_a_run_that_began_after_a_delete_elsewhere_may_write_here(
    one: Router, two: Router
) -> None:
    await one.step("a")
    assert await two.shows() == "c-a"
    await one.engine.delete_thread(b.THREAD, None, b"")
    await two.put(first("b", await one.read(), gen=2))
    assert await one.shows() == "c-b"


async def test_what_was_pruned_at_one_router_is_not_shown_by_the_other(
    one: Router, two: Router
) -> None:
    for name in ("a", "b"):
        await one.step(name)
    assert await two.shows() == "c-b"
    await one.engine.prune("acme", ["t1"], PruneStrategy.KEEP_LATEST, b"1")
    deadline = asyncio.get_running_loop().time() + 5
    gone = await two.engine.get_tuple(b.THREAD, "", "c-a", None, deadline=deadline)
    assert gone.tuple is None
    assert await two.shows() == "c-b"


async def test_two_routers_that_prune_and_write_at_once_lose_nothing_that_is_shown(
    one: Router, two: Router
) -> None:
    async def writes(router: Router, name: str) -> None:
        for number in range(20):
            await router.step(f"{name}{number}")

    async def prunes(router: Router, number: int) -> None:
        for turn in range(10):
            request = bytes([number, turn])
            await router.engine.prune("acme", ["t1"], PruneStrategy.KEEP_LATEST, request)

    await asyncio.gather(writes(one, "x"), writes(two, "y"), prunes(one, 1), prunes(two, 2))
    last = await one.step("z")
    assert await two.shows() == last.checkpoint_id


def goes_back(watched: Watched, then: object) -> None:
    """The storage has what it had then. (A fake: servers do it in their own tests.)"""
    assert isinstance(then, dict)
    watched._threads.clear()
    watched._threads.update(deepcopy(then))


async def test_what_a_storage_lost_is_put_back_by_a_router_that_holds_it(
    one: Router, two: Router, watched: Watched
) -> None:
    await one.step("a")
    then = deepcopy(watched._threads)
    event = await one.step("b")
    await one.put(later("b", 2, event))
    goes_back(watched, then)
    assert await two.shows() == "c-a"
    assert await one.shows() == "c-b-2"
    assert await two.shows() == "c-b-2"


async def test_a_lost_delete_is_done_again_and_what_came_after_it_put_back(
    one: Router, two: Router, watched: Watched
) -> None:
    await one.step("a")
    then = deepcopy(watched._threads)
    await one.engine.delete_thread(b.THREAD, None, b"")
    await one.step("b", gen=2)
    goes_back(watched, then)
    assert await one.shows() == "c-b"
    assert await two.shows() == "c-b"


async def test_a_put_on_top_of_what_was_lost_puts_it_back_first(
    one: Router, watched: Watched
) -> None:
    then = deepcopy(watched._threads)
    event = await one.step("a")
    goes_back(watched, then)
    await one.put(later("a", 2, event))
    assert [e.id.index for e in (await watched.image(b.THREAD)).entries] == [1, 2]


async def test_what_nobody_holds_any_more_stays_lost_and_whoever_rests_on_it_is_told(
    one: Router, two: Router, watched: Watched
) -> None:
    then = deepcopy(watched._threads)
    event = await one.step("a")
    goes_back(watched, then)
    assert await two.shows() is None
    with pytest.raises(Stale):
        await two.put(later("a", 2, event), seconds=0.1)
    await two.step("b")
    assert await two.shows() == "c-b"


async def test_a_prune_elsewhere_is_no_loss(one: Router, two: Router, watched: Watched) -> None:
    for name in ("a", "b"):
        await one.step(name)
    assert await two.shows() == "c-b"
    await one.engine.prune("acme", ["t1"], PruneStrategy.KEEP_LATEST, b"1")
    stored = len(watched._threads[b.THREAD].payload)
    assert await two.shows() == "c-b"
    assert len(watched._threads[b.THREAD].payload) == stored


async def test_news_is_taken_in_after_what_it_rests_on_whatever_its_order(
    one: Router, two: Router, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    await two.shows()
    event = await one.step("a")
    await one.put(later("a", 2, event))
    await one.step("b")
    kept = watched.image

    async def backwards(thread: ThreadKey, known: Known | None = None) -> ThreadImage:
        image = await kept(thread, known)
        return ThreadImage(
            gen=image.gen,
            entries=image.entries[::-1],
            erasures=image.erasures,
            counts=image.counts,
            partial=image.partial,
        )

    monkeypatch.setattr(watched, "image", backwards)
    assert await two.shows() == "c-b"


async def test_news_that_rests_on_what_has_not_come_is_asked_for_again(
    one: Router, two: Router, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    await two.shows()
    event = await one.step("a")
    await one.put(later("a", 2, event))
    kept = watched.image

    async def without_its_first(thread: ThreadKey, known: Known | None = None) -> ThreadImage:
        image = await kept(thread, known)
        return ThreadImage(
            gen=image.gen, entries=image.entries[1:], counts=image.counts, partial=image.partial
        )

    monkeypatch.setattr(watched, "image", without_its_first)
    assert await two.shows() is None
    monkeypatch.setattr(watched, "image", kept)
    assert await two.shows() == "c-a-2"
