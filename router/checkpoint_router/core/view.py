"""What readers see: heads, pending writes, tuples by id and listings, as functions of a history."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from checkpoint_router.core.history import History, Lineage, bits
from checkpoint_router.core.ids import EventId, SegmentId
from checkpoint_router.core.records import Entry, TaskWrites, WriteRow
from checkpoint_router.core.token import Base, Cut


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One checkpoint as a reader gets it, still without payload."""

    checkpoint: Entry
    writes: tuple[EventId, ...]
    """Its write sets on `lineage`, in lineage order: fold them with `fold`."""
    parent_id: str | None
    base: Base
    """What a segment that starts from this read continues."""
    lineage: Lineage


def head(history: History, ns: str, lineage: Lineage) -> int | None:
    """Position of the last checkpoint of `ns` on `lineage` that is nobody's parent there."""
    visible = lineage.mask & ~history.erased
    if not history.by_ns.get(ns, 0) & visible:
        return None
    last = None
    for segment in history.chain(lineage):
        for _, position in reversed(segment.checkpoints.get(ns, ())):
            if not visible >> position & 1:
                continue
            last = position if last is None else last
            cid = history.entries[position].checkpoint_id
            if not history.children.get((ns, cid), 0) & visible:
                return position
    return last  # parents in a circle: nothing that LangGraph writes, but it must read back


def newest(history: History, ns: str, lineage: Lineage | None = None) -> Shown | None:
    """The head of `ns`: for a plain read on the winner's lineage, inside a run on its own."""
    if lineage is None:
        lineage = history.lineage(history.winner())
    position = head(history, ns, lineage)
    if position is None or lineage.tip is None:
        return None
    return _shown(history, position, Base(segment=lineage.tip), lineage)


def by_id(history: History, ns: str, cid: str, lineage: Lineage | None = None) -> Shown | None:
    """A checkpoint by its id: as the last note on it has it, else as the winner, else as the
    greatest segment that has it.

    With the `lineage` of a run, the run's own view of it comes first.
    """
    named = history.checkpoints.get((ns, cid), 0) & ~history.erased
    if not named:
        return None
    if lineage is None or not lineage.mask & named:
        winner = history.lineage(history.winner())
        note = _note_at(history, (ns, cid), named, winner)
        if note is not None:
            lineage = history.lineage(note)
        else:
            lineage = winner if winner.mask & named else _greatest_with(history, named)
        shown = winner.tip
    else:
        shown = lineage.tip
    assert lineage.tip is not None
    position = max(bits(named & lineage.mask), key=history.order)
    # Who names the head goes nowhere: that is a plain read.
    newest = lineage.tip == shown and position == head(history, ns, lineage)
    cuts = () if newest else (Cut(ns, history.entries[position].id),)
    base = Base(segment=lineage.tip, cuts=cuts, by_id=not newest)
    return _shown(history, position, base, lineage)


def listed(
    history: History,
    *,
    ns: str | None = None,
    cid: str | None = None,
    before: str | None = None,
    losers: bool = False,
    lineage: Lineage | None = None,
) -> Iterator[tuple[str, str]]:
    """(checkpoint id, namespace) of what a listing shows, greatest id first.

    That is the winner's causal past, or inside a run its own; unresolved losers only if asked.
    Ids compare as plain text, `before` too, whatever namespace it names.
    """
    visible = history.all & ~history.erased
    if not losers:
        visible &= _causal_past(history, lineage)
    names = history.names
    start, end = 0, len(names)
    if cid is not None:
        start, end = bisect_left(names, (cid, "")), bisect_left(names, (cid + "\0", ""))
    if before is not None:
        end = min(end, bisect_left(names, (before, "")))
    for at in range(end - 1, start - 1, -1):
        c, n = names[at]
        if (ns is None or n == ns) and history.checkpoints[n, c] & visible:
            yield c, n


def fold(calls: Iterable[TaskWrites]) -> list[tuple[str, str, WriteRow]]:
    """(task id, task path, row) by LangGraph's rule, of what tasks wrote in lineage order.

    A regular write (idx >= 0) keeps its first row, a special one (idx < 0) its last; the result
    is sorted by (task path, task id, idx), code point by code point.
    """
    rows: dict[tuple[str, int], tuple[str, WriteRow]] = {}
    for call in calls:
        for row in call.rows:
            key = (call.task_id, row.idx)
            if row.idx < 0 or key not in rows:
                rows[key] = (call.task_path, row)
    found = [(task_id, path, row) for (task_id, _), (path, row) in rows.items()]
    return sorted(found, key=lambda r: (r[1], r[0], r[2].idx))


def earlier(history: History, lineage: Lineage, checkpoint: Entry) -> Iterator[Entry]:
    """Checkpoints of the same namespace before `checkpoint` on its lineage, newest first: where
    a channel that was stored by version alone is looked up."""
    limit = history.order(history.position(checkpoint.id))
    visible = lineage.mask & ~history.erased
    for segment in history.chain(lineage):
        for _, position in segment.checkpoints.get(checkpoint.ns, ())[::-1]:
            if visible >> position & 1 and history.order(position) < limit:
                yield history.entries[position]


def _shown(history: History, position: int, base: Base, lineage: Lineage) -> Shown:
    entry = history.entries[position]
    name = (entry.ns, entry.checkpoint_id)
    sets = history.writes.get(name, 0) & lineage.mask & ~history.erased
    return Shown(
        checkpoint=entry,
        writes=tuple(history.entries[p].id for p in sorted(bits(sets), key=history.order)),
        parent_id=_parent(history, entry),
        base=base,
        lineage=lineage,
    )


def _parent(history: History, entry: Entry) -> str | None:
    """The parent as it was given, unless it was pruned: a link to nowhere misleads a walk."""
    if not entry.parent_id:
        return None
    stored = history.checkpoints.get((entry.ns, entry.parent_id), 0)
    return None if stored and not stored & ~history.erased else entry.parent_id


def _note_at(
    history: History, name: tuple[str, str], named: int, winner: Lineage
) -> SegmentId | None:
    """Whose lone writes on a checkpoint are shown: of the notes there, unless the winner's line has
    them, or a write there that they had not seen, the greatest that no other has seen."""
    segments, there = history.segments, history.writes.get(name, 0) & ~history.erased
    notes = [
        s
        for s in {history.entries[p].id.segment for p in bits(there & ~winner.mask)}
        if segments[s].note
        and segments[s].base_lineage & named
        and not there & winner.mask & ~segments[s].closed
    ]
    last = [s for s in notes if not any(history.supersedes(t, s) for t in notes)]
    return max(last, key=history.rank, default=None)


def _greatest_with(history: History, named: int) -> Lineage:
    having = [s.id for s in history.segments.values() if s.mask & named or s.base_lineage & named]
    return history.lineage(max(having, key=history.rank))


def _causal_past(history: History, lineage: Lineage | None) -> int:
    if lineage is not None:
        return lineage.mask | lineage.past
    winner = history.winner()
    if winner is None:
        return 0
    segment = history.segments[winner]
    return segment.closed | segment.base_lineage | segment.mask
