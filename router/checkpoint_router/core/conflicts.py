"""Conflict records: derived alike in every region, kept until somebody decides.

A record covers two segments: those of the first events on two concurrent lineages that the
other side did not know. All concurrent pairs that branch there share the record. Continuing on
the winner makes a plain fork *continued*; what ran twice or was answered twice stays open.
"""

from dataclasses import dataclass
from enum import StrEnum
from functools import cache, partial
from typing import NamedTuple

from checkpoint_router.core.digests import conflict_id
from checkpoint_router.core.history import History, bits
from checkpoint_router.core.ids import EventId, SegmentId
from checkpoint_router.core.records import Kind, TaskEntry


class ConflictKind(StrEnum):
    """What went wrong."""

    FORK = "fork"
    DOUBLE_EXECUTION = "double_execution"
    """The same task of the same checkpoint was written by both sides: a tool ran twice."""
    DOUBLE_RESUME = "double_resume"
    """Two different answers to one interrupt."""
    SAME_ID_OTHER_CONTENT = "same_id_other_content"


_NEVER_BY_ITSELF = {ConflictKind.DOUBLE_EXECUTION, ConflictKind.DOUBLE_RESUME}


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A task that both sides executed."""

    ns: str
    checkpoint_id: str
    task_id: str
    task_path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One of the two lineages of a conflict."""

    segment: SegmentId
    first: EventId
    """The first event that the other side did not know."""
    checkpoints: tuple[tuple[str, str], ...]
    """(namespace, checkpoint id) of this side alone, in lineage order."""
    hlc: int
    wins: bool
    """Whether it is on the winner's lineage now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """A record, open or closed."""

    id: bytes
    kinds: frozenset[ConflictKind]
    open: bool
    sides: tuple[Side, Side]
    tasks: tuple[Task, ...]
    """Tasks that ran on both sides."""


@dataclass(frozen=True, slots=True)
class _Pair:
    """A concurrent pair, turned so that the side with the smaller first event is `one`."""

    one: SegmentId
    two: SegmentId
    unknown_one: int
    """Events on the lineage of `one` that `two` neither saw nor closed."""
    unknown_two: int


class _Look:
    """One look at a history. Lines that go on side by side are as many pairs as the product of
    their segments, over few sets of events: what follows from a set is found out once."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.winner = history.lineage(history.winner()).mask
        self.first = cache(partial(_first, history))
        self.done = cache(partial(_done, history))


def conflicts(history: History) -> tuple[Conflict, ...]:
    """All records of a thread, by id."""
    look = _Look(history)
    found = [_record(look, key, pairs) for key, pairs in _groups(look).items()]
    return tuple(sorted(found, key=lambda c: c.id))


def losing(history: History) -> int:
    """Events that only open conflicts' losers have: prune spares them."""
    kept = 0
    look = _Look(history)
    for key, pairs in _groups(look).items():
        if _record(look, key, pairs).open:
            # All who branch there lose, not only the two where the branches part.
            for segment in {s for pair in pairs for s in (pair.one, pair.two)}:
                kept |= history.lineage(segment).mask & ~look.winner
    return kept


def _groups(look: _Look) -> dict[tuple[SegmentId, SegmentId], list[_Pair]]:
    """The concurrent pairs, by the segments of the first events that the other side of each did
    not know. The two are one where a segment's own calls reached two readers differently."""
    history = look.history
    groups: dict[tuple[SegmentId, SegmentId], list[_Pair]] = {}
    for one, two in sorted(history.concurrent):
        left, right = _unknown(history, one, two), _unknown(history, two, one)
        x, y = look.first(left), look.first(right)
        if y < x:
            x, y, one, two, left, right = y, x, two, one, right, left
        groups.setdefault((x.segment, y.segment), []).append(_Pair(one, two, left, right))
    return groups


def _unknown(history: History, of: SegmentId, given: SegmentId) -> int:
    other = history.segments[given]
    return history.lineage(of).mask & ~other.closed & ~other.mask


def _first(history: History, mask: int) -> EventId:
    return history.entries[min(bits(mask), key=history.order)].id


def _record(look: _Look, key: tuple[SegmentId, SegmentId], pairs: list[_Pair]) -> Conflict:
    history = look.history
    kinds = {ConflictKind.FORK}
    tasks: dict[tuple[str, str, str], Task] = {}
    left = right = 0
    for pair in pairs:
        left |= pair.unknown_one
        right |= pair.unknown_two
        mine, theirs = history.tail(pair.one, pair.two), history.tail(pair.two, pair.one)
        kinds |= _compare(look.done(mine), look.done(theirs), tasks)
    superseded = not any(s in history.tips for pair in pairs for s in (pair.one, pair.two))
    continued = superseded and not kinds & _NEVER_BY_ITSELF
    return Conflict(
        id=conflict_id(history.thread, history.gen, *key),
        kinds=frozenset(kinds),
        open=not continued,
        sides=(_side(look, key[0], left), _side(look, key[1], right)),
        tasks=tuple(tasks[k] for k in sorted(tasks)),
    )


class _Done(NamedTuple):
    """What the events of one side did."""

    checkpoints: dict[tuple[str, str], bytes]
    """(namespace, id) to the digest of the last content."""
    tasks: dict[tuple[str, str, str], list[TaskEntry]]
    """(namespace, id, task) to its writes, in order."""


def _compare(
    mine: _Done, theirs: _Done, tasks: dict[tuple[str, str, str], Task]
) -> set[ConflictKind]:
    kinds: set[ConflictKind] = set()
    for name in mine.checkpoints.keys() & theirs.checkpoints.keys():
        if mine.checkpoints[name] != theirs.checkpoints[name]:
            kinds.add(ConflictKind.SAME_ID_OTHER_CONTENT)
    for key in mine.tasks.keys() & theirs.tasks.keys():
        kinds.add(ConflictKind.DOUBLE_EXECUTION)
        ns, cid, task_id = key
        path = mine.tasks[key][0].task_path
        tasks[key] = Task(ns=ns, checkpoint_id=cid, task_id=task_id, task_path=path)
        one, two = ({t.answer for t in of.tasks[key]} - {b""} for of in (mine, theirs))
        if one and two and one != two:
            kinds.add(ConflictKind.DOUBLE_RESUME)
    return kinds


def _done(history: History, mask: int) -> _Done:
    done = _Done({}, {})
    for position in sorted(bits(mask), key=history.order):  # not as they happened to arrive
        entry = history.entries[position]
        if entry.kind is Kind.CHECKPOINT:
            done.checkpoints[entry.ns, entry.checkpoint_id] = entry.content
        for task in entry.tasks:
            key = entry.ns, entry.checkpoint_id, task.task_id
            done.tasks.setdefault(key, []).append(task)
    return done


def _side(look: _Look, segment: SegmentId, unknown: int) -> Side:
    """`unknown`: the events of this side that some segment of the other did not know."""
    history = look.history
    positions = sorted(bits(unknown), key=lambda p: (history.order(p), history.entries[p].id))
    names = dict.fromkeys(
        (e.ns, e.checkpoint_id)
        for e in (history.entries[p] for p in positions)
        if e.kind is Kind.CHECKPOINT
    )
    return Side(
        segment=segment,
        first=look.first(unknown & history.segments[segment].mask),
        checkpoints=tuple(names),
        hlc=max(history.entries[p].hlc for p in positions),
        wins=bool(look.winner & unknown),
    )
