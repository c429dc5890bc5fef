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
    all: bool = True
    """Every such test fails there; else some of them may pass all the same."""

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
    Difference(
        tests=(
            "test_values_put_by_hand_without_new_versions|test_two_branches_that_reuse_a_version"
        ),
        peers=MEMORY,
        why="values are stored by (channel, version) alone",
    ),
    Difference(
        tests=r"test_a_value_that_cannot_be_serialised",
        peers=BOTH,
        why="the error does not name the channel",
    ),
    Difference(
        tests=r"test_values_come_back_with_their_types.*bytearray",
        peers=SQLITE,
        why="a bytearray inside the one message of a checkpoint comes back as bytes",
    ),
    Difference(
        tests=r"test_a_value_that_changes_while_a_put_is_on_its_way",
        peers=SQLITE,
        why="it serialises after it got its lock",
    ),
    Difference(
        tests=r"test_a_mixed_call_keeps_the_first|test_of_one_special_channel_twice_in_a_call",
        peers=SQLITE,
        why="it decides for a whole call whether writes replace, not for each write",
    ),
    Difference(
        tests=r"test_without_a_(config|namespace)_all|test_a_long_list_is_whole"
        r"|test_before_is_strictly_smaller|test_limit_counts_after",
        peers=MEMORY,
        why="a list over threads or namespaces is grouped by them, which is an accident of storage",
    ),
    Difference(
        tests=r"test_an_empty_config_lists|test_before_without_an_id",
        peers=SQLITE,
        why="an empty config is a KeyError, and a `before` without an id gives nothing",
    ),
    Difference(
        tests=r"test_a_negative_limit",
        peers=BOTH,
        why="a negative limit gives nothing (memory) or everything (sqlite)",
    ),
    Difference(
        tests=r"test_a_filter_(matches|leaves_out).*(map|list|absent|True|'true': 1)",
        peers=BOTH,
        why="nested values must be equal, a missing key is None, and true is 1",
        all=False,
    ),
    Difference(
        tests=r"test_a_filter_matches.*(dotted|u043a|empty name)",
        peers=SQLITE,
        why="it refuses names with unusual characters and walks into names with dots",
    ),
    Difference(
        tests=r"test_an_int_thread_id|test_a_namespace_of_none",
        peers=BOTH,
        why="ids are taken as they are given, and returned so",
    ),
    Difference(
        tests=r"test_writes_without_a_checkpoint_id_are_a_key_error.*'checkpoint_id'",
        peers=BOTH,
        why="None and the empty string are stored as if they were ids",
    ),
    Difference(
        tests=r"test_configs_have_the_three_keys",
        peers=BOTH,
        why="a read by id gives back the caller's own config",
    ),
    Difference(
        tests=r"test_metadata_that_is_more_than_json",
        peers=SQLITE,
        why="metadata goes through JSON, and more than JSON is an error there",
    ),
    Difference(
        tests=r"test_trap_1_",
        peers=BOTH,
        why="the newest is the greatest id, which is the clock of whoever made it",
    ),
    Difference(
        tests=r"test_trap_3_",
        peers=BOTH,
        why="no peer here has delete_for_runs or prune",
    ),
    Difference(
        tests=r"test_trap_10_an_abandoned_list.*sync",
        peers=SQLITE,
        why="an abandoned sync list keeps the lock of the whole saver",
        all=False,
    ),
    Difference(
        tests=r"test_trap_11_",
        peers=SQLITE,
        why="it belongs to the loop that made it: other loops fail, and a sync put on it deadlocks",
        hangs=True,
    ),
    Difference(
        tests=r"test_a_run_whose_write_could_not_be_stored",
        peers=MEMORY,
        why="of the writes of one task it keeps those before the one that fails",
    ),
)
