"""Where LangGraph's own savers answer otherwise than the contract that these tests hold.

The tests can be run against a peer (`CHECKPOINT_ROUTER_TEST_REFERENCE=memory` or `sqlite`) to see
that a test is fair. What a peer is known to do otherwise stands here, once, with the reason, and
must then really fail there. This table has no effect when the saver under test is ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Peer = Literal["memory", "sqlite"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One thing that a peer does otherwise."""

    tests: str
    """A regular expression, searched in the names of tests."""

    peers: frozenset[Peer]
    why: str
    hangs: bool = False
    """The peer would never answer, so the test is not run there."""


BOTH: Final[frozenset[Peer]] = frozenset({"memory", "sqlite"})
MEMORY: Final[frozenset[Peer]] = frozenset({"memory"})
SQLITE: Final[frozenset[Peer]] = frozenset({"sqlite"})

DIFFERENCES: Final[tuple[Difference, ...]] = (
    Difference(
        tests=r"test_(delete_for_runs|prune)_|test_copy_thread_(?!nonexistent)"
        r"|test_all_eight_capabilities|test_both_halves_of_every_method",
        peers=BOTH,
        why="no peer here has delete_for_runs, copy_thread or prune",
    ),
    Difference(
        tests=r"test_a_loop_of_parents_ends_the_walk",
        peers=BOTH,
        why="both walk a loop of parents for ever",
        hangs=True,
    ),
)
