"""Copying a thread: the same events under names that every copy onto that thread makes again.

Event (S, i) becomes (H(source, target, S), i) and every name inside it is mapped alike, so
copying is a union: a copy adds what the target lacks, whether an earlier one failed midway or the
source has grown since. Events that were pruned do not travel; what rested on them rests on what
is left. What an earlier copy brought and the source has pruned since goes, unless the target has
gone on by itself.
"""

from collections.abc import Iterable

from msgspec import structs

from checkpoint_router.core.clock import Frontier, indices, ranges_of
from checkpoint_router.core.digests import copied, copy_id, thread_hash
from checkpoint_router.core.history import History, Segment, bits
from checkpoint_router.core.ids import EventId, SegmentId
from checkpoint_router.core.records import Checkpoint, Event, Header, WriteSet
from checkpoint_router.core.token import Base, Cut, ReadToken, seal


class Copy:
    """What one copy brings from a history to the one of another thread, as both are now."""

    def __init__(self, source: History, target: History, key: bytes) -> None:
        self._source = source
        self._target = target
        self._key = key
        self._copy = copy_id(source.thread, source.gen, target.thread, target.gen)
        self._headers: dict[SegmentId, Header] = {}
        self._absent = sum(1 << p for p in bits(source.erased) if not self._has(p))
        """Events of the source that were pruned there, and that no earlier copy brought."""

    def events(self, stored: Iterable[Event]) -> list[Event]:
        """The target's events for those of the source's, not pruned there, that it lacks."""
        position = self._source.position
        return [self._event(each) for each in stored if not self._has(position(each.id))]

    def outdated(self, target: History) -> int:
        """Events of the target that the source pruned after they had come. None if the target has
        any of its own, since those may rest on them."""
        own = {self._name(EventId(s, 1)).segment for s in self._source.segments}
        if not own.issuperset(target.segments):
            return 0
        names = (self._name(self._source.entries[p].id) for p in bits(self._source.erased))
        brought = (target.position(n) for n in names if target.entry(n) is not None)
        return sum(1 << p for p in brought) & ~target.erased

    def _has(self, position: int) -> bool:
        return self._target.entry(self._name(self._source.entries[position].id)) is not None

    def _name(self, event: EventId) -> EventId:
        return copied(self._copy, event)

    def _event(self, event: Event) -> Event:
        """Each carries its header, since those that carried it in the source may be gone."""
        segment = self._source.segments[event.id.segment]
        gone = {i for i, p in segment.events.items() if self._absent >> p & 1}
        return structs.replace(
            event,
            id=self._name(event.id),
            gen=self._target.gen,
            after=ranges_of(i for i in indices(event.after) if i not in gone),
            header=self._header(segment),
            content=self._content(event),
        )

    def _content(self, event: Event) -> Checkpoint | WriteSet:
        """As it was, but for a parent that stays behind: nothing here would tell a reader that
        the link leads nowhere."""
        content = event.content
        if not isinstance(content, Checkpoint) or not content.parent_id:
            return content
        parent = self._source.checkpoints.get((event.ns, content.parent_id), 0)
        stays = parent and not parent & ~self._absent
        return structs.replace(content, parent_id=None) if stays else content

    def _header(self, segment: Segment) -> Header:
        brought = self._target.segments.get(self._name(EventId(segment.id, 1)).segment)
        if brought is not None:
            return brought.header
        header = self._headers.get(segment.id)
        if header is None:
            token = ReadToken(
                thread=thread_hash(self._target.thread),
                gen=self._target.gen,
                base=self._base(segment),
                seen=self._seen(segment),
                hlc=segment.token.hlc,
                term=segment.token.term,
                epoch=segment.token.epoch,
            )
            header = Header(token=seal(token, self._key), gives_up=self._given(segment))
            self._headers[segment.id] = header
        return header

    def _base(self, segment: Segment) -> Base | None:
        """The base, or what is left of it: a segment of which nothing is left does not travel,
        and its own base stands in, cut so that the lineage is the same less what was pruned."""
        source, base = self._source, segment.token.base
        left = segment.base_lineage & ~self._absent
        if base is None or not left:
            return None
        at = base.segment
        if not source.segments[at].mask & segment.past & ~self._absent:
            at = source.entries[max(bits(left), key=source.order)].id.segment
        surplus = source.lineage(at).mask & segment.past & ~self._absent & ~left
        cuts = [
            self._cut(ns, left & mask, surplus & mask)
            for ns, mask in source.in_ns.items()
            if surplus & mask
        ]
        return Base(
            segment=self._name(EventId(at, 1)).segment, cuts=tuple(cuts), by_id=segment.note
        )

    def _cut(self, ns: str, left: int, surplus: int) -> Cut:
        """Leaves out the surplus of one namespace, and nothing else."""
        source = self._source
        first = min(source.order(p) for p in bits(surplus))
        kept = sorted(bits(left), key=source.order)
        names = [self._name(source.entries[p].id) for p in kept]
        before = sum(source.order(p) < first for p in kept)
        return Cut(ns, names[before - 1] if before else None, tuple(names[before:]))

    def _given(self, segment: Segment) -> tuple[EventId, ...]:
        """What the segment gave up, or one in its past did: that one may be gone."""
        source = self._source
        landed = segment.closed & ~segment.past & ~self._absent
        given = {*segment.header.gives_up, *(source.entries[p].id for p in bits(landed))}
        return tuple(self._name(e) for e in sorted(given))

    def _seen(self, segment: Segment) -> Frontier:
        left = segment.past & ~self._absent
        named: dict[SegmentId, int] = {}
        rest = left
        while rest:
            first = (rest & -rest).bit_length() - 1
            other = self._source.segments[self._source.entries[first].id.segment]
            named[other.id] = other.mask & left
            rest &= ~other.mask
        pasts = {s: self._source.segments[s].past for s in named}
        return tuple(
            sorted(
                (
                    self._name(EventId(s, 1)).segment,
                    ranges_of(self._source.entries[p].id.index for p in bits(mask)),
                )
                for s, mask in named.items()
                if not any(t != s and not mask & ~pasts[t] for t in named)
            )
        )
