"""Durable on return: a process is killed right after a verb returned, and another one looks."""

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest
import pytest_asyncio

from checkpoint_router.core.ids import EventId
from checkpoint_router.storage.port import Duplicate, OtherGeneration
from tests import builders as b

from .child import BLOB, OPERATION, checkpoint
from .shard import BACKENDS, Backend, Shard

ROOT = Path(__file__).parents[2]


@pytest.fixture(params=[x for x in BACKENDS if x.survives_its_process], ids=lambda x: x.name)
def backend(request: pytest.FixtureRequest) -> Backend:
    """Backends that promise more than memory does."""
    chosen: Backend = request.param
    return chosen


class Lines:
    """What a child says."""

    def __init__(self, out: IO[str]) -> None:
        self._out = out
        self.rest: list[list[str]] = []
        """Acknowledged and not read before it was killed."""

    def next(self) -> list[str]:
        """The words of the next line, after its `ack`."""
        words = self._out.readline().split()
        assert words[:1] == ["ack"], words
        return words[1:]

    def close(self) -> None:
        """Reads what is left of a child that has ended."""
        self.rest = [line.split()[1:] for line in self._out.read().splitlines()]
        self._out.close()


@contextmanager
def child(shard: Shard, task: str, number: int = 1) -> Iterator[Lines]:
    """A process doing `task`, whose lines can be read; it is killed at the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.contract.child", shard.url, task, str(number)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    lines = Lines(process.stdout)
    try:
        yield lines
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=20)
        lines.close()


@pytest_asyncio.fixture
async def shard(backend: Backend, tmp_path: Path) -> AsyncIterator[Shard]:
    """A storage that is not open yet: a child opens it first."""
    shard = Shard(backend, tmp_path)
    yield shard
    await shard.storage.close()


async def test_an_append_outlives_its_process(shard: Shard) -> None:
    with child(shard, "append") as lines:
        lines.next()
    await shard.storage.open()
    expected = checkpoint(1)
    assert (await shard.storage.image(b.THREAD)).entries == (expected.entry,)
    read = await shard.storage.events(b.THREAD, 1, [expected.entry.id])
    assert read == {expected.entry.id: expected.packed}
    values = await shard.storage.blobs(b.THREAD, 1, expected.names, 1 << 20)
    assert values.found == {x.hash: x.value for x in expected.blobs}
    assert await shard.storage.append(expected) == Duplicate(expected.entry.digest)
    assert (await shard.storage.facts()).alarms == ()


async def test_blobs_outlive_their_process(shard: Shard) -> None:
    with child(shard, "put_blobs") as lines:
        assert lines.next() == ["True"]
    await shard.storage.open()
    assert (await shard.storage.blobs(b.THREAD, 1, [BLOB.hash], 99)).found == {
        BLOB.hash: BLOB.value
    }


async def test_a_delete_outlives_its_process(shard: Shard) -> None:
    with child(shard, "delete") as lines:
        assert lines.next() == ["2"]
    await shard.storage.open()
    assert (await shard.storage.image(b.THREAD)).gen == 2
    assert await shard.storage.append(checkpoint(2)) == OtherGeneration(2)


async def test_a_prune_outlives_its_process(shard: Shard) -> None:
    with child(shard, "erase") as lines:
        assert lines.next() == ["True"]
    await shard.storage.open()
    assert await shard.storage.erased(b.THREAD, OPERATION)
    assert [e.erased for e in (await shard.storage.image(b.THREAD)).entries] == [True]
    assert await shard.storage.events(b.THREAD, 1, [checkpoint(1).entry.id]) == {}


async def test_the_system_key_outlives_the_process_that_made_it(shard: Shard) -> None:
    with child(shard, "system_key") as lines:
        (key,) = lines.next()
    await shard.storage.open()
    assert (await shard.storage.system_key()).hex() == key


async def test_processes_killed_under_load_lose_no_answered_event_and_share_no_dot(
    shard: Shard,
) -> None:
    acks: dict[int, tuple[str, str]] = {}
    for round_ in range(5):
        with child(shard, "flood", 1_000_000 * round_) as lines:
            seen = [lines.next() for _ in range(20 + 40 * round_)]
        for number, actor, n in seen + lines.rest:
            acks[int(number)] = (actor, n)
    assert max(Counter(acks.values()).values()) == 1, "two events share a dot"
    await shard.storage.open()
    entries = (await shard.storage.image(b.THREAD)).entries
    by_actor: dict[str, list[int]] = {}
    for actor, n in acks.values():
        by_actor.setdefault(actor, []).append(int(n))
    assert len(by_actor) == 5
    stored = {e.id for e in entries}
    assert len(stored) == len(entries), "an event is there twice"
    expected = {number: checkpoint(number) for number in acks}
    assert {a.entry.id for a in expected.values()} <= stored
    ids: list[EventId] = [a.entry.id for a in expected.values()]
    read = await shard.storage.events(b.THREAD, 1, ids)
    assert read == {a.entry.id: a.packed for a in expected.values()}
    hashes = [h for a in expected.values() for h in a.names]
    assert await shard.storage.missing_blobs(b.THREAD, 1, hashes) == ()
    assert (await shard.storage.facts()).alarms == ()
