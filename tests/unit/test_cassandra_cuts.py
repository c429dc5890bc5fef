"""A Cassandra whose connections are cut in the middle of requests and answers."""

import asyncio
import contextlib
import random
from collections import Counter

import pytest

from checkpoint_router.backends.cassandra import backend, session
from checkpoint_router.core.errors import Unavailable
from checkpoint_router.storage.open import storage_from_url
from checkpoint_router.storage.port import Stored
from tests import builders as b
from tests.contract import servers
from tests.contract.child import checkpoint
from tests.saver.proxy import Proxy

from .redis_shard import persist, router_on

PUTS, AT_ONCE = 240, 12
CUTS = 25
HANGS_SECONDS = 3 * backend.CALL_SECONDS
"""No call may take as long, however often it was cut."""


async def test_connections_cut_at_any_byte_lose_nothing_and_make_nothing_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}: decides after how many bytes the connections are cut")
    chance = random.Random(seed)
    monkeypatch.setattr(session, "_RECONNECT_SECONDS", 0.02)
    url = servers.cassandra()
    real = url.split("/")[2]
    answered: dict[int, Stored] = {}
    cuts = 0

    with Proxy(f"router://{real}") as proxy:
        through = url.replace(real, proxy.target.removeprefix("router://"))
        async with router_on(through) as storage:

            async def put(first: int) -> None:
                for number in range(first, PUTS, AT_ONCE):
                    async with asyncio.timeout(HANGS_SECONDS):
                        answer = await persist(storage, checkpoint(number))
                    if isinstance(answer, Stored):  # Else its answer was lost: a duplicate.
                        answered[number] = answer

            async def read() -> None:
                while True:
                    with contextlib.suppress(Unavailable):
                        async with asyncio.timeout(HANGS_SECONDS):
                            before = len(answered)
                            assert len((await storage.image(b.THREAD)).entries) >= before
                    await asyncio.sleep(0)

            reads = asyncio.ensure_future(read())
            puts = asyncio.gather(*(put(first) for first in range(AT_ONCE)))
            while not puts.done() and cuts < CUTS:
                proxy.cut_after(chance.randint(1, 1 << chance.randint(5, 18)))
                while proxy.is_to_cut and not puts.done():
                    await asyncio.sleep(0.001)  # between two looks at the condition
                cuts += 1
            await puts
            reads.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reads
    assert cuts > CUTS // 2, "it was cut too seldom to tell anything"
    direct = storage_from_url(url)
    await direct.open()
    image = await direct.image(b.THREAD)
    await direct.close()
    assert Counter(e.id for e in image.entries) == {checkpoint(i).entry.id: 1 for i in range(PUTS)}
    dots = [answer.dot for answer in answered.values()]
    assert len(dots) == len(set(dots))
    assert sum(image.counts.values()) == PUTS
