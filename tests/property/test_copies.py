"""A copied thread shows what its source shows, whatever happened to the source before."""

from __future__ import annotations

import pytest

from checkpoint_router.core import view
from checkpoint_router.core.accept import Accepted, accept
from checkpoint_router.core.conflicts import conflicts
from checkpoint_router.core.copying import Copy
from checkpoint_router.core.digests import event_digest
from checkpoint_router.core.history import History, bits
from checkpoint_router.core.ids import ThreadKey
from checkpoint_router.core.records import Event, entry_of, pack_event
from checkpoint_router.core.token import unseal

from .histories import play, random_history
from .world import KEY, NAMESPACES, Replica, World

TARGET = ThreadKey("acme", "copy")


def copy_of(replica: Replica, target: History | None = None, most: int | None = None) -> History:
    """Every event of the copy is one that a router would accept, in the order of the source.
    `most`: the copy fails after so many."""
    source, target = replica.history, target or History(TARGET, 3)
    ids = [source.entries[p].id for p in bits(source.all & ~source.erased)]
    stored = [replica.stored[id.segment, id.index] for id in ids]
    copy = Copy(source, target, KEY)
    for event in copy.events(stored)[:most]:
        assert isinstance(judged(target, event), Accepted)
        packed = pack_event(event)
        target.apply(entry_of(event, event_digest(packed)))
    if most is None:
        target.erase(target.entries[p].id for p in bits(copy.outdated(target)))
    return target


def judged(target: History, event: Event) -> object:
    assert event.header is not None
    token = unseal(event.header.token, KEY)
    digest = event_digest(pack_event(event))
    return accept(target, event, digest, token, now_ms=10**15)


def shown(history: History) -> dict[str, object]:
    """What a reader sees, without the names of segments, which a copy has anew."""
    line = bits(history.lineage(history.winner()).mask & ~history.erased)
    entries = [history.entries[p] for p in sorted(line, key=history.order)]
    return {
        "lineage": [(e.kind, e.ns, e.checkpoint_id, e.tasks) for e in entries],
        "heads": heads_of(history),
        "list": list(view.listed(history)),
        "list with losers": list(view.listed(history, losers=True)),
    }


def heads_of(history: History) -> dict[str, object]:
    heads = {ns: view.newest(history, ns) for ns in NAMESPACES}
    return {ns: s and (s.checkpoint.checkpoint_id, len(s.writes)) for ns, s in heads.items()}


def comparable(history: History) -> bool:
    """Two tips of one stamp are told apart by their names, and a tip whose last event was pruned
    has another stamp: then another tip may win in the copy."""
    ends = [history.segments[t].events[history.segments[t].last_index] for t in history.tips]
    stamps = {(history.entries[p].term, history.entries[p].hlc) for p in ends}
    return len(stamps) == len(ends) and not any(history.erased >> p & 1 for p in ends)


@pytest.mark.parametrize("first", range(0, 120, 40))
def test_a_copy_shows_what_its_source_shows(first: int) -> None:
    compared = pruned = 0
    for seed in range(first, first + 40):
        world = World(processes=1 + seed % 4, replicas=1 + seed % 3)
        play(world, random_history(seed, 100), [])
        for replica in world.replicas:
            source, target = replica.history, copy_of(replica)
            if not comparable(source):
                continue
            assert shown(target) == shown(source), f"seed {seed}"
            if source.erased:
                pruned += 1
                continue
            compared += 1
            records = [
                sorted((sorted(c.kinds), c.open) for c in conflicts(h)) for h in (source, target)
            ]
            assert records[0] == records[1], f"seed {seed}"
    assert compared
    assert pruned


def test_a_repeated_copy_makes_the_same_events() -> None:
    world = play(World(processes=3, replicas=1), random_history(11, 80), [])
    (replica,) = world.replicas
    one, two = copy_of(replica), copy_of(replica)
    assert one.entries
    assert [e.digest for e in one.entries] == [e.digest for e in two.entries]


@pytest.mark.parametrize("first", range(0, 120, 40))
def test_a_copy_that_failed_midway_and_is_repeated_later_is_like_one_that_did_not(
    first: int,
) -> None:
    """The source has gone on meanwhile, and was pruned."""
    repeated = pruned = 0
    for seed in range(first, first + 40):
        world = World(processes=1 + seed % 4, replicas=1)
        (replica,) = world.replicas
        actions = random_history(seed, 100)
        play(world, actions[:60], [])
        gen, before = replica.history.gen, replica.history.erased
        target = copy_of(replica, most=len(replica.history.entries) * (seed % 5) // 4)
        play(world, actions[60:], [])
        source = replica.history
        if source.gen != gen or not comparable(source):
            continue
        copy_of(replica, target)
        entries = len(target.entries)
        assert len(copy_of(replica, target).entries) == entries, "a copy again brings nothing"
        repeated += 1
        pruned += source.erased != before
        assert shown(target) == shown(source), f"seed {seed}"
    assert repeated
    assert pruned


@pytest.mark.parametrize("seed", [445, 748])
def test_a_copy_is_cut_where_its_source_is_though_the_checkpoint_there_was_pruned(
    seed: int,
) -> None:
    """At a write, then: what else was written on that checkpoint is not part of it."""
    world = play(World(processes=1 + seed % 4, replicas=1), random_history(seed, 100), [])
    (replica,) = world.replicas
    assert shown(copy_of(replica)) == shown(replica.history)
