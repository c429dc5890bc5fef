"""A Redis that is another one now: a replica took over, or a cluster moved its slots."""

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import redis as driver
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import empty_checkpoint

from checkpoint_router import RouterSaver
from checkpoint_router.core.answers import NewBlob
from checkpoint_router.core.errors import Refused, Unavailable
from checkpoint_router.core.ids import ThreadKey, slot_of
from checkpoint_router.storage.open import storage_from_url
from checkpoint_router.storage.port import Duplicate, Storage, Stored
from checkpoint_router.testing import running_router
from scripts.redis_server import Cluster, Server
from tests import builders as b
from tests.contract.child import checkpoint
from tests.contract.servers import need_redis
from tests.saver.proxy import Proxy

from .redis_shard import persist, router_on, server, stored

__all__ = ["server"]

MOVE_SECONDS_MAX = 200
"""About 5 on a quiet machine."""
SLOTS = 2300
"""Of the first primary, from 0 on."""
MOVED = (554, 2203, 2211)
"""Those of them that `THREADS` are in."""
THREADS = [ThreadKey("acme", f"t{number}") for number in range(12)]


@pytest.fixture
def replica(server: Server, tmp_path: Path) -> Iterator[Server]:
    """Of the server."""
    replica = Server(tmp_path / "replica", replicaof=f"127.0.0.1 {server.port}")
    replica.start()
    yield replica
    replica.stop(signal.SIGKILL)


async def test_a_replica_that_lagged_when_it_took_over_is_noticed_and_no_dot_is_given_again(
    server: Server, replica: Server
) -> None:
    with Proxy(f"router://127.0.0.1:{server.port}") as proxy:
        url = f"redis://{proxy.target.removeprefix('router://')}/0?timeout=1"
        async with router_on(url) as storage:
            dots = [(await stored(storage, checkpoint(i))).dot for i in (1, 2, 3)]
            async with asyncio.timeout(20):
                while replica.command("DBSIZE") != server.command("DBSIZE"):
                    await asyncio.sleep(0.01)
                size = server.command("STRLEN", "checkpoint-router:key")
                assert size == replica.command("STRLEN", "checkpoint-router:key")
            replica.command("REPLICAOF", "NO", "ONE")  # its link is down: it lags from now on
            dots += [(await stored(storage, checkpoint(i))).dot for i in (4, 5, 6)]
            server.stop(signal.SIGKILL)
            proxy.switch(f"router://127.0.0.1:{replica.port}")
            answers = [await persist(storage, checkpoint(i)) for i in (7, 4, 1)]
            dots += [answer.dot for answer in answers if isinstance(answer, Stored)]
            assert answers[2] == Duplicate(checkpoint(1).entry.digest)
            assert len(dots) == len(set(dots)) == 8
            assert len((await storage.image(b.THREAD)).entries) == 5
            assert "lost writes" in (await storage.facts()).alarms[0]


async def test_a_replica_is_refused(replica: Server) -> None:
    with pytest.raises(Refused, match="primary"):
        await storage_from_url(replica.url).open()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Three primaries of a test's own."""
    need_redis()
    cluster = Cluster(tmp_path / "cluster")
    cluster.start()
    yield cluster
    cluster.stop()


@pytest.fixture
def replicated(tmp_path: Path) -> Iterator[Cluster]:
    """The same, with a replica of the last one."""
    need_redis()
    cluster = Cluster(tmp_path / "cluster", replicated=True)
    cluster.start()
    yield cluster
    cluster.stop()


def lag(primary: Server, replica: Server) -> None:
    """The replica has all that was written before, and nothing of what comes after."""
    with closing(driver.Redis(port=primary.port)) as client:
        client.set(f"of the test {{{slot_of(b.THREAD.thread)}}}", "")
        assert client.wait(1, 20_000) == 1
        os.kill(replica.pid, signal.SIGSTOP)
        client.client_kill_filter(_type="replica")


def put_next(saver: RouterSaver, after: RunnableConfig, id: str) -> RunnableConfig:
    checkpoint = {**empty_checkpoint(), "id": id}
    return saver.put(after, checkpoint, {}, {})  # type: ignore[arg-type]


@pytest.mark.crash
@pytest.mark.timeout(180)
async def test_a_replica_of_a_cluster_that_lagged_takes_over_and_what_it_lacks_is_put_back(
    replicated: Cluster,
) -> None:
    primary, (replica,) = replicated.servers[-1], replicated.replicas
    url = f"{primary.url}?timeout=1"  # the one that dies: its routers know the others by then
    thread = ThreadKey("default", b.THREAD.thread)
    head: RunnableConfig = {"configurable": {"thread_id": thread.thread, "checkpoint_ns": ""}}
    with running_router(url) as router, RouterSaver(router.target, timeout_seconds=60) as saver:
        async with router_on(url) as storage:
            dots = [(await stored(storage, checkpoint(i))).dot for i in (1, 2, 3)]
            at = head
            for number in (1, 2, 3):
                at = await asyncio.to_thread(put_next, saver, at, f"c{number}")
            await asyncio.to_thread(lag, primary, replica)
            dots += [(await stored(storage, checkpoint(i))).dot for i in (4, 5, 6)]
            for number in (4, 5, 6):
                at = await asyncio.to_thread(put_next, saver, at, f"c{number}")
            primary.stop(signal.SIGKILL)
            with pytest.raises(Unavailable, match="may be repeated"):
                await storage.append(checkpoint(7))
            os.kill(replica.pid, signal.SIGCONT)
            at = await asyncio.to_thread(put_next, saver, at, "c7")
            answers = [await persist(storage, checkpoint(i)) for i in (7, 4, 1)]
            dots += [answer.dot for answer in answers if isinstance(answer, Stored)]
            assert answers[2] == Duplicate(checkpoint(1).entry.digest)
            assert len(dots) == len(set(dots)) == 8
            image = await storage.image(b.THREAD)
            assert sum(image.counts.values()) == len(image.entries) == 5
            assert "lost writes" in (await storage.facts()).alarms[0]
            image = await storage.image(thread)
            assert sum(image.counts.values()) == len(image.entries) == 7
        found = await asyncio.to_thread(lambda: list(saver.list(head)))
        assert [one.checkpoint["id"] for one in found] == [f"c{n}" for n in range(7, 0, -1)]
        assert "lost acknowledged" in router.log_text()


async def grow(storage: Storage, thread: ThreadKey, done: asyncio.Event) -> list[NewBlob]:
    """Appends checkpoints whose value grows, until all is done and then some."""
    ages = [b.new_blob(b"\xdc\x00\x01" + b"x" * 2000)]
    while not done.is_set() or len(ages) < 10:
        age = b.new_blob(ages[-1].value.data + b"more" * 20, continues=ages[-1])
        event = b.checkpoint_event(f"s{len(ages)}", checkpoint_id=f"c{len(ages)}", blobs=[age])
        append = b.append(event, thread=thread, blobs=[age])
        assert isinstance(await persist(storage, append), Stored | Duplicate)
        ages.append(age)
    return ages[1:]


async def move_slots(cluster: Cluster) -> None:
    """From the first primary to the second."""
    one, two, _ = [server.command("CLUSTER", "MYID", bulk=True) for server in cluster.servers]
    words = f"--cluster reshard 127.0.0.1:{cluster.servers[0].port} --cluster-from {one}"
    words += f" --cluster-to {two} --cluster-slots {SLOTS} --cluster-yes --cluster-pipeline 50"
    moving = await asyncio.create_subprocess_exec(
        "redis-cli", *words.split(), stdout=asyncio.subprocess.DEVNULL
    )
    try:
        assert await asyncio.wait_for(moving.wait(), MOVE_SECONDS_MAX) == 0
    finally:
        if moving.returncode is None:
            moving.kill()


@pytest.mark.crash
@pytest.mark.timeout(300)
async def test_slots_that_move_under_load_lose_nothing_and_double_nothing(
    cluster: Cluster,
) -> None:
    async with router_on(cluster.url) as storage:
        done = asyncio.Event()
        async with asyncio.TaskGroup() as group:  # Ends them too when the move fails.
            growing = [group.create_task(grow(storage, thread, done)) for thread in THREADS]
            await move_slots(cluster)
            done.set()
        second = cluster.servers[1]
        keys = [second.command("CLUSTER", "COUNTKEYSINSLOT", str(slot)) for slot in MOVED]
        assert all(int(count) > 0 for count in keys)
        for thread, ages in zip(THREADS, (g.result() for g in growing), strict=True):
            image = await storage.image(thread)
            assert sum(image.counts.values()) == len(image.entries) == len(ages)
            read = await storage.blobs(thread, 1, [age.hash for age in ages], 1 << 40)
            assert len(read.found) == len(ages)
        assert (await storage.facts()).alarms == ()
