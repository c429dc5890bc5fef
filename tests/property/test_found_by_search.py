"""Histories that once broke the core, written out. The search beside this file found them."""

from __future__ import annotations

import pytest

from checkpoint_router.core import limits, view
from checkpoint_router.core.accept import Refused, Wait, accept
from checkpoint_router.core.clock import Ranges
from checkpoint_router.core.conflicts import ConflictKind, conflicts, losing
from checkpoint_router.core.digests import event_digest
from checkpoint_router.core.errors import InvalidArgument
from checkpoint_router.core.history import History, bits
from checkpoint_router.core.ids import EventId, slot_of
from checkpoint_router.core.records import Event, Header, pack_event
from checkpoint_router.core.token import Base, ReadToken, parse, seal, unseal
from tests import builders
from tests.builders import THREAD, checkpoint_event, event_id, segment, writes_event


def history_of(*events: Event) -> History:
    history = History(THREAD, 1)
    for event in events:
        history.apply(builders.entry(event))
    return history


def saw(base: str | None = None, *, cut: EventId | None = None, **seen: int) -> Header:
    """The header of a run that read `seen` (segment to number of events) and continues `base`."""
    known = {name: range(1, count + 1) for name, count in seen.items()}
    return builders.header(builders.token(seen=known, base=base, cut=cut))


EMPTY = saw()


def checkpoint(name: str, index: int = 1, **fields: object) -> Event:
    return checkpoint_event(name, index, **fields)  # type: ignore[arg-type]


def test_an_event_after_the_read_of_its_segment_is_named_by_the_next_read() -> None:
    # s2 read s1 after its first event, so s1 was covered; its second event is in nobody's past.
    history = history_of(
        checkpoint("s1", 1, head=EMPTY),
        checkpoint("s2", 1, checkpoint_id="c2", head=saw("s1", s1=1)),
        writes_event("s1", 2),
    )
    assert dict(history.frontier()) == {segment("s1"): ((1, 2),), segment("s2"): ((1, 1),)}


def test_a_list_inside_a_time_travel_shows_all_that_the_run_saw() -> None:
    history = history_of(
        checkpoint("s1", 1, checkpoint_id="c1", head=EMPTY),
        checkpoint("s1", 2, checkpoint_id="c2", parent_id="c1"),
    )
    token = parse(saw("s1", cut=event_id("s1", 1), s1=2).token)
    lineage = history.lineage_from(token, None)
    shown = view.newest(history, "", lineage)
    assert shown is not None
    assert shown.checkpoint.checkpoint_id == "c1"
    assert list(view.listed(history, lineage=lineage)) == [("c2", ""), ("c1", "")]


@pytest.mark.parametrize("after", [((1, limits.INDEX_MAX),), ((3, limits.INDEX_MAX),)])
def test_what_is_missing_is_told_in_part_where_a_call_names_billions(after: Ranges) -> None:
    history = history_of(checkpoint("s1", 1, head=EMPTY))
    event = writes_event("s1", 9, after=after)
    verdict = accept(history, event, b"", None, now_ms=0)
    assert isinstance(verdict, Wait)
    assert 0 < len(verdict.missing) < 1000


def forked() -> History:
    """s2 read s1's first event and went on; s1 wrote a second one that s2 did not know."""
    return history_of(
        checkpoint("s1", 1, checkpoint_id="c1", head=EMPTY, hlc=1 << 40),
        checkpoint("s2", 1, checkpoint_id="c2", parent_id="c1", head=saw("s1", s1=1), hlc=1 << 42),
        checkpoint("s1", 2, checkpoint_id="c3", parent_id="c1", hlc=1 << 41),
    )


def test_a_side_of_a_conflict_has_only_what_the_other_did_not_know() -> None:
    (record,) = conflicts(forked())
    sides = {side.segment: side for side in record.sides}
    assert sides[segment("s1")].first == event_id("s1", 2)
    assert sides[segment("s1")].checkpoints == (("", "c3"),)
    # c1 is on the winner's lineage, but c1 is no side's: only s2 wins.
    assert {s: side.wins for s, side in sides.items()} == {
        segment("s1"): False,
        segment("s2"): True,
    }


def test_every_run_on_a_losing_branch_is_pinned() -> None:
    # s3 went on from the loser s1 without having seen the winner: its checkpoint is lost with s1's.
    history = history_of(
        checkpoint("s1", 1, checkpoint_id="c1", head=EMPTY, hlc=1),
        checkpoint("s2", 1, checkpoint_id="c2", head=EMPTY, hlc=9),
        checkpoint("s3", 1, checkpoint_id="c3", parent_id="c1", head=saw("s1", s1=1), hlc=2),
    )
    pinned = {history.entries[p].checkpoint_id for p in bits(losing(history))}
    assert pinned == {"c1", "c3"}


@pytest.mark.parametrize("order", [(2, 3), (3, 2)])
def test_the_order_of_arrival_does_not_decide_what_a_conflict_is(order: tuple[int, int]) -> None:
    # s1 put c1 as "a", then as "b", in flight together; s2 put it as "b". The last by index counts.
    bodies = {2: b"a", 3: b"b"}
    history = history_of(
        checkpoint("s1", 1, checkpoint_id="c0", head=EMPTY),
        *(checkpoint("s1", i, checkpoint_id="c1", body=bodies[i]) for i in order),
        checkpoint("s2", 1, checkpoint_id="c1", body=b"b", head=EMPTY),
    )
    (record,) = conflicts(history)
    assert record.kinds == {ConflictKind.FORK}


def test_a_stamp_must_be_above_every_call_that_was_waited_for() -> None:
    # Not only above the ends of each range: the second call was stamped above the third.
    history = history_of(
        checkpoint("s1", 1, head=EMPTY, hlc=10),
        writes_event("s1", 2, hlc=90),
        writes_event("s1", 3, hlc=30),
    )
    late = writes_event("s1", 4, after=((1, 3),), hlc=50)
    verdict = accept(history, late, event_digest(pack_event(late)), None, now_ms=0)
    assert isinstance(verdict, Refused)
    assert isinstance(verdict.error, InvalidArgument)


def test_an_empty_brace_pair_is_no_tag_and_ends_the_search_for_one() -> None:
    assert slot_of("{}{user-7}") != slot_of("user-7")
    assert slot_of("a{user-7}b{other}") == slot_of("user-7")
    assert slot_of("{{user-7}}") == slot_of("{user-7")


def test_a_thread_with_more_heads_than_a_token_may_name_can_be_written_to() -> None:
    count = limits.FRONTIER_ENTRIES_MAX + 40
    history = history_of(
        *(checkpoint(f"s{n}", 1, checkpoint_id=f"c{n}", head=EMPTY, hlc=n) for n in range(1, count))
    )
    loser = segment("s1")  # of the lowest rank: a run may continue it by its id
    sealed = b""
    for base in (history.winner(), loser):
        assert base is not None
        token = ReadToken(
            thread=b"t" * 16,
            gen=1,
            base=Base(segment=base),
            seen=history.frontier(base),
            hlc=count,
            term=0,
            epoch=1,
        )
        sealed = seal(token, builders.KEY)
        read = unseal(sealed, builders.KEY)
        assert base in dict(read.seen)
        line = history.lineage_from(read, None)
        assert line.mask == history.segments[base].mask
    head = Header(token=sealed)
    history.apply(builders.entry(checkpoint("next", 1, head=head, hlc=count + 1)))
    assert len(history.frontier()) < 50
