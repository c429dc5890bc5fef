"""Conflict records: derived alike in every region, kept until somebody decides.

A record covers two segments: those of the first events on two concurrent lineages that the
other side did not know. All concurrent pairs that branch there share the record. Continuing on
the winner makes a plain fork *continued*; what ran twice or was answered twice stays open.
"""

from dataclasses import dataclass
from enum import StrEnum

from checkpoint_router.core.digests import conflict_id
from checkpoint_router.core.history import History, bits
from checkpoint_router.core.ids import EventId, SegmentId
from checkpoint_router.core.records import Entry, Kind


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


def conflicts(history: History) -> tuple[Conflict, ...]:
    """All records of a thread, by id."""
    groups: dict[tuple[SegmentId, SegmentId], list[tuple[SegmentId, SegmentId]]] = {}
    for one, two in sorted(history.concurrent):
        x, y = _first_unknown(history, one, two), _first_unknown(history, two, one)
        if x is not None and y is not None:
            low, high = sorted((x, y))
            groups.setdefault((low, high), []).append((one, two))
    found = [_record(history, pair, members) for pair, members in groups.items()]
    return tuple(sorted(found, key=lambda c: c.id))


def losing(history: History) -> int:
    """Events that only open conflicts' losers have: prune spares them."""
    kept = 0
    winner = history.lineage(history.winner()).mask
    for record in conflicts(history):
        if record.open:
            for side in record.sides:
                kept |= history.lineage(side.segment).mask & ~winner
    return kept


def _first_unknown(history: History, of: SegmentId, given: SegmentId) -> SegmentId | None:
    """The segment of the first event on the lineage of one that the other did not know."""
    other = history.segments[given]
    unknown = history.lineage(of).mask & ~other.closed & ~other.mask
    if not unknown:
        return None
    return history.entries[min(bits(unknown), key=history.order)].id.segment


def _record(
    history: History,
    pair: tuple[SegmentId, SegmentId],
    members: list[tuple[SegmentId, SegmentId]],
) -> Conflict:
    kinds = {ConflictKind.FORK}
    tasks: dict[tuple[str, str, str], Task] = {}
    masks = {pair[0]: 0, pair[1]: 0}
    for one, two in members:
        tail_one, tail_two = history.tail(one, two), history.tail(two, one)
        x = _first_unknown(history, one, two)
        masks[pair[0]] |= tail_one if x == pair[0] else tail_two
        masks[pair[1]] |= tail_two if x == pair[0] else tail_one
        kinds |= _compare(history, tail_one, tail_two, tasks)
    superseded = not any(s in history.tips for member in members for s in member)
    continued = superseded and not kinds & _NEVER_BY_ITSELF
    one, two = (_side(history, s, masks[s]) for s in pair)
    return Conflict(
        id=conflict_id(history.thread, history.gen, *pair),
        kinds=frozenset(kinds),
        open=not continued,
        sides=(one, two),
        tasks=tuple(tasks[k] for k in sorted(tasks)),
    )


def _compare(
    history: History, left: int, right: int, tasks: dict[tuple[str, str, str], Task]
) -> set[ConflictKind]:
    kinds: set[ConflictKind] = set()
    other = _by_key(history, right)
    for key, mine in _by_key(history, left).items():
        theirs = other.get(key)
        if theirs is None:
            continue
        if mine[0].kind is Kind.CHECKPOINT:
            if mine[-1].content != theirs[-1].content:
                kinds.add(ConflictKind.SAME_ID_OTHER_CONTENT)
            continue
        kinds.add(ConflictKind.DOUBLE_EXECUTION)
        entry = mine[0]
        tasks[key] = Task(
            ns=entry.ns,
            checkpoint_id=entry.checkpoint_id,
            task_id=entry.task_id,
            task_path=entry.task_path,
        )
        if {e.answer for e in mine} - {b""} != {e.answer for e in theirs} - {b""} and (
            any(e.answer for e in mine) and any(e.answer for e in theirs)
        ):
            kinds.add(ConflictKind.DOUBLE_RESUME)
    return kinds


def _by_key(history: History, mask: int) -> dict[tuple[str, str, str], list[Entry]]:
    out: dict[tuple[str, str, str], list[Entry]] = {}
    for position in bits(mask):
        entry = history.entries[position]
        out.setdefault((entry.ns, entry.checkpoint_id, entry.task_id), []).append(entry)
    return out


def _side(history: History, segment: SegmentId, mask: int) -> Side:
    own = history.segments[segment]
    positions = sorted(bits(mask | own.mask), key=history.order)
    names = dict.fromkeys(
        (e.ns, e.checkpoint_id)
        for e in (history.entries[p] for p in positions)
        if e.kind is Kind.CHECKPOINT
    )
    first = history.entries[own.events[min(own.events)]]
    winner = history.lineage(history.winner()).mask
    return Side(
        segment=segment,
        first=first.id,
        checkpoints=tuple(names),
        hlc=max(history.entries[p].hlc for p in positions),
        wins=bool(winner & own.mask),
    )
