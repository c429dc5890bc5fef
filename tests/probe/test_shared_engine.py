"""Two routers on one engine, whose agents all write one thread, while either is killed at random.

Afterwards the history that the engine has is looked at without any router: I4, I7, I8, I10, I11.
`CHECKPOINT_ROUTER_TEST_SECONDS=600` lets them write for so long instead of half a minute.
"""

import asyncio
import contextlib
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from checkpoint_router import RouterSaver
from checkpoint_router.core.clock import indices
from checkpoint_router.core.conflicts import conflicts
from checkpoint_router.core.digests import event_digest
from checkpoint_router.core.history import History
from checkpoint_router.core.ids import EventId, SegmentId, ThreadKey
from checkpoint_router.core.records import Entry, unpack_event
from checkpoint_router.core.token import parse
from checkpoint_router.storage.open import storage_from_url
from checkpoint_router.storage.port import ThreadImage
from checkpoint_router.testing import RunningRouter, running_router
from tests.contract import servers
from tests.probe.load import bytes_of
from tests.probe.rival import THREAD, digest
from tests.probe.test_crash import PROGRESS_SECONDS_MAX, ROOT, until

SECONDS = int(os.environ.get("CHECKPOINT_ROUTER_TEST_SECONDS", "30"))

pytestmark = [pytest.mark.crash, pytest.mark.timeout(370 + 3 * SECONDS)]

ENGINES: dict[str, Callable[[], str]] = {
    "redis": servers.redis,
    "cassandra": lambda: servers.cassandra("rivals"),
}
RIVALS = 4
READ_MAX = 1500
"""Checkpoints that are read through each router, chosen by chance if there are more: the line that
each bears is longer the longer they write. All are looked for in the storage."""


class Rivals:
    """The agents, half of them at each router, and what they noted."""

    def __init__(self, routers: Sequence[RunningRouter], directory: Path) -> None:
        self.logs = [directory / f"rival-{n}.jsonl" for n in range(RIVALS)]
        self.children = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.probe.rival", routers[n % 2].target, log, str(n)],
                stdin=subprocess.PIPE,
                cwd=ROOT,
            )
            for n, log in enumerate(self.logs)
        ]

    def notes(self) -> list[list[Any]]:
        """Every acknowledged call, but for a line that is just being written."""
        return [
            json.loads(line)
            for log in self.logs
            if log.exists()
            for line in log.read_text().splitlines(keepends=True)
            if line.endswith("\n")
        ]

    def have(self, goal: int) -> bool:
        """Whether so many calls were acknowledged."""
        return self.count() >= goal

    def count(self) -> int:
        """How many there are."""
        return sum(log.read_bytes().count(b"\n") for log in self.logs if log.exists())

    def each_has(self, calls: int) -> bool:
        """Whether each agent has had so many calls acknowledged; fails if one has died."""
        for child in self.children:
            assert child.poll() is None, f"agent {child.pid} ended with {child.returncode}"
        return all(log.exists() and log.read_bytes().count(b"\n") >= calls for log in self.logs)

    def stop(self) -> None:
        """Lets each agent end its turn, and waits for it."""
        for child in self.children:
            assert child.stdin is not None
            child.stdin.close()
        for child in self.children:
            assert child.wait(PROGRESS_SECONDS_MAX) == 0

    def kill(self) -> None:
        """Ends what is left, by pid."""
        for child in self.children:
            if child.poll() is None:
                child.kill()
                child.wait()


@contextlib.contextmanager
def rivals_at_work(routers: Sequence[RunningRouter], directory: Path) -> Iterator[Rivals]:
    rivals = Rivals(routers, directory)
    try:
        until(partial(rivals.each_has, 2), "every agent to have written something")
        yield rivals
    finally:
        rivals.kill()


def check_dots(image: ThreadImage, url: str) -> None:
    """I7: as many dots as events, and each event once. In Cassandra a batch may land after the
    retry that did not find it: then its event has two dots, and is one event."""
    dots = sum(image.counts.values())
    assert dots == len(image.entries) or (dots > len(image.entries) and "cassandra:" in url)
    assert len({e.id for e in image.entries}) == len(image.entries)


def check_order(image: ThreadImage) -> History:
    """I11: each event was stored after all that it rests on."""
    history = History(ThreadKey("load", THREAD), image.gen)
    for entry in image.entries:
        assert history.fold([entry]) == [], f"{entry.id} was stored before what it rests on"
    return history


def check_conflicts(history: History) -> None:
    """I8: the pairs of runs that did not see each other, from the tokens alone by full sets (one
    bit an event), are those on record, but for what somebody gave up."""
    bit = {entry.id: 1 << at for at, entry in enumerate(history.entries)}
    own: dict[SegmentId, int] = {}
    seen: dict[SegmentId, int] = {}
    for entry in history.entries:  # each after what it rests on
        segment = entry.id.segment
        own[segment] = own.get(segment, 0) | bit[entry.id]
        if entry.header is not None and segment not in seen:
            seen[segment] = 0
            for other, ranges in parse(entry.header.token).seen:
                seen[segment] |= seen[other]
                for index in indices(ranges):
                    seen[segment] |= bit[EventId(other, index)]
    headers = [entry.header for entry in history.entries if entry.header is not None]
    given_up = sum({bit[e] for header in headers for e in header.gives_up if e in bit})
    apart = {
        (min(one, other), max(one, other))
        for one, other in combinations(own, 2)
        if own[one] & ~seen[other] & ~given_up and own[other] & ~seen[one] & ~given_up
    }
    assert apart <= history.concurrent
    assert all((own[one] | own[other]) & given_up for one, other in history.concurrent - apart)
    records = conflicts(history)
    assert len({c.id for c in records}) == len(records)


async def check_storage(url: str, notes: Sequence[Sequence[Any]]) -> int:
    """All that can be seen without a router; nothing acknowledged is missing. Returns how many
    pairs of runs were concurrent."""
    storage = storage_from_url(url)
    await storage.open()
    try:
        thread = ThreadKey("load", THREAD)
        image = await storage.image(thread)
        check_dots(image, url)
        there = {
            (e.checkpoint_id, task)
            for e in image.entries
            for task in ([t.task_id for t in e.tasks] or [""])
        }
        assert {(id, said if kind == "writes" else "") for kind, id, said in notes} <= there
        history = check_order(image)
        check_conflicts(history)
        for start in range(0, len(image.entries), 64):
            await check_records(storage, thread, image.entries[start : start + 64])
        assert (await storage.facts()).alarms == ()
        return len(history.concurrent)
    finally:
        await storage.close()


async def check_records(storage: Any, thread: ThreadKey, entries: Sequence[Entry]) -> None:
    """I10: every event has its bytes, and all of its values."""
    read = await storage.records(thread, 1, [e.id for e in entries], 1 << 40)
    for entry in entries:
        assert event_digest(read.events[entry.id]) == entry.digest
        assert set(unpack_event(read.events[entry.id]).blobs()) <= set(read.blobs.found)


def check_answers(saver: RouterSaver, notes: Sequence[Sequence[Any]]) -> None:
    """I4: each of these checkpoints is there with the line that its run had in memory, and the
    newest one's line is listed."""
    for kind, id, said in notes:
        if kind != "put":
            continue  # A write after a rival had read the checkpoint is not on the winner's line.
        at: Any = {"configurable": {"thread_id": THREAD, "checkpoint_ns": "", "checkpoint_id": id}}
        found = saver.get_tuple(at)
        assert found is not None, f"{id} was acknowledged and is lost"
        values = found.checkpoint["channel_values"]
        assert (values["line"][-1], values["own"]) == (id, bytes_of(id, 2000))
        parent = found.parent_config
        before = [parent["configurable"]["checkpoint_id"]] if parent else []
        assert [digest(values["line"][:-1]), before] == said
    newest = saver.get_tuple({"configurable": {"thread_id": THREAD, "checkpoint_ns": ""}})
    assert newest is not None
    line = newest.checkpoint["channel_values"]["line"]
    listed = {
        t.config["configurable"]["checkpoint_id"]
        for t in saver.list({"configurable": {"thread_id": THREAD}})
    }
    assert set(line) <= listed


@pytest.mark.parametrize("engine", ENGINES)
def test_two_routers_killed_at_random_leave_a_history_that_holds(
    engine: str, tmp_path: Path
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}: decides which router is killed, and after how many calls")
    chance = random.Random(seed)
    url = ENGINES[engine]()
    kills = 0
    with running_router(url) as one, running_router(url) as two:
        with rivals_at_work((one, two), tmp_path) as rivals:
            ends = time.monotonic() + SECONDS
            while time.monotonic() < ends:
                goal = rivals.count() + chance.randint(1, 60)
                until(partial(rivals.have, goal), f"progress after {kills} kills")
                router = chance.choice((one, two))
                router.kill()
                router.start()
                kills += 1
            rivals.stop()
            notes = rivals.notes()
        concurrent = asyncio.run(check_storage(url, notes))
        read = chance.sample(notes, min(len(notes), READ_MAX))
        for router in (one, two):
            with RouterSaver(router.target, tenant="load") as saver:
                check_answers(saver, read)
    assert concurrent, "the agents were no rivals"
    print(f"{len(notes)} acknowledged calls, {kills} kills, {concurrent} concurrent pairs")
