"""Planted faults: what a fault is, and the search that must catch it.

A fault replaces one rule by a broken one, through a monkeypatch that is undone; nothing of it is
ever in the product. A floor adds its faults as a table of `Fault`s; `search` is for those that
random histories on the core can reach, any other function may stand in its place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from . import checks
from .histories import play, random_history
from .world import Action, Broken, World

Plant = Callable[[pytest.MonkeyPatch], None]
SEEDS = 100
"""Of the histories that `test_every_invariant_on_seeded_histories` finds nothing in. The fault that
hides longest is met by the 82nd."""

Search = Callable[[], str | None]


def search() -> str | None:
    """The check that the first broken history breaks; None if the histories find nothing."""
    return _first_broken(lambda action: action)


def search_same_ids() -> str | None:
    """The same, where every put takes one of two ids that all runs use."""

    def with_a_shared_id(action: Action) -> Action:
        name, a, b, c = action
        return (name, a, b, c // 13 * 13) if name == "put" else action

    return _first_broken(with_a_shared_id)


def _first_broken(change: Callable[[Action], Action]) -> str | None:
    for seed in range(SEEDS):
        world = World(processes=1 + seed % 4, replicas=1 + seed % 3)
        try:
            play(world, [change(a) for a in random_history(seed, 100)], checks.ALL)
        except Broken as e:
            return e.check
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One planted fault."""

    name: str
    plant: Plant
    caught_by: frozenset[str]
    """Checks, one of which must be the first to notice. More than one where which of them comes
    first is chance."""
    search: Search = search
