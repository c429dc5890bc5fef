"""The causal rules on full sets of events: slow, plain, and written without the code under test.

Owner: nobody; every answer is a pure function of the sets given. Rules: no bit masks, no
frontiers, no tokens, no incremental state, and nothing imported from the product. A segment says
which events its run really saw as a set of names; everything else follows by set arithmetic.
"""

from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

Name = tuple[bytes, int]
"""(segment, index) of one event."""

CHECKPOINT = "checkpoint"
WRITES = "writes"


class Fact(NamedTuple):
    """One event, as the client that made it knows it."""

    name: Name
    kind: str
    ns: str
    cid: str
    tasks: tuple[tuple[str, str], ...]
    """Of a write set: (task, its resume value, empty if it has none)."""
    parent: str
    """Empty for none."""
    term: int
    hlc: int
    after: frozenset[Name]
    content: str


class Story(NamedTuple):
    """How a segment came to be, from the side of the run that read."""

    base: tuple[bytes, Name | None] | None
    """The segment that it continues and, for a read by id, the checkpoint."""
    seen: frozenset[Name]
    """Every event of the region at the time of the read."""
    gives_up: frozenset[Name]


class Dispute(NamedTuple):
    """A conflict record, named by the segments where the two sides part."""

    pair: tuple[bytes, bytes]
    kinds: frozenset[str]
    open: bool
    tasks: frozenset[tuple[str, str, str]]
    sides: tuple[tuple[Name, tuple[tuple[str, str], ...], int, bool], ...]
    """(first event, checkpoints, greatest stamp, wins) of each side."""


class Known:
    """A region that knows exactly these events."""

    def __init__(
        self,
        facts: Mapping[Name, Fact],
        stories: Mapping[bytes, Story],
        erased: frozenset[Name] = frozenset(),
    ) -> None:
        self.facts = dict(facts)
        self.stories = stories
        self.erased = erased
        self.segments: dict[bytes, list[Name]] = {}
        for name in sorted(self.facts):
            self.segments.setdefault(name[0], []).append(name)
        self.closed = cache(self._closed)
        self.lineage = cache(self._lineage)
        self.tail = cache(self._tail)
        self.tips = cache(self._tips)

    # Who knew what ---------------------------------------------------------------------------

    def _closed(self, segment: bytes) -> frozenset[Name]:
        """What a segment saw, and what it or a segment in its past gave up."""
        story = self.stories[segment]
        closed = set(story.seen) | story.gives_up
        for other in {name[0] for name in story.seen}:
            closed |= self.stories[other].gives_up
        return frozenset(closed)

    def _tail(self, of: bytes, given: bytes) -> tuple[Name, ...]:
        return tuple(e for e in self.segments[of] if e not in self.closed(given))

    def supersedes(self, one: bytes, other: bytes) -> bool:
        return one != other and not self.tail(other, one)

    def pairs(self) -> set[tuple[bytes, bytes]]:
        """The concurrent pairs, the smaller segment first."""
        return {
            (s, t)
            for s in self.segments
            for t in self.segments
            if s < t and self.tail(s, t) and self.tail(t, s)
        }

    def note(self, segment: bytes) -> bool:
        """Read an old checkpoint by its id, and has put none since."""
        base = self.stories[segment].base
        puts = (self.facts[e].kind == CHECKPOINT for e in self.segments[segment])
        return base is not None and base[1] is not None and not any(puts)

    def _tips(self) -> frozenset[bytes]:
        moved = [s for s in self.segments if not self.note(s)]
        return frozenset(s for s in moved if not any(self.supersedes(t, s) for t in moved))

    def rank(self, segment: bytes) -> tuple[int, int, bytes]:
        last = self.facts[self.segments[segment][-1]]
        return last.term, last.hlc, segment

    def winner(self) -> bytes | None:
        return max(self.tips(), key=self.rank, default=None)

    def maximal(self) -> set[bytes]:
        """Segments that are not wholly in what another really saw."""
        return {
            s
            for s in self.segments
            if not any(
                t != s and set(self.segments[s]) <= self.stories[t].seen for t in self.segments
            )
        }

    # Lineages --------------------------------------------------------------------------------

    def read_lineage(self, story: Story) -> list[Name]:
        """What a run with this story had in memory when it began."""
        if story.base is None:
            return []
        segment, cut = story.base
        line = [e for e in self.lineage(segment) if e in story.seen]
        if cut is None:
            return line
        at, ns = line.index(cut), self.facts[cut].ns
        until, later = line[: at + 1], line[at + 1 :]
        there = {
            f.cid for f in map(self.facts.__getitem__, until) if (f.kind, f.ns) == (CHECKPOINT, ns)
        }
        # Other namespaces stay where they are: the id says nothing of them.
        kept = [
            e
            for e in later
            if self.facts[e].ns != ns or any(self._writes_on(e, (ns, cid)) for cid in there)
        ]
        return until + kept

    def _lineage(self, segment: bytes) -> tuple[Name, ...]:
        return (*self.read_lineage(self.stories[segment]), *self.segments[segment])

    def winning(self) -> tuple[Name, ...]:
        winner = self.winner()
        return () if winner is None else self.lineage(winner)

    def _writes_on(self, name: Name, there: tuple[str, str]) -> bool:
        fact = self.facts[name]
        return fact.kind == WRITES and (fact.ns, fact.cid) == there

    # Views -----------------------------------------------------------------------------------

    def _checkpoints(self, line: tuple[Name, ...] | list[Name], ns: str) -> list[Fact]:
        facts = [self.facts[e] for e in line if e not in self.erased]
        return [f for f in facts if f.kind == CHECKPOINT and f.ns == ns]

    def head(self, ns: str, line: tuple[Name, ...] | list[Name]) -> Name | None:
        """The last checkpoint of `ns` that is nobody's parent there."""
        found = self._checkpoints(line, ns)
        parents = {f.parent for f in found if f.parent != f.cid}
        childless = [f for f in found if f.cid not in parents]
        last = childless or found
        return last[-1].name if last else None

    def earlier(self, name: Name | None, line: tuple[Name, ...]) -> list[Name]:
        """Checkpoints of the same namespace before this one, newest first."""
        if name is None:
            return []
        found = self._checkpoints(line[: line.index(name)], self.facts[name].ns)
        return [f.name for f in reversed(found)]

    def writes(self, ns: str, cid: str, line: tuple[Name, ...] | list[Name]) -> tuple[Name, ...]:
        return tuple(e for e in line if e not in self.erased and self._writes_on(e, (ns, cid)))

    def parent_shown(self, name: Name) -> str | None:
        """The parent as given; None where every event of that parent was pruned."""
        fact = self.facts[name]
        stored = {
            e
            for e, f in self.facts.items()
            if f.kind == CHECKPOINT and (f.ns, f.cid) == (fact.ns, fact.parent)
        }
        return fact.parent if fact.parent and (not stored or stored - self.erased) else None

    def by_id(
        self, ns: str, cid: str
    ) -> tuple[Name, tuple[Name, ...], tuple[bytes, Name | None]] | None:
        """(event, its write sets, base of a run that reads it): on the winner's lineage, else on
        that of the greatest segment that has it."""

        def having(segment: bytes) -> list[Name]:
            return [f.name for f in self._checkpoints(self.lineage(segment), ns) if f.cid == cid]

        winner = self.winner()
        holders = [s for s in self.segments if having(s)]
        if not holders:
            return None
        holder = winner if winner in holders else max(holders, key=self.rank)
        assert holder is not None
        there = {e for e in self.facts if self._writes_on(e, (ns, cid))} - self.erased
        lone = {e[0] for e in there - set(self.winning())}
        known = there & set(self.winning())
        notes = [s for s in lone if self.note(s) and having(s) and known <= self.closed(s)]
        last = [s for s in notes if not any(self.supersedes(t, s) for t in notes)]
        if last:
            holder = max(last, key=self.rank)
        event, line = having(holder)[-1], self.lineage(holder)
        # To name the head is to go nowhere.
        cut = None if holder == winner and event == self.head(ns, line) else event
        return event, self.writes(ns, cid, line), (holder, cut)

    def listed(self, among: frozenset[Name] | set[Name]) -> list[tuple[str, str]]:
        """(checkpoint id, namespace) of the checkpoints in `among`, greatest first."""
        shown = {
            (f.cid, f.ns)
            for e, f in self.facts.items()
            if e in among and e not in self.erased and f.kind == CHECKPOINT
        }
        return sorted(shown, reverse=True)

    def causal_past(self) -> set[Name]:
        winner = self.winner()
        return set() if winner is None else set(self.closed(winner)) | set(self.lineage(winner))

    # Conflicts -------------------------------------------------------------------------------

    def unknown(self, of: bytes, given: bytes) -> list[Name]:
        """Events on one lineage that the other side did not know, in lineage order."""
        return [e for e in self.lineage(of) if e not in self.closed(given) and e[0] != given]

    def disputes(self) -> dict[tuple[bytes, bytes], Dispute]:
        groups: dict[tuple[bytes, bytes], list[tuple[bytes, bytes]]] = {}
        for one, two in self.pairs():
            x, y = self.unknown(one, two)[0], self.unknown(two, one)[0]
            # The side that holds the smaller first event comes first.
            ordered = (one, two) if x < y else (two, one)
            low, high = sorted((x[0], y[0]))
            groups.setdefault((low, high), []).append(ordered)
        return {pair: self._dispute(pair, members) for pair, members in groups.items()}

    def _dispute(self, pair: tuple[bytes, bytes], members: list[tuple[bytes, bytes]]) -> Dispute:
        kinds = {"fork"}
        tasks: set[tuple[str, str, str]] = set()
        for one, two in members:
            found, ran_twice = self._compare(self.tail(one, two), self.tail(two, one))
            kinds |= found
            tasks |= ran_twice
        settled = not any(s in self.tips() for member in members for s in member)
        left = {e for one, two in members for e in self.unknown(one, two)}
        right = {e for one, two in members for e in self.unknown(two, one)}
        return Dispute(
            pair=pair,
            kinds=frozenset(kinds),
            open=not settled or bool(kinds & {"double_execution", "double_resume"}),
            tasks=frozenset(tasks),
            sides=(self._side(pair[0], left), self._side(pair[1], right)),
        )

    def _compare(
        self, left: tuple[Name, ...], right: tuple[Name, ...]
    ) -> tuple[set[str], set[tuple[str, str, str]]]:
        kinds: set[str] = set()
        tasks: set[tuple[str, str, str]] = set()
        mine, theirs = [self.facts[e] for e in left], [self.facts[e] for e in right]
        for name in {(f.ns, f.cid) for f in mine} & {(f.ns, f.cid) for f in theirs}:
            a, b = ([f for f in side if (f.ns, f.cid) == name] for side in (mine, theirs))
            put, rival = ([f for f in side if f.kind == CHECKPOINT] for side in (a, b))
            if put and rival and put[-1].content != rival[-1].content:
                kinds.add("same_id_other_content")
            for task in {t for f in a for t, _ in f.tasks} & {t for f in b for t, _ in f.tasks}:
                kinds.add("double_execution")
                tasks.add((*name, task))
                said, replied = (
                    {answer for f in side for t, answer in f.tasks if t == task} - {""}
                    for side in (a, b)
                )
                if said and replied and said != replied:
                    kinds.add("double_resume")
        return kinds, tasks

    def _side(
        self, segment: bytes, unknown: set[Name]
    ) -> tuple[Name, tuple[tuple[str, str], ...], int, bool]:
        ordered = sorted(unknown, key=lambda e: (self.depth(e[0]), e[1], e[0]))
        checkpoints = dict.fromkeys(
            (self.facts[e].ns, self.facts[e].cid)
            for e in ordered
            if self.facts[e].kind == CHECKPOINT
        )
        first = min(e for e in unknown if e[0] == segment)
        stamp = max(self.facts[e].hlc for e in unknown)
        return first, tuple(checkpoints), stamp, bool(unknown & set(self.winning()))

    def depth(self, segment: bytes) -> int:
        base = self.stories[segment].base
        return 0 if base is None else self.depth(base[0]) + 1
