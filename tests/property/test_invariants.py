"""The invariants of causality, conflict and deletion, each by its name, on random histories.

Every test plays the same kind of history on the real core and looks at one invariant only, so
that a failure names what broke. `CHECKPOINT_ROUTER_TEST_LONG=1` plays twenty times as many.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from checkpoint_router.core.accept import Accepted, Known, Refused, accept
from checkpoint_router.core.errors import DigestMismatch

from . import checks
from .histories import WEIGHTS, Check, histories, play, random_history
from .world import Action, Broken, World

LONG = os.environ.get("CHECKPOINT_ROUTER_TEST_LONG", "") not in ("", "0")
TIMES = 20 if LONG else 1

bounded = settings(
    max_examples=40 * TIMES,
    deadline=None,
    derandomize=not LONG,
    database=None,
    suppress_health_check=list(HealthCheck),
)
pytestmark = pytest.mark.timeout(100 * TIMES)

places = st.tuples(st.integers(1, 4), st.integers(1, 3))


def play_and_judge(actions: Sequence[Action], where: tuple[int, int], *wanted: Check) -> World:
    processes, replicas = where
    return play(World(processes=processes, replicas=replicas), actions, wanted)


@bounded
@given(histories(), places)
def test_i1_stamps_grow_along_the_past(actions: list[Action], where: tuple[int, int]) -> None:
    play_and_judge(actions, where, checks.i1)


@bounded
@given(histories(), places)
def test_i2_who_is_concurrent_is_as_full_sets_of_seen_events_say(
    actions: list[Action], where: tuple[int, int]
) -> None:
    play_and_judge(actions, where, checks.i2)


@bounded
@given(histories(), places)
def test_i3_a_superseded_segment_is_never_the_winner(
    actions: list[Action], where: tuple[int, int]
) -> None:
    play_and_judge(actions, where, checks.i3)


@bounded
@given(histories(), places)
def test_i4_the_winners_view_is_what_the_run_that_wrote_it_had_in_memory(
    actions: list[Action], where: tuple[int, int]
) -> None:
    play_and_judge(actions, where, checks.i4)


@bounded
@given(histories(), places)
def test_i5_the_same_events_in_any_order_give_the_same_answers(
    actions: list[Action], where: tuple[int, int]
) -> None:
    world = play_and_judge(actions, where, checks.i5)
    # Everything has reached everybody by now, on different ways.
    first, *others = (checks.answers(replica) for replica in world.replicas)
    assert all(other == first for other in others)


@bounded
@given(histories(), places)
def test_i6_a_lower_term_never_wins_among_concurrent_tips(
    actions: list[Action], where: tuple[int, int]
) -> None:
    play_and_judge(actions, where, checks.i6)


@bounded
@given(histories(), places)
def test_i7_an_event_counts_once_however_many_copies_come(
    actions: list[Action], where: tuple[int, int]
) -> None:
    world = play_and_judge(actions, where, checks.i7)
    for replica in world.replicas:
        before = checks.answers(replica)
        for event in list(replica.stored.values()):
            world.receive(replica, event)
        checks.i7(world, replica)
        assert checks.answers(replica) == before


@bounded
@given(histories(), places)
def test_i8_every_concurrent_pair_is_in_one_record_and_no_record_vanishes(
    actions: list[Action], where: tuple[int, int]
) -> None:
    play_and_judge(actions, where, checks.i8)


NOT_SEQUENTIAL = {"kill", "copy", "delete"}


@bounded
@given(histories(), st.integers(1, 3))
def test_i8_one_process_that_runs_one_run_at_a_time_makes_no_conflict(
    actions: list[Action], replicas: int
) -> None:
    # `a` of 0 is the first slot of the first process. Its calls may get lost, be retried by
    # another router, be given up and land late: still nobody was its rival.
    alone = [(n, 0, b, c) for n, _, b, c in actions if n not in NOT_SEQUENTIAL]
    world = play_and_judge(alone, (1, replicas), checks.i8)
    assert not any(replica.history.concurrent for replica in world.replicas)


@bounded
@given(histories(), places)
def test_i9_what_ran_twice_is_named_and_never_closes_by_itself(
    actions: list[Action], where: tuple[int, int]
) -> None:
    play_and_judge(actions, where, checks.i9)


@bounded
@given(histories(), places)
def test_i11_no_event_is_taken_in_before_what_it_names(
    actions: list[Action], where: tuple[int, int]
) -> None:
    play_and_judge(actions, where, checks.i11)


@bounded
@given(histories(), places)
def test_i12_prune_is_told_of_every_unresolved_loser(
    actions: list[Action], where: tuple[int, int]
) -> None:
    play_and_judge(actions, where, checks.i12)


@bounded
@given(histories(), places)
def test_i13_after_a_delete_nothing_of_the_generation_is_shown_or_let_in(
    actions: list[Action], where: tuple[int, int]
) -> None:
    world = play_and_judge(actions, where, checks.i13)
    for replica in world.replicas:
        dead = [n for n, gen in world.gens.items() if gen < replica.history.gen]
        assert not set(dead) & {(e.id.segment, e.id.index) for e in replica.history.entries}


@bounded
@given(histories(), places)
def test_i31_a_retry_is_known_and_other_bytes_under_its_id_are_refused(
    actions: list[Action], where: tuple[int, int]
) -> None:
    world = play_and_judge(actions, where)  # itself checks every acknowledgement
    for replica in world.replicas:
        for event in replica.stored.values():
            entry = replica.history.entry(event.id)
            assert entry is not None
            again = accept(replica.history, event, entry.digest, None, now_ms=world.now)
            assert isinstance(again, Known)
            other = bytes(b ^ 1 for b in entry.digest)
            verdict = accept(replica.history, event, other, None, now_ms=world.now)
            assert isinstance(verdict, Refused)
            assert isinstance(verdict.error, DigestMismatch)


@pytest.mark.parametrize("first", range(0, 200, 50))
def test_every_invariant_on_seeded_histories(first: int) -> None:
    """More and longer histories than hypothesis has time for, all checks on each."""
    for seed in range(first * TIMES, (first + 50) * TIMES):
        world = World(processes=1 + seed % 4, replicas=1 + seed % 3)
        try:
            play(world, random_history(seed, 100), checks.ALL)
        except Broken as e:
            pytest.fail(f"seed {seed}: {e}")


def test_the_histories_reach_what_they_are_about() -> None:
    """A search that never forks, gives up, prunes, deletes or holds proves nothing."""
    done: Counter[str] = Counter()
    for seed in range(60):
        world = World(processes=1 + seed % 4, replicas=1 + seed % 3)
        play(world, random_history(seed, 100), [])
        done += world.counts
        for replica in world.replicas:
            history = replica.history
            segments = history.segments.values()
            bases = [s.token.base for s in segments]
            done["concurrent pairs"] += len(history.concurrent)
            done["given up"] += sum(len(s.header.gives_up) for s in segments)
            done["read by id"] += sum(b is not None and bool(b.cuts) for b in bases)
            done["pruned"] += history.erased.bit_count()
            done["generations ended"] += history.gen - 1
    about = {"concurrent pairs", "given up", "read by id", "pruned", "generations ended"}
    assert not [name for name in about | set(WEIGHTS) - {"pass"} if not done[name]]


def test_accept_says_accepted_to_a_first_event() -> None:
    world = World(processes=1, replicas=1)
    world.step(("put", 0, 0, 64))
    (event,) = world.replicas[0].stored.values()
    fresh = World(processes=1, replicas=1).replicas[0]
    entry = world.replicas[0].history.entry(event.id)
    assert entry is not None
    verdict = world.decide(fresh, event, entry.digest, now=world.now)
    assert verdict == Accepted(needs=())
