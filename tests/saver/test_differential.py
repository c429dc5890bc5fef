"""Random sequences of calls, the same to us and to LangGraph's own savers: equal, but for `APART`.

The calls of a sequence come from one saver or, at random, from two, one after the other; configs
are written by hand or are those that an earlier call returned. A failure prints the one line that
repeats it: `CHECKPOINT_ROUTER_TEST_SEED=… pytest tests/saver/test_differential.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver

from checkpoint_router.core import limits

from .caches import EVICTING, Long
from .calls import Calls
from .conftest import MakeSaver
from .peers import Peer
from .script import Model, Script, Step
from .shapes import conf, parent_of

pytestmark = [pytest.mark.asyncio, pytest.mark.router_only]

SHARES = {
    ("sqlite", "sync"): range(300),
    ("sqlite", "async"): range(300, 600),
    ("memory", "sync"): range(200),
    ("redis", "async"): range(200, 400),
    ("cassandra", "sync"): range(400, 600),
}
"""Which sequences are played where: each on SQLite, and on one of the other storages. What a
sequence says of a storage it says through either half of the saver, and of a half on any storage.
"""
CHUNKS = 5
CACHES = (limits.CACHE_BYTES_DEFAULT, 0, EVICTING)
"""Of our savers, in turns: the usual one, none, and one that always makes room."""

LONG_EACH = 10
"""Of so many sequences one has values that are all long, so that no cache is left out."""

SEED = os.environ.get("CHECKPOINT_ROUTER_TEST_SEED")


@dataclass(frozen=True, slots=True, kw_only=True)
class Apart:
    """A justified difference: where a peer is not asked, and why."""

    why: str
    peers: frozenset[Peer]
    holds: Callable[[Step, Model], bool]
    for_good: bool = False
    """What the peer stores is other from here on, so it is left out of the rest."""


MEMORY: frozenset[Peer] = frozenset({"memory"})
SQLITE: frozenset[Peer] = frozenset({"sqlite"})
BOTH = MEMORY | SQLITE


def _newest_by_clock(step: Step, model: Model) -> bool:
    names_none = step.verb in ("get_tuple", "delta_history") and step.id is None
    return names_none and model.head(step.thread, step.ns) != model.greatest(step.thread, step.ns)


def _grouped(step: Step, model: Model) -> bool:
    several = step.thread is None or step.ns is None
    return step.verb == "list" and several and step.limit is not None


def _mixed_over_special(step: Step, model: Model) -> bool:
    return step.verb == "put_writes" and model.replaces_special_in_mixed_call(step)


APART = (
    Apart(
        why="peers' newest is the greatest id; ours is what was put last and has no child",
        peers=BOTH,
        holds=_newest_by_clock,
    ),
    Apart(
        why="it groups a list by thread and namespace, so a limit cuts off others",
        peers=MEMORY,
        holds=_grouped,
    ),
    Apart(
        why="it decides for a whole call whether special writes replace",
        peers=SQLITE,
        holds=_mixed_over_special,
        for_good=True,
    ),
    Apart(
        why="a `before` without an id gives nothing",
        peers=SQLITE,
        holds=lambda step, model: step.verb == "list" and step.before == "",
    ),
)
"""Beside these: the order of a list over several threads or namespaces is compared by id alone (one
peer groups it), and of a tuple's config its three keys (peers echo the caller's)."""


WRITES = ("put", "put_writes")


class Threads:
    """Who did what last on a thread, and the configs that our puts returned."""

    def __init__(self) -> None:
        self._writer: dict[str | None, int] = {}
        self._given: dict[tuple[str | None, str | None, str | None], Any] = {}
        self._fresh: dict[str | None, Any] = {}

    def is_news_to(self, step: Step) -> bool:
        """The other hand wrote on the thread since."""
        return self._writer.get(step.thread, step.hand) != step.hand

    def kept(self, step: Step) -> Any:
        """A config that an earlier put returned, which bears a token. A write takes it only while
        nothing else has happened on the thread: an older token means another, rival run."""
        found = self._given.get((step.thread, step.ns, step.id)) if step.keeps_config else None
        rivals = step.verb in WRITES and found is not self._fresh.get(step.thread)
        return None if rivals else found

    def learn(self, step: Step, answer: Any) -> None:
        """A step was taken."""
        if step.verb in (*WRITES, "delete_thread"):
            self._writer[step.thread] = step.hand
        if step.verb != "list":
            self._fresh.pop(step.thread, None)
        if step.verb == "put":
            config = {"configurable": answer}
            self._given[step.thread, step.ns, answer["checkpoint_id"]] = config
            self._fresh[step.thread] = config


async def perform(hand: Calls, step: Step, config: Any) -> Any:
    """The step on a saver, and what it answered in comparable form."""
    match step.verb:
        case "put":
            stored = await hand.put(config, step.checkpoint(), step.metadata, step.new_versions)
            return dict(stored["configurable"])
        case "put_writes":
            await hand.put_writes(config, step.writes, step.task, step.path)
        case "get_tuple":
            found = await hand.get_tuple(config)
            return None if found is None else plain(found)
        case "list":
            before = None if step.before is None else conf("t", "", step.before)
            listed = await hand.list(config, filter=step.filter, before=before, limit=step.limit)
            got = [plain(each) for each in listed]
            return sorted(got, key=lambda each: each["config"]["checkpoint_id"], reverse=True)
        case "delta_history":
            return await hand.delta_history(config, ["x", "d"])
        case "delete_thread":
            await hand.delete_thread(str(step.thread))
        case _:
            raise AssertionError(f"no such step: {step.verb}")
    return None


def plain(found: CheckpointTuple) -> dict[str, Any]:
    """A tuple without what savers may do as they please."""
    named = found.config["configurable"]
    return {
        "config": {key: named[key] for key in ("thread_id", "checkpoint_ns", "checkpoint_id")},
        "checkpoint": found.checkpoint,
        "metadata": dict(found.metadata),
        "parent": parent_of(found),
        "writes": found.pending_writes,
    }


def config_of(step: Step) -> Any:
    """The step's config, written by hand."""
    if step.thread is None:
        return None
    if step.ns is None:
        return {"configurable": {"thread_id": step.thread}}
    return conf(step.thread, step.ns, step.id)


async def compare(seed: int, ours: list[Calls], peers: dict[Peer, Calls]) -> None:
    """Plays one sequence on all; raises AssertionError with the line that repeats it."""
    script, asked, threads = Script(seed), dict(peers), Threads()
    for number, step in enumerate(script):
        config = config_of(step)
        hand = ours[step.hand]
        if step.verb in WRITES and threads.is_news_to(step):
            # As any run does: else it would say that it writes without knowing of the other hand.
            await hand.get_tuple(conf(step.thread))
        answer = await perform(hand, step, threads.kept(step) or config)
        threads.learn(step, answer)
        for name, peer in list(asked.items()):
            apart = [
                each for each in APART if name in each.peers and each.holds(step, script.model)
            ]
            expected = await perform(peer, step, config)
            if any(each.for_good for each in apart):
                del asked[name]
            elif not apart:
                assert answer == expected, repeat(seed, number, step, name)
        if _newest_by_clock(step, script.model) and step.verb == "get_tuple":
            head = script.model.head(str(step.thread), str(step.ns))
            assert answer is not None, repeat(seed, number, step, "the model")
            found = answer["config"]["checkpoint_id"]
            assert found == head, repeat(seed, number, step, "the model")
        script.model.learn(step)


def repeat(seed: int, number: int, step: Step, peer: str) -> str:
    """What to do to see it again."""
    return (
        f"step {number} ({step.verb}) differs from {peer}: {step}\n"
        f"CHECKPOINT_ROUTER_TEST_SEED={seed} pytest tests/saver/test_differential.py"
    )


@contextlib.contextmanager
def sqlite_peer() -> Any:
    """A SqliteSaver in memory, to be called from any worker."""
    with contextlib.closing(sqlite3.connect(":memory:", check_same_thread=False)) as connection:
        yield SqliteSaver(connection)


def sync(saver: BaseCheckpointSaver[Any]) -> Calls:
    """A peer, called through its sync half on the spot."""
    return _OnTheSpot(saver, "sync")


class _OnTheSpot(Calls):
    async def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return getattr(self.saver, method)(*args, **kwargs)

    async def list(self, config: Any, **kwargs: Any) -> list[CheckpointTuple]:
        return list(self.saver.list(config, **kwargs))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("chunk", [None] if SEED else range(CHUNKS))
async def test_random_calls_are_answered_as_by_langgraphs_own_savers(
    make_saver: MakeSaver, calls: Calls, storage: str, tenant: str, chunk: int | None
) -> None:
    share = SHARES[storage, calls.flavour]
    length = len(share) // CHUNKS
    seeds = [int(SEED or 0)] if chunk is None else share[chunk * length :][:length]
    for seed in seeds:
        serde = None if seed % LONG_EACH else Long()
        with sqlite_peer() as peer:
            peers: dict[Peer, Calls] = {"memory": sync(InMemorySaver()), "sqlite": sync(peer)}
            ours = [
                Calls(
                    make_saver(tenant=f"{tenant}-{seed}", cache_bytes=size, serde=serde),
                    calls.flavour,
                )
                for size in (CACHES[seed % 3], CACHES[(seed + 1) % 3])
            ]
            await compare(seed, ours, peers)
            for hand in ours:
                await asyncio.to_thread(hand.saver.close)  # type: ignore[attr-defined]
