"""A Redis that dies, and one that comes back with less than it had acknowledged."""

import asyncio
import signal
from collections import Counter

import pytest

from checkpoint_router.core.errors import Unavailable
from checkpoint_router.core.ids import Dot
from checkpoint_router.storage.port import Duplicate, Storage, Stored, ThreadImage
from scripts.redis_server import Server
from tests import builders as b
from tests.contract.child import checkpoint

from .redis_shard import OlderCopy, persist, router_on, server, stored

__all__ = ["server"]


async def write(storage: Storage, first: int, last: int) -> list[Dot]:
    """Appends the events of that many runs."""
    return [(await stored(storage, checkpoint(i))).dot for i in range(first, last + 1)]


@pytest.mark.parametrize("fsync", ["always", "everysec"])
async def test_a_server_killed_under_load_has_all_that_it_had_answered(
    server: Server, fsync: str
) -> None:
    server.command("CONFIG", "SET", "appendfsync", fsync)
    answered: dict[int, Dot] = {}

    async def caller(storage: Storage, first: int) -> None:
        for number in range(first, 1 << 20, 8):
            answer = await storage.append(checkpoint(number))
            assert isinstance(answer, Stored)
            answered[number] = answer.dot

    async with router_on(server.url) as storage:
        for round_ in range(1, 4):
            callers = [caller(storage, round_ * 10_000 + first) for first in range(8)]
            work = asyncio.gather(*callers, return_exceptions=True)
            async with asyncio.timeout(60):
                while len(answered) < 150 * round_:
                    await asyncio.sleep(0)
            server.stop(signal.SIGKILL)
            assert all(isinstance(end, Unavailable) for end in await work)
            server.start()
        image = await storage.image(b.THREAD)
        assert {checkpoint(n).entry.id for n in answered} <= {e.id for e in image.entries}
        assert max(Counter(answered.values()).values()) == 1
        assert sum(image.counts.values()) == len(image.entries)
        facts = await storage.facts()
    assert facts.alarms == ()


async def test_the_next_put_of_a_thread_notices_an_older_copy_and_gives_no_dot_again(
    server: Server,
) -> None:
    async with router_on(server.url) as storage:
        dots = await write(storage, 1, 3)
        older = OlderCopy(server)
        dots += await write(storage, 4, 6)
        older.put_back(server)
        answers = [await persist(storage, checkpoint(i)) for i in (7, 4, 5)]
        dots += [answer.dot for answer in answers if isinstance(answer, Stored)]
        assert len(dots) == len(set(dots)) == 9
        (alarm,) = (await storage.facts()).alarms
        assert "lost writes that it had acknowledged" in alarm
        assert await storage.append(checkpoint(3)) == Duplicate(checkpoint(3).entry.digest)


async def test_a_reader_notices_an_older_copy(server: Server) -> None:
    async with router_on(server.url) as storage, router_on(server.url) as reader:
        await write(storage, 1, 3)
        older = OlderCopy(server)
        await write(storage, 4, 6)
        known = (await reader.image(b.THREAD)).known
        older.put_back(server)
        image = await persistent_image(reader)
        assert not (await reader.image(b.THREAD, known)).partial
        assert len(image.entries) == 3
        assert (await reader.facts()).alarms != ()


async def persistent_image(storage: Storage) -> ThreadImage:
    """The thread, once the connection that died with the server is replaced."""
    while True:
        try:
            return await storage.image(b.THREAD)
        except Unavailable:
            pass


async def test_a_loss_is_noticed_too_when_others_have_written_as_much_again(
    server: Server,
) -> None:
    async with router_on(server.url) as storage, router_on(server.url) as reader:
        await write(storage, 1, 3)
        older = OlderCopy(server)
        await write(storage, 4, 6)
        await reader.image(b.THREAD)
        older.put_back(server)
        for number in range(10, 20):
            await persist(storage, checkpoint(number))
        assert len((await persistent_image(reader)).entries) == 13
        assert (await reader.facts()).alarms != ()


async def test_an_emptied_server_is_noticed_by_writers_and_readers(server: Server) -> None:
    async with router_on(server.url) as storage, router_on(server.url) as reader:
        dots = await write(storage, 1, 3)
        key = await storage.system_key()
        await reader.image(b.THREAD)
        server.command("FLUSHALL")
        assert (await reader.image(b.THREAD)).entries == ()
        assert (await reader.facts()).alarms != ()
        with pytest.raises(Unavailable, match="lost events"):
            await storage.append(checkpoint(4))
        dots += [(await stored(storage, checkpoint(i))).dot for i in range(1, 5)]
        assert len(set(dots)) == 7
        async with asyncio.timeout(20):
            while len(await storage.newest("acme", None, 10)) < 4:
                await asyncio.sleep(0.01)
    async with router_on(server.url) as later:
        assert await later.system_key() == key
        assert (await later.facts()).alarms == ()
