"""Copying a thread: the same events under names that a retried copy makes again.

Event (S, i) becomes (H(call, S), i) and every name inside it is mapped alike, so copying is a
union. Events that were pruned do not travel; what rested on them rests on what is left.
"""

from dataclasses import replace

from checkpoint_router.core.clock import Frontier, indices, ranges_of
from checkpoint_router.core.digests import copied, thread_hash
from checkpoint_router.core.history import History, Segment, bits
from checkpoint_router.core.ids import EventId, SegmentId, ThreadKey
from checkpoint_router.core.records import Event, Header
from checkpoint_router.core.token import Base, Cut, ReadToken, seal


class Copy:
    """One copy call from a history to a generation of another thread."""

    def __init__(
        self, source: History, target: ThreadKey, gen: int, call: bytes, key: bytes
    ) -> None:
        self._source = source
        self._target = target
        self._gen = gen
        self._call = call
        self._key = key
        self._headers: dict[SegmentId, Header] = {}

    def event(self, event: Event) -> Event:
        """The target's event for one of the source's that was not pruned. Each carries its
        header, since those that carried it in the source may be gone."""
        segment = self._source.segments[event.id.segment]
        gone = {i for i, p in segment.events.items() if self._source.erased >> p & 1}
        return replace(
            event,
            id=copied(self._call, event.id),
            gen=self._gen,
            after=ranges_of(i for i in indices(event.after) if i not in gone),
            header=self._header(segment),
        )

    def _header(self, segment: Segment) -> Header:
        header = self._headers.get(segment.id)
        if header is None:
            token = ReadToken(
                thread=thread_hash(self._target),
                gen=self._gen,
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
        left = segment.base_lineage & ~source.erased
        if base is None or not left:
            return None
        at = base.segment
        if not source.segments[at].mask & segment.past & ~source.erased:
            at = source.entries[max(bits(left), key=source.order)].id.segment
        surplus = source.lineage(at).mask & segment.past & ~source.erased & ~left
        cuts = [
            Cut(ns, self._cut(base, left & mask, surplus & mask))
            for ns, mask in source.in_ns.items()
            if surplus & mask
        ]
        return Base(
            segment=copied(self._call, EventId(at, 1)).segment,
            cuts=tuple(Cut(c.ns, c.last and copied(self._call, c.last)) for c in cuts),
        )

    def _cut(self, base: Base, left: int, surplus: int) -> EventId | None:
        """After which event of one namespace the surplus begins: as it was cut, or, if that
        checkpoint was pruned, after the last event before it."""
        source = self._source
        for cut in base.cuts:
            if cut.last is not None and left >> source.position(cut.last) & 1:
                return cut.last
        limit = min(source.order(p) for p in bits(surplus))
        below = [p for p in bits(left) if source.order(p) < limit]
        return source.entries[max(below, key=source.order)].id if below else None

    def _given(self, segment: Segment) -> tuple[EventId, ...]:
        """What the segment gave up, or one in its past did: that one may be gone."""
        source = self._source
        landed = segment.closed & ~segment.past & ~source.erased
        given = {*segment.header.gives_up, *(source.entries[p].id for p in bits(landed))}
        return tuple(copied(self._call, e) for e in sorted(given))

    def _seen(self, segment: Segment) -> Frontier:
        left = segment.past & ~self._source.erased
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
                    copied(self._call, EventId(s, 1)).segment,
                    ranges_of(self._source.entries[p].id.index for p in bits(mask)),
                )
                for s, mask in named.items()
                if not any(t != s and not mask & ~pasts[t] for t in named)
            )
        )
