"""The causal history of one generation of one thread, as a pure function of its set of events.

Owner: whoever holds the `History`; storages keep the entries that it is rebuilt from. Nothing
here depends on the order in which concurrent events arrived, only on which events there are.

Sets of events are integers with one bit per known event, so that "has T seen all of S" is one
`and` over a few machine words however long the thread is. `past(T)` is what the run of T really
saw; `closed(T)` adds the calls that T, or a segment in its past, gave up. For S other than T,
`tail(S|T)` = events of S outside `closed(T)`; T supersedes S if it is empty; S and T are
concurrent if neither tail is. The lineage of T is the lineage of its base within its past, then
its own events by index. Tips are the segments that none supersedes, notes left out: a note has read
an old checkpoint by its id and has put none since, so it has gone nowhere yet.
"""

from bisect import insort
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from checkpoint_router.core import limits
from checkpoint_router.core.clock import Frontier, Ranges, indices, ranges_of
from checkpoint_router.core.ids import EventId, SegmentId, ThreadKey
from checkpoint_router.core.records import Entry, Header, Kind
from checkpoint_router.core.token import Base, Cut, ReadToken, parse

_MISSING_NAMED_MAX: Final = 64
"""Missing events that are named to whoever waits for them; that there are any is what counts."""

CheckpointName = tuple[str, str]
"""(namespace, checkpoint id)."""


@dataclass(slots=True, kw_only=True)
class Segment:
    """The events that one process wrote from one read."""

    id: SegmentId
    header: Header
    token: ReadToken
    depth: int
    """Segments below this one on its lineage: (depth, index) is the order of a lineage."""
    base_lineage: int
    past: int
    closed: int
    mask: int = 0
    events: dict[int, int] = field(default_factory=dict)
    """Index to bit position."""
    last_index: int = 0
    gapless: int = 0
    """Events 1 to this one are all known."""
    hlc: int = 0
    """The greatest stamp of its events."""
    checkpoints: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    """Namespace to (index, position) of the checkpoints there, ascending."""

    @property
    def note(self) -> bool:
        """Whether it read an old checkpoint by its id and has put none since: then it makes nobody
        else less of a tip, and is none itself."""
        base = self.token.base
        return base is not None and base.by_id and not self.checkpoints


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """An ordered set of events: those of `tip`, before them those of its base, and so on."""

    tip: SegmentId | None
    mask: int
    past: int
    """What a run on this lineage really saw, on the lineage or beside it."""


EMPTY_LINEAGE = Lineage(tip=None, mask=0, past=0)


def bits(mask: int) -> Iterator[int]:
    """The positions set in `mask`, ascending."""
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


class History:
    """All that is known of one generation of a thread. Mutated only by `apply` and `erase`."""

    def __init__(self, thread: ThreadKey, gen: int) -> None:
        self.thread = thread
        self.gen = gen
        self.hlc = 0
        """Above no event: the greatest stamp of any."""
        self.term = 0
        self.entries: list[Entry] = []
        self.segments: dict[SegmentId, Segment] = {}
        self.tips: set[SegmentId] = set()
        self.erased = 0
        self.all = 0
        self.concurrent: set[tuple[SegmentId, SegmentId]] = set()
        """Pairs (smaller id first). Tails only grow, so a pair never leaves."""
        self.checkpoints: dict[CheckpointName, int] = {}
        self.writes: dict[CheckpointName, int] = {}
        self.children: dict[CheckpointName, int] = {}
        self.by_ns: dict[str, int] = {}
        """Checkpoints of each namespace."""
        self.in_ns: dict[str, int] = {}
        """Checkpoints and writes of each namespace."""
        self.names: list[tuple[str, str]] = []
        """(checkpoint id, namespace) of every checkpoint, ascending."""
        self._frontier: set[SegmentId] = set()
        self._givers: list[SegmentId] = []
        self._given_by: dict[EventId, list[SegmentId]] = defaultdict(list)

    # What is known ---------------------------------------------------------------------------

    def entry(self, event: EventId) -> Entry | None:
        """The entry of `event`, if it is known here."""
        segment = self.segments.get(event.segment)
        position = None if segment is None else segment.events.get(event.index)
        return None if position is None else self.entries[position]

    def missing(self, segment: SegmentId, ranges: Ranges) -> tuple[EventId, ...]:
        """Which of these events are not known here: the first few, for a caller may name 2^32."""
        known = self.segments.get(segment)
        if known is not None and ranges and ranges[-1][1] <= known.gapless:
            return ()
        have, gapless = ({}, 0) if known is None else (known.events, known.gapless)
        absent = (
            EventId(segment, i)
            for first, last in ranges
            for i in range(max(first, gapless + 1), last + 1)
            if i not in have
        )
        return tuple(islice(absent, _MISSING_NAMED_MAX))

    def frontier(self, base: SegmentId | None = None) -> Frontier:
        """All known events, as the segments that do not lie wholly in another's past.

        Above the limit: those of the greatest rank, and `base`. What is left out stays concurrent
        with the run that reads, and a later run sees it; a refusal would last for ever, since
        reading again finds no fewer.
        """
        named: Iterable[SegmentId] = self._frontier
        if len(self._frontier) > limits.FRONTIER_ENTRIES_MAX:
            greatest = sorted(self._frontier, key=self.rank, reverse=True)
            named = greatest[: limits.FRONTIER_ENTRIES_MAX - 1]
            if base is not None:
                named = {*named, base}
        return tuple((s, self._ranges(self.segments[s])) for s in sorted(named))

    def position(self, event: EventId) -> int:
        """The bit of a known event. KeyError if it is not known."""
        return self.segments[event.segment].events[event.index]

    def order(self, position: int) -> tuple[int, int]:
        """Sort key of an event among those of one lineage."""
        event = self.entries[position].id
        return self.segments[event.segment].depth, event.index

    # Taking events in ------------------------------------------------------------------------

    def apply(self, entry: Entry) -> None:
        """Takes in an event that `accept` let pass. A second copy changes nothing."""
        id = entry.id
        segment = self.segments.get(id.segment)
        if segment is None:
            if entry.header is None:
                raise KeyError(f"event {id} came before the header of its segment")
            segment = self._open(id.segment, entry.header)
        elif id.index in segment.events:
            return
        position = len(self.entries)
        bit = 1 << position
        self.entries.append(entry)
        self.all |= bit
        segment.mask |= bit
        segment.events[id.index] = position
        segment.last_index = max(segment.last_index, id.index)
        hlc = entry.hlc
        if hlc > segment.hlc:
            segment.hlc = hlc
        if hlc > self.hlc:
            self.hlc = hlc
        if entry.term > self.term:
            self.term = entry.term
        while segment.gapless + 1 in segment.events:
            segment.gapless += 1
        # An event that is new here is in no past, whoever saw the rest of its segment.
        self._frontier.add(segment.id)
        if entry.erased:
            self.erased |= bit
        self._index(entry, segment, position)
        givers = self._given_by.get(id, ())
        for giver in givers:
            self.segments[giver].closed |= bit
        self._update_tips(segment, givers)
        self._note_concurrency(segment)

    def fold(self, entries: Iterable[Entry]) -> list[Entry]:
        """Takes in entries whatever their order, each after all that it rests on. Returns those
        that rest on something that is neither here nor among them."""
        held = list(entries)
        before = -1
        while held and len(held) != before:
            before = len(held)
            later = []
            for entry in held:
                if self._rests_on_known(entry):
                    self.apply(entry)
                else:
                    later.append(entry)
            held = later
        return held

    def _rests_on_known(self, entry: Entry) -> bool:
        if self.missing(entry.id.segment, entry.after):
            return False
        if entry.id.segment in self.segments:
            return True
        if entry.header is None:
            return False
        return not any(self.missing(s, r) for s, r in parse(entry.header.token).seen)

    def erase(self, events: Iterable[EventId]) -> None:
        """Marks events as pruned. They stay known, so nothing that names them is held up."""
        for event in events:
            self.erased |= 1 << self.position(event)

    def _open(self, id: SegmentId, header: Header) -> Segment:
        token = parse(header.token)
        past = self._past(token)
        given = set(header.gives_up)
        for giver in self._givers:
            if self.segments[giver].mask & past:
                given.update(self.segments[giver].header.gives_up)
        closed = past
        for event in given:
            if self.entry(event) is not None:
                closed |= 1 << self.position(event)
            else:
                self._given_by[event].append(id)
        if header.gives_up:
            self._givers.append(id)
        base = token.base
        segment = Segment(
            id=id,
            header=header,
            token=token,
            depth=0 if base is None else self.segments[base.segment].depth + 1,
            base_lineage=self._within(base, past),
            past=past,
            closed=closed,
        )
        self.segments[id] = segment
        self._frontier = {s for s in self._frontier if self.segments[s].mask & ~past}
        return segment

    def _past(self, token: ReadToken) -> int:
        """The events that `token` names, and the pasts of their segments."""
        past = 0
        for seen, ranges in token.seen:
            known = self.segments[seen]
            past |= known.past
            if ranges == self._ranges(known):
                past |= known.mask
            else:
                for index in indices(ranges):
                    past |= 1 << known.events[index]
        return past

    @staticmethod
    def _ranges(segment: Segment) -> Ranges:
        if segment.gapless == len(segment.events):
            return ((1, segment.gapless),)
        return ranges_of(segment.events)

    def _within(self, base: Base | None, past: int) -> int:
        """The lineage of `base` within `past`."""
        if base is None:
            return 0
        v = self.segments[base.segment]
        lineage = (v.base_lineage | v.mask) & past
        for cut in base.cuts:
            lineage &= ~self.in_ns.get(cut.ns, 0) | self._until(cut, lineage)
        return lineage

    def _until(self, cut: Cut, lineage: int) -> int:
        """What a cut leaves of its namespace."""
        before = late = 0
        if cut.last is not None:
            assert self.entry(cut.last) is not None, "a cut is in the past of its segment"
            own = self.segments[cut.last.segment]
            before = own.base_lineage
            for index, position in own.events.items():
                if index <= cut.last.index:
                    before |= 1 << position
        if cut.late is not None:
            for event in cut.late:
                late |= 1 << self.position(event)
            return before | late
        for name, writes in self.writes.items():
            if name[0] == cut.ns and self.checkpoints.get(name, 0) & before & lineage:
                late |= writes
        return before | late

    def _index(self, entry: Entry, segment: Segment, position: int) -> None:
        ns, checkpoint_id, parent_id = entry.ns, entry.checkpoint_id, entry.parent_id
        name = (ns, checkpoint_id)
        bit = 1 << position
        self.in_ns[ns] = self.in_ns.get(ns, 0) | bit
        if entry.kind is Kind.WRITES:
            self.writes[name] = self.writes.get(name, 0) | bit
            return
        known = self.checkpoints.get(name, 0)
        if not known:
            insort(self.names, (checkpoint_id, ns))
        self.checkpoints[name] = known | bit
        self.by_ns[ns] = self.by_ns.get(ns, 0) | bit
        if parent_id and parent_id != checkpoint_id:
            parent = (ns, parent_id)
            self.children[parent] = self.children.get(parent, 0) | bit
        insort(segment.checkpoints.setdefault(ns, []), (entry.id.index, position))

    def _update_tips(self, segment: Segment, givers: Sequence[SegmentId]) -> None:
        """After an event that `givers` gave up: only the tails of its segment can have grown."""
        base = segment.token.base
        by_id = base is not None and base.by_id
        if by_id and segment.note:
            return
        # What was a note until now has superseded nobody yet.
        if by_id or len(segment.events) == 1:
            self.tips = {s for s in self.tips if not self.supersedes(segment.id, s)}
        self.tips.add(segment.id)
        for giver in givers:
            # Who has a newer event in its closed set can only have given it up.
            if not self.segments[giver].note and self.supersedes(giver, segment.id):
                self.tips.discard(segment.id)

    def _note_concurrency(self, segment: Segment) -> None:
        unseen = self.all & ~(segment.closed | segment.mask)
        while unseen:
            first = (unseen & -unseen).bit_length() - 1
            other = self.segments[self.entries[first].id.segment]
            unseen &= ~other.mask
            if segment.mask & ~other.closed:
                one, two = sorted((segment.id, other.id))
                self.concurrent.add((one, two))

    # What follows ----------------------------------------------------------------------------

    def tail(self, of: SegmentId, given: SegmentId) -> int:
        """Events of one segment that another neither saw nor closed."""
        return self.segments[of].mask & ~self.segments[given].closed

    def supersedes(self, one: SegmentId, other: SegmentId) -> bool:
        """Whether `one` knew, or gave up, all of `other`."""
        return one != other and not self.tail(other, one)

    def rank(self, segment: SegmentId) -> tuple[int, int, bytes]:
        """Among concurrent tips the greatest wins: last writer by term, HLC, then segment id."""
        s = self.segments[segment]
        last = self.entries[s.events[s.last_index]]
        return last.term, last.hlc, segment

    def winner(self) -> SegmentId | None:
        """The tip whose lineage is what readers see; None in an empty thread."""
        if len(self.tips) == 1:
            (only,) = self.tips
            return only
        return max(self.tips, key=self.rank) if self.tips else None

    def lineage(self, segment: SegmentId | None) -> Lineage:
        """The lineage of a known segment; empty for None."""
        if segment is None:
            return EMPTY_LINEAGE
        s = self.segments[segment]
        return Lineage(tip=segment, mask=s.base_lineage | s.mask, past=s.past)

    def lineage_from(self, token: ReadToken, own: SegmentId | None) -> Lineage:
        """What a run that read `token` and writes segment `own` has in its past: its base within
        what it saw, plus its own events."""
        if own is not None and own in self.segments:
            return self.lineage(own)
        if token.base is None:
            return EMPTY_LINEAGE
        past = self._past(token)
        mask = self._within(token.base, past)
        return Lineage(tip=token.base.segment, mask=mask, past=past)

    def chain(self, lineage: Lineage) -> Iterator[Segment]:
        """The segments of a lineage, newest first."""
        at = lineage.tip
        while at is not None:
            segment = self.segments[at]
            yield segment
            at = None if segment.token.base is None else segment.token.base.segment
