"""How the checkpoints of a thread hang together: lines of descent, forks, nested graphs.

A long conversation is one line, however many checkpoints it has, so a line is a list and only
a fork goes deeper. Of the checkpoints that share a parent, the one that leads to the head goes on
with the line; the others begin lines of their own. A nested graph's checkpoints hang below the
checkpoint of the enclosing graph that they ran in, which metadata `parents` names.

Rules: pure; every checkpoint stands in exactly one line, also where parents are gone or form a
circle; nothing recurses, for forks may be as deep as a thread is long.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from checkpoint_router.cli.documents import fact, metadata_of
from checkpoint_router.v1.admin_service_pb2 import ThreadNode

Name = tuple[str, str]
"""(namespace, checkpoint id)."""


@dataclass(slots=True, kw_only=True)
class Stop:
    """One checkpoint with what branches off it."""

    node: ThreadNode
    metadata: dict[str, Any]
    others: int
    """Further records of the same id: it was put again, or two lineages disagree about it."""
    last: bool = True
    """Nobody's parent in its namespace."""
    forks: list["Line"] = field(default_factory=list)
    nested: list["Line"] = field(default_factory=list)
    """Of the graphs that ran inside it."""


@dataclass(slots=True, kw_only=True)
class Line:
    """Checkpoints of one namespace, each the parent of the next, oldest first."""

    ns: str
    fork: bool
    """Whether it leaves another line of its namespace, at the stop that it hangs below."""
    after: str | None
    """Parent of the first one, where that does not stand just above."""
    after_gone: bool
    """Whether that parent is not stored any more."""
    stops: list[Stop] = field(default_factory=list)


def forest(nodes: Iterable[ThreadNode]) -> list[Line]:
    """The lines that hang below nothing, root graph first."""
    planter = _Planter(nodes)
    groups: dict[tuple[Name | None, str], list[Name]] = defaultdict(list)
    for name in sorted(planter.stops, key=lambda n: (n[1], n[0])):
        groups[planter.enclosing(name), name[0]].append(name)
    top: list[Line] = []
    for (enclosing, _), names in groups.items():
        lines = planter.lines(names)
        (top if enclosing is None else planter.stops[enclosing].nested).extend(lines)
    return sorted(top, key=lambda line: line.ns)


def under(lines: Iterable[Line]) -> Iterator[Stop]:
    """Every stop of `lines` and of what branches off them."""
    work = list(lines)
    while work:
        for stop in work.pop().stops:
            yield stop
            work += (*stop.forks, *stop.nested)


class _Planter:
    def __init__(self, nodes: Iterable[ThreadNode]) -> None:
        self.stops: dict[Name, Stop] = {}
        # Of several records of one id, readers get the one that ranks highest, which comes last.
        for node in sorted(nodes, key=_rank):
            name = node.checkpoint_ns, node.checkpoint_id
            others = self.stops[name].others + 1 if name in self.stops else 0
            metadata = metadata_of(node.metadata)
            self.stops[name] = Stop(node=node, metadata=metadata, others=others)
        self.parents = {name: _parent(stop.node) for name, stop in self.stops.items()}
        for parent in self.parents.values():
            if parent in self.stops:
                self.stops[parent].last = False
        self.spine: set[Name | None] = set()
        """The heads and all their ancestors."""
        for name, stop in self.stops.items():
            at = name if stop.node.head else None
            while at and at not in self.spine:
                self.spine.add(at)
                at = self.parents.get(at)
        self.planted: set[Name] = set()

    def enclosing(self, name: Name) -> Name | None:
        """The nearest stored checkpoint that `name` ran in. Its namespace is shorter, so that no
        two can stand below each other."""
        ns = name[0]
        parents = fact(self.stops[name].metadata, "parents", dict) or {}
        outer = [
            (o, c)
            for o, c in parents.items()
            if ns and (not o or ns.startswith(o + "|")) and isinstance(c, str)
        ]
        stored = (found for found in outer if found in self.stops)
        return max(stored, key=lambda n: len(n[0]), default=None)

    def lines(self, names: list[Name]) -> list[Line]:
        """The lines of what one namespace has below one enclosing checkpoint; what leads to the
        head goes last, where the eye ends."""
        children: dict[Name | None, list[Name]] = defaultdict(list)
        members = set(names)
        for name in sorted(names, key=self._rank_in_line):
            parent = self.parents[name]
            children[parent if parent in members else None].append(name)
        lines: list[Line] = []
        # All names once more: those are left over whose parents form a circle.
        for start in (*children[None], *names):
            work = [(start, lines)]
            while work:
                self._plant(*work.pop(), children, work)
        return lines

    def _plant(
        self,
        at: Name,
        into: list[Line],
        children: dict[Name | None, list[Name]],
        work: list[tuple[Name, list[Line]]],
    ) -> None:
        """Follows one line from `at` to its end; leaves the forks on its way to `work`."""
        if at in self.planted:
            return
        parent = self.parents[at]
        fork = parent in self.stops and into is self.stops[parent].forks
        after = None if fork or parent is None else parent[1]
        gone = after is not None and parent not in self.stops
        into.append(line := Line(ns=at[0], fork=fork, after=after, after_gone=gone))
        following: Name | None = at
        while following is not None:
            stop = self.stops[following]
            self.planted.add(following)
            line.stops.append(stop)
            after_it = [c for c in children[following] if c not in self.planted]
            following = after_it.pop() if after_it else None
            work += ((fork, stop.forks) for fork in reversed(after_it))

    def _rank_in_line(self, name: Name) -> tuple[bool, tuple[bool, bool, bool, int], str]:
        return name in self.spine, _rank(self.stops[name].node), name[1]


def _rank(node: ThreadNode) -> tuple[bool, bool, bool, int]:
    return node.head, node.on_winner, not node.loser, node.hlc


def _parent(node: ThreadNode) -> Name | None:
    if not node.parent_id or node.parent_id == node.checkpoint_id:
        return None
    return node.checkpoint_ns, node.parent_id
