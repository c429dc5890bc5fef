"""Each rule of the causal core is taken out once, and a named check must notice.

Everything here is a planted fault: the function beside a name replaces a right rule by a broken
one for the length of one test. Other floors add tables of their own (`planted.Fault`): a blob not
checked, a group acknowledged before its commit, a retry that makes a second event, a dot reused
after a restart, a token whose MAC is not verified, a read inside a run answered from the winner,
two runs of a process that share a token, a prune by name, a page that skips its first entry.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from msgspec import structs

from checkpoint_router.core import accept as accepting
from checkpoint_router.core import conflicts as recording
from checkpoint_router.core import history as histories
from checkpoint_router.core import retention, view
from checkpoint_router.core.clock import indices
from checkpoint_router.core.digests import conflict_id
from checkpoint_router.core.history import History, Lineage, Segment, bits
from checkpoint_router.core.ids import EventId, SegmentId
from checkpoint_router.core.records import Entry, Event, Header, Kind, entry_of
from checkpoint_router.core.token import Base, Cut, ReadToken, parse, unseal

from . import checks, world
from .client import Process, Run
from .planted import Fault, search_same_ids
from .world import Replica, World

Patch = pytest.MonkeyPatch


def index_off_by_one(patch: Patch) -> None:
    def missing(self: History, segment: SegmentId, ranges: Any) -> tuple[EventId, ...]:
        known = self.segments[segment].events if segment in self.segments else {}
        wanted = [i for first, last in ranges for i in range(first, last)]
        return tuple(EventId(segment, i) for i in wanted if i not in known)

    patch.setattr(History, "missing", missing)
    _tolerate_gaps(patch)


def _tolerate_gaps(patch: Patch) -> None:
    """What a core would have to be like to live with events whose past is not there."""

    def past(self: History, token: ReadToken) -> int:
        found = 0
        for seen, ranges in token.seen:
            if seen in self.segments:
                known = self.segments[seen]
                found |= known.past
                for i in indices(ranges):
                    found |= 1 << known.events[i] if i in known.events else 0
        return found

    opened = History._open

    def open_(self: History, id: SegmentId, header: Header) -> Segment:
        token = parse(header.token)
        if token.base is not None and (
            token.base.segment not in self.segments
            or any(c.last is not None and self.entry(c.last) is None for c in token.base.cuts)
        ):
            patched = replace(token, base=None)
            with pytest.MonkeyPatch.context() as inner:
                inner.setattr(histories, "parse", lambda _: patched)
                return opened(self, id, header)
        return opened(self, id, header)

    patch.setattr(History, "_past", past)
    patch.setattr(History, "_open", open_)


def seen_not_checked_on_a_put(patch: Patch) -> None:
    missing = History.missing

    def only_after(self: History, segment: SegmentId, ranges: Any) -> tuple[EventId, ...]:
        return missing(self, segment, ranges) if segment in self.segments else ()

    patch.setattr(History, "missing", only_after)
    _tolerate_gaps(patch)


def seen_taken_at_write_time(patch: Patch) -> None:
    found = World._run_that_writes

    def refreshed(self: World, a: int, b: int, c: int) -> Run | None:
        run = found(self, a, b, c)
        replica = self._at(b)
        if run is not None and run.segment is None and run.gen == replica.history.gen:
            base = unseal(run.token, self.key).base
            if base is None or base.segment in replica.history.segments:
                run.token = self.token(replica, base)
                run.process.hear(self.clock(replica), 0)
        return run

    patch.setattr(World, "_run_that_writes", refreshed)


def stamps_made_by_the_router(patch: Patch) -> None:
    take = World.take

    def stamped(self: World, replica: Replica, event: Event) -> None:
        def with_stamp(event: Event, digest: bytes) -> Entry:
            return structs.replace(entry_of(event, digest), hlc=self.clock(replica))

        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(world, "entry_of", with_stamp)
            take(self, replica, event)

    patch.setattr(World, "take", stamped)


def after_not_sent(patch: Patch) -> None:
    patch.setattr(Run, "after", lambda self: ())


def header_with_the_first_event_only(patch: Patch) -> None:
    patch.setattr(Run, "header_to_send", lambda self: self.header if self.index == 1 else None)


def two_processes_mint_the_same_segment(patch: Patch) -> None:
    patch.setattr(Process, "mint", lambda self, token: SegmentId(token[:16]))


def digest_not_compared(patch: Patch) -> None:
    two_processes_mint_the_same_segment(patch)
    decide = accepting.accept

    def without(history: History, event: Event, digest: bytes, *a: Any, **k: Any) -> Any:
        known = history.entry(event.id)
        if known is not None and event.gen == history.gen:
            return accepting.Known()
        return decide(history, event, digest, *a, **k)

    patch.setattr(world, "accept", without)


def head_is_the_greatest_id(patch: Patch) -> None:
    def greatest(history: History, ns: str, lineage: Lineage) -> int | None:
        found = history.by_ns.get(ns, 0) & lineage.mask & ~history.erased
        return max(bits(found), key=lambda p: history.entries[p].checkpoint_id, default=None)

    patch.setattr(view, "head", greatest)


def time_travel_not_cut(patch: Patch) -> None:
    within = History._within

    def whole(self: History, base: Base | None, past: int) -> int:
        return within(self, None if base is None else Base(segment=base.segment), past)

    patch.setattr(History, "_within", whole)


def late_writes_cut_off(patch: Patch) -> None:
    def until(self: History, cut: Cut, lineage: int) -> int:
        if cut.last is None:
            return 0
        last = self.position(cut.last)
        own = Kind.WRITES, self.entries[last].checkpoint_id
        return sum(
            1 << p
            for p in bits(lineage)
            if self.order(p) <= self.order(last)
            or (self.entries[p].kind, self.entries[p].checkpoint_id) == own
        )

    patch.setattr(History, "_until", until)


def lone_writes_move_the_head(patch: Patch) -> None:
    patch.setattr(Segment, "note", property(lambda self: False))


def lone_writes_not_shown(patch: Patch) -> None:
    patch.setattr(view, "_note_at", lambda *given: None)


def note_stays_one_after_a_put(patch: Patch) -> None:
    def always(self: Segment) -> bool:
        return self.token.base is not None and self.token.base.by_id

    patch.setattr(Segment, "note", property(always))


def base_not_within_what_was_seen(patch: Patch) -> None:
    within = History._within
    patch.setattr(History, "_within", lambda self, base, past: within(self, base, self.all))


def conflict_named_by_events(patch: Patch) -> None:
    records = recording.conflicts

    def named(history: History) -> tuple[recording.Conflict, ...]:
        def id_of(record: recording.Conflict) -> bytes:
            one, two = (str(side.first).encode() for side in record.sides)
            return conflict_id(history.thread, history.gen, SegmentId(one), SegmentId(two))

        return tuple(
            sorted((replace(r, id=id_of(r)) for r in records(history)), key=lambda r: r.id)
        )

    patch.setattr(checks, "conflicts", named)


def given_up_calls_not_carried(patch: Patch) -> None:
    patch.setattr(Process, "giving_up", lambda self: ())


def given_up_calls_of_the_past_forgotten(patch: Patch) -> None:
    class Nobody(list[SegmentId]):
        def __iter__(self) -> Iterator[SegmentId]:
            return iter(())

    made = History.__init__

    def init(self: History, *a: Any) -> None:
        made(self, *a)
        self._givers = Nobody()

    patch.setattr(History, "__init__", init)


def given_up_call_that_lands_late_not_closed(patch: Patch) -> None:
    apply = History.apply

    def deaf(self: History, entry: Entry) -> None:
        self._given_by.pop(entry.id, None)
        apply(self, entry)

    patch.setattr(History, "apply", deaf)


def winner_by_arrival(patch: Patch) -> None:
    def last(self: History) -> SegmentId | None:
        for entry in reversed(self.entries):
            if entry.id.segment in self.tips:
                return entry.id.segment
        return None

    patch.setattr(History, "winner", last)


def longest_segment_wins(patch: Patch) -> None:
    def longest(self: History) -> SegmentId | None:
        return max(self.segments, key=lambda s: (len(self.segments[s].events), s), default=None)

    patch.setattr(History, "winner", longest)


def term_not_compared(patch: Patch) -> None:
    rank = History.rank
    patch.setattr(History, "rank", lambda self, segment: (0, *rank(self, segment)[1:]))


def copies_applied_twice(patch: Patch) -> None:
    apply = History.apply

    def again(self: History, entry: Entry) -> None:
        segment = self.segments.get(entry.id.segment)
        if segment is not None:
            segment.events.pop(entry.id.index, None)
        apply(self, entry)

    patch.setattr(History, "apply", again)


def delete_without_generation(patch: Patch) -> None:
    patch.setattr(World, "repeated", lambda self, replica, gen: replica.history.gen)


def ended_generation_let_in(patch: Patch) -> None:
    patch.setattr(accepting, "_generation", lambda history, event: None)
    patch.setattr(accepting, "_foreign", lambda history, event, token: None)
    _tolerate_gaps(patch)


def events_after_a_read_left_out_of_the_frontier(patch: Patch) -> None:
    apply = History.apply

    def covered(self: History, entry: Entry) -> None:
        before = set(self._frontier)
        old = entry.id.segment in self.segments
        apply(self, entry)
        if old:
            self._frontier = before

    patch.setattr(History, "apply", covered)


def conflict_kinds_by_arrival(patch: Patch) -> None:
    done = recording._done

    def by_arrival(history: History, mask: int) -> Any:
        with pytest.MonkeyPatch.context() as unordered:
            unordered.setattr(history, "order", lambda position: (0, position))
            return done(history, mask)

    patch.setattr(recording, "_done", by_arrival)


def only_the_first_task_of_a_write_set_compared(patch: Patch) -> None:
    done = recording._done

    def first(history: History, mask: int) -> Any:
        whole = history.entries
        with pytest.MonkeyPatch.context() as shortened:
            cut = [structs.replace(e, tasks=e.tasks[:1]) for e in whole]
            shortened.setattr(history, "entries", cut)
            return done(history, mask)

    patch.setattr(recording, "_done", first)


def only_the_first_of_a_losing_branch_pinned(patch: Patch) -> None:
    def losing(history: History) -> int:
        winner, kept = history.lineage(history.winner()).mask, 0
        sides: Iterable[recording.Side] = (
            side for r in recording.conflicts(history) if r.open for side in r.sides
        )
        for side in sides:
            kept |= history.lineage(side.segment).mask & ~winner
        return kept

    for module in (checks, world, retention):
        patch.setattr(module, "losing", losing)


def stamps_from_a_counter_of_the_process(patch: Patch) -> None:
    patch.setattr(Process, "hear", lambda self, hlc, term: None)


CORE = (
    Fault(name="index off by one", plant=index_off_by_one, caught_by=frozenset({"i11"})),
    Fault(
        name="seen not checked on a put",
        plant=seen_not_checked_on_a_put,
        caught_by=frozenset({"i4", "i11"}),
    ),
    Fault(
        name="seen taken at write time",
        plant=seen_taken_at_write_time,
        caught_by=frozenset({"i2"}),
    ),
    Fault(
        name="stamps made by the router",
        plant=stamps_made_by_the_router,
        caught_by=frozenset({"i1", "i5"}),
    ),
    Fault(name="`after` not sent", plant=after_not_sent, caught_by=frozenset({"i1", "i11"})),
    Fault(
        name="header with the first event only",
        plant=header_with_the_first_event_only,
        caught_by=frozenset({"i11"}),
    ),
    Fault(
        name="two processes mint the same segment",
        plant=two_processes_mint_the_same_segment,
        caught_by=frozenset({"i31"}),
    ),
    Fault(name="digest not compared", plant=digest_not_compared, caught_by=frozenset({"i31"})),
    Fault(
        name="head is the greatest id", plant=head_is_the_greatest_id, caught_by=frozenset({"i4"})
    ),
    Fault(name="time travel not cut", plant=time_travel_not_cut, caught_by=frozenset({"i4", "i5"})),
    Fault(
        name="writes that came after the next checkpoint are cut off",
        plant=late_writes_cut_off,
        caught_by=frozenset({"i4", "i5"}),
    ),
    Fault(
        name="lone writes on an old checkpoint move the head",
        plant=lone_writes_move_the_head,
        caught_by=frozenset({"i2", "i4", "i5"}),
    ),
    Fault(
        name="lone writes on an old checkpoint are not shown there",
        plant=lone_writes_not_shown,
        caught_by=frozenset({"i5"}),
    ),
    Fault(
        name="a put on an old checkpoint goes nowhere",
        plant=note_stays_one_after_a_put,
        caught_by=frozenset({"i2", "i4", "i5"}),
    ),
    Fault(
        name="base not cut by what was seen",
        plant=base_not_within_what_was_seen,
        caught_by=frozenset({"i4", "i5", "i12"}),
    ),
    Fault(
        name="conflict named by events",
        plant=conflict_named_by_events,
        caught_by=frozenset({"i5", "i8"}),
    ),
    Fault(
        name="given-up calls not carried",
        plant=given_up_calls_not_carried,
        caught_by=frozenset({"i2"}),
    ),
    Fault(
        name="given-up calls of the past forgotten",
        plant=given_up_calls_of_the_past_forgotten,
        caught_by=frozenset({"i2"}),
    ),
    Fault(
        name="given-up call that lands late is not closed",
        plant=given_up_call_that_lands_late_not_closed,
        caught_by=frozenset({"i2"}),
    ),
    Fault(
        name="winner by arrival", plant=winner_by_arrival, caught_by=frozenset({"i4", "i5", "i6"})
    ),
    Fault(
        name="the longest segment wins",
        plant=longest_segment_wins,
        caught_by=frozenset({"i3"}),
    ),
    Fault(name="term not compared", plant=term_not_compared, caught_by=frozenset({"i5", "i6"})),
    Fault(name="copies applied twice", plant=copies_applied_twice, caught_by=frozenset({"i7"})),
    Fault(
        name="delete without generation",
        plant=delete_without_generation,
        caught_by=frozenset({"i31"}),
    ),
    Fault(
        name="ended generation let in",
        plant=ended_generation_let_in,
        caught_by=frozenset({"i11", "i13"}),
    ),
    Fault(
        name="events after a read left out of the frontier",
        plant=events_after_a_read_left_out_of_the_frontier,
        caught_by=frozenset({"i2"}),
    ),
    Fault(
        name="conflict kinds by arrival",
        plant=conflict_kinds_by_arrival,
        caught_by=frozenset({"i5"}),
        search=search_same_ids,
    ),
    Fault(
        name="of a write set of several tasks only the first is compared",
        plant=only_the_first_task_of_a_write_set_compared,
        caught_by=frozenset({"i5", "i9"}),
    ),
    Fault(
        name="only the first of a losing branch is pinned",
        plant=only_the_first_of_a_losing_branch_pinned,
        caught_by=frozenset({"i12"}),
    ),
    Fault(
        name="stamps from a counter of the process",
        plant=stamps_from_a_counter_of_the_process,
        caught_by=frozenset({"i31"}),
    ),
)


@pytest.mark.parametrize("fault", CORE, ids=lambda fault: fault.name)
def test_a_planted_fault_is_caught(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    fault.plant(monkeypatch)
    assert fault.search() in fault.caught_by


def test_there_are_enough_faults_of_the_core() -> None:
    assert len({fault.name for fault in CORE}) >= 20


def test_the_right_rules_break_nothing_where_runs_share_ids() -> None:
    # The other search plays the histories of `test_every_invariant_on_seeded_histories`.
    assert search_same_ids() is None
