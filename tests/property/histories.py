"""Histories as lists of actions: drawn from a seed or by hypothesis, played, judged, made short.

Rules: the same list gives the same world; any sublist of a history is a history; after each action
the checks look at every replica that changed, and at the end everything is delivered everywhere.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from hypothesis import strategies as st

from .world import Action, Replica, World

WEIGHTS = {
    "pass": 1,
    "read": 12,
    "read_by_id": 3,
    "put": 18,
    "writes": 14,
    "retry": 8,
    "land": 8,
    "ship": 22,
    "sync": 4,
    "reload": 2,
    "failover": 1,
    "kill": 2,
    "copy": 2,
    "peek": 4,
    "delete": 1,
    "repeat_delete": 1,
    "ship_delete": 3,
    "prune": 2,
    "ship_prune": 2,
}
"""How often each action is tried; many find nothing to do."""

_NAMES = tuple(WEIGHTS)
_ODDS = tuple(WEIGHTS.values())
_NUMBERS = st.integers(0, 999)

Check = Callable[[World, Replica], None]


def random_history(seed: int, length: int = 60) -> list[Action]:
    """The actions of one seed."""
    rnd = random.Random(seed)
    picked = rnd.choices(_NAMES, _ODDS, k=length)
    return [(n, rnd.randrange(1000), rnd.randrange(1000), rnd.randrange(1000)) for n in picked]


def histories(*, length: int = 60) -> st.SearchStrategy[list[Action]]:
    """The same by hypothesis. It shrinks towards `pass`, which does nothing."""
    drawn = st.sampled_from([name for name, odds in WEIGHTS.items() for _ in range(odds)])
    action = st.tuples(drawn, _NUMBERS, _NUMBERS, _NUMBERS)
    return st.lists(action, min_size=length // 2, max_size=length)


def play(world: World, actions: Sequence[Action], checks: Sequence[Check]) -> World:
    """Runs the actions, and after each the checks on every replica that changed."""
    for action in actions:
        world.step(action)
        _judge(world, checks)
    world.heal()
    _judge(world, checks)
    return world


def _judge(world: World, checks: Sequence[Check]) -> None:
    for replica in world.replicas:
        if replica.dirty:
            replica.dirty = False
            for check in checks:
                check(world, replica)


def shortest(actions: Sequence[Action], fails: Callable[[Sequence[Action]], bool]) -> list[Action]:
    """A sublist that still fails and of which no piece can be left out."""
    left = list(actions)
    size = max(1, len(left) // 2)
    while size:
        at = 0
        while at < len(left):
            tried = left[:at] + left[at + size :]
            if fails(tried):
                left = tried
            else:
                at += size
        size //= 2
    return left
