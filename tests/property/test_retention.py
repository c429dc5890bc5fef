"""I12: what a prune leaves reads back as before, values spread over ancestors included.

The payloads are invented: what a checkpoint stores follows from its name, so that any history has
some. The reader here is the one of the product: parents by id on the shown lineage for channels
that are rebuilt, earlier checkpoints of the lineage for values named by their version alone.
"""

from __future__ import annotations

import pytest

from checkpoint_router.core import view
from checkpoint_router.core.history import History, bits
from checkpoint_router.core.records import Kind
from checkpoint_router.core.retention import Needs, prunable, removable

from .histories import play, random_history
from .world import World, name_of

DELTA = frozenset({"messages"})


class Payloads:
    """What each checkpoint of a history stores."""

    def __init__(self, history: History) -> None:
        self.history = history

    def __call__(self, position: int) -> Needs:
        entry = self.history.entries[position]
        if entry.kind is not Kind.CHECKPOINT:
            return Needs(
                delta_channels=frozenset(),
                stored=frozenset(),
                by_version=frozenset(),
                holds=frozenset(),
                root_id=None,
            )
        number = entry.digest[0]
        version: frozenset[tuple[str, object]] = frozenset({("docs", number // 4 % 3)})
        named = number % 2 == 0
        return Needs(
            delta_channels=DELTA,
            stored=DELTA if number // 16 % 4 == 0 else frozenset(),
            by_version=version if named else frozenset(),
            holds=frozenset() if named else version,
            root_id=None,
        )


def value_by_version(needs: Payloads, shown: view.Shown) -> object:
    history = needs.history
    wanted = needs(history.position(shown.checkpoint.id)).by_version
    if not wanted:
        return "its own"
    for earlier in view.earlier(history, shown.lineage, shown.checkpoint):
        if wanted & needs(history.position(earlier.id)).holds:
            return name_of(earlier.id)
    return None


def rebuilt(needs: Payloads, shown: view.Shown) -> list[object]:
    """Where the walk along the parents takes the channel from: writes, and the stored value."""
    history, found, walked = needs.history, list[object](), {shown.checkpoint.checkpoint_id}
    at: view.Shown | None = shown
    while at is not None and not needs(history.position(at.checkpoint.id)).stored:
        parent = at.parent_id
        if parent is None or parent in walked:
            return found
        walked.add(parent)
        at = view.by_id(history, at.checkpoint.ns, parent, at.lineage)
        found += [] if at is None else [name_of(w) for w in at.writes]
    found += [] if at is None else [name_of(at.checkpoint.id)]
    return found


def read(needs: Payloads) -> dict[tuple[str, str], object]:
    """Every checkpoint by its id, and every head."""
    history, out = needs.history, dict[tuple[str, str], object]()
    for name in history.checkpoints:
        shown = view.by_id(history, *name)
        if shown is not None:
            writes = tuple(name_of(w) for w in shown.writes)
            value = value_by_version(needs, shown)
            out[name] = name_of(shown.checkpoint.id), writes, value, rebuilt(needs, shown)
    return out


def heads(history: History) -> dict[str, object]:
    found = {ns: view.newest(history, ns) for ns in history.by_ns}
    return {ns: shown and (shown.checkpoint.id, shown.writes) for ns, shown in found.items()}


def histories(first: int) -> list[tuple[int, History]]:
    out = []
    for seed in range(first, first + 60):
        world = World(processes=1 + seed % 4, replicas=1 + seed % 2)
        actions = [a for a in random_history(seed, 110) if a[0] not in ("prune", "delete")]
        play(world, actions, [])
        out += [(seed, replica.history) for replica in world.replicas]
    return out


@pytest.mark.parametrize("first", range(0, 180, 60))
def test_i12_what_a_prune_leaves_reads_back_as_before(first: int) -> None:
    removed = 0
    for seed, history in histories(first):
        needs = Payloads(history)
        before, newest = read(needs), heads(history)
        doomed = prunable(history, needs)
        removed += doomed.bit_count()
        history.erase(history.entries[p].id for p in bits(doomed))
        assert heads(history) == newest, f"seed {seed}"
        for name, what in read(needs).items():
            assert what == before[name], f"seed {seed}: {name}"
    assert removed


@pytest.mark.parametrize("first", range(0, 180, 60))
def test_i12_what_is_left_of_other_runs_reads_back_as_before(first: int) -> None:
    removed = 0
    for seed, history in histories(first):
        needs = Payloads(history)
        wanted = 0
        for segment in sorted(history.segments)[:2]:
            for positions in history.segments[segment].checkpoints.values():
                wanted |= sum(1 << position for _, position in positions)
        before = read(needs)
        doomed = removable(history, wanted, needs)
        removed += doomed.bit_count()
        history.erase(history.entries[p].id for p in bits(doomed))
        for name, what in read(needs).items():
            event = before[name]
            # A checkpoint that was put by a removed run and by another is now the other's.
            if isinstance(event, tuple) and isinstance(what, tuple) and event[0] == what[0]:
                assert what == event, f"seed {seed}: {name}"
    assert removed
