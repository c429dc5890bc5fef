"""Where LangGraph's own savers answer otherwise than the contract that these tests hold.

The tests can be run against a peer (`CHECKPOINT_ROUTER_TEST_REFERENCE=memory` or `sqlite`) to see
that a test is fair. What a peer is known to do otherwise stands here, once, with the reason, and
must then really fail there. This table has no effect when the saver under test is ours.
"""

from __future__ import annotations

from typing import Final, Literal

Peer = Literal["memory", "sqlite"]

BOTH: Final[frozenset[Peer]] = frozenset({"memory", "sqlite"})
MEMORY: Final[frozenset[Peer]] = frozenset({"memory"})
SQLITE: Final[frozenset[Peer]] = frozenset({"sqlite"})

DIFFERENCES: Final[dict[str, tuple[frozenset[Peer], str]]] = {
    # test name (a regular expression that is searched in it): who differs, and how
    r"test_(delete_for_runs|prune)_|test_copy_thread_(?!nonexistent)": (
        BOTH,
        "no peer here has delete_for_runs, copy_thread or prune",
    ),
    r"test_all_eight_capabilities|test_both_halves_of_every_method": (
        BOTH,
        "no peer here has delete_for_runs, copy_thread or prune",
    ),
}
