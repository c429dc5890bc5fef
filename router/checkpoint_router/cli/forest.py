"""How the checkpoints of a thread hang together: lines of descent, forks, nested graphs.

A long conversation is one line, however many checkpoints it has, so a line is a list and only
a fork goes deeper. Of the checkpoints that share a parent, the one that leads to the head goes on
with the line; the others begin lines of their own. A nested graph's checkpoints hang below the
checkpoint of the enclosing graph that they ran in, which metadata `parents` names.

Rules: pure; every checkpoint stands in exactly one line, also where parents are gone or form a
circle; nothing recurses, for forks may be as deep as a thread is long.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from checkpoint_router.cli.facts import Facts, facts_of
from checkpoint_router.core.answers import Node

Name = tuple[str, str]
"""(namespace, checkpoint id)."""


@dataclass(slots=True, kw_only=True)
class Stop:
    """One checkpoint with what branches off it."""

    node: Node
    facts: Facts
    last: bool
    """Nobody's parent in its namespace."""
    others: Sequence[Node] = ()
    """Further records of the same id: it was put again, or two lineages disagree about it."""
    forks: list["Line"] = field(default_factory=list)
    nested: list["Line"] = field(default_factory=list)
    """Of the graphs that ran inside it."""


@dataclass(slots=True, kw_only=True)
class Line:
    """Checkpoints of one namespace, each the parent of the next, oldest first."""

    ns: str
    after: str | None
    """Parent of the first one, where that does not stand just above."""
    after_gone: bool
    """Whether that parent is not stored any more."""
    stops: list[Stop] = field(default_factory=list)


def forest(nodes: Iterable[Node]) -> tuple[Line, ...]:
    """The lines that hang below nothing, root graph first."""
    return _Planter(nodes).plant()


def under(lines: Iterable[Line]) -> Iterator[Stop]:
    """Every stop of `lines` and of what branches off them."""
    work = list(lines)
    while work:
        for stop in work.pop().stops:
            yield stop
            work.extend(stop.forks)
            work.extend(stop.nested)


class _Planter:
    """Builds one forest. A group is what one namespace has below one enclosing checkpoint."""

    def __init__(self, nodes: Iterable[Node]) -> None:
        records: dict[Name, list[Node]] = defaultdict(list)
        for node in nodes:
            records[_name(node)].append(node)
        self.nodes = {name: max(found, key=_shown) for name, found in records.items()}
        self.others = {
            name: [n for n in found if n is not self.nodes[name]]
            for name, found in records.items()
            if len(found) > 1
        }
        self.facts = {name: facts_of(n.metadata) for name, n in self.nodes.items()}
        self.parents = {_parent(n) for n in self.nodes.values()}
        self.groups: dict[tuple[Name | None, str], list[Name]] = defaultdict(list)
        for name in sorted(self.nodes, key=lambda n: (n[1], n[0])):
            self.groups[self._enclosing(name), name[0]].append(name)
        self.spine = self._spine()
        self.stops: dict[Name, Stop] = {}

    def plant(self) -> tuple[Line, ...]:
        """All lines, each hung where it belongs."""
        grown = {key: self._grow(names) for key, names in self.groups.items()}
        top: list[Line] = []
        for (enclosing, _), lines in grown.items():
            (top if enclosing is None else self.stops[enclosing].nested).extend(lines)
        return tuple(sorted(top, key=lambda line: line.ns))

    def _enclosing(self, name: Name) -> Name | None:
        """The nearest stored checkpoint that `name` ran in. Its namespace is shorter, so that no
        two can stand below each other."""
        ns = name[0]
        outer = [
            (o, c)
            for o, c in self.facts[name].parents.items()
            if ns and (not o or ns.startswith(o + "|")) and (o, c) in self.nodes
        ]
        return max(outer, key=lambda n: len(n[0]), default=None)

    def _spine(self) -> set[Name]:
        """The heads and all their ancestors."""
        found: set[Name] = set()
        for name, node in self.nodes.items():
            at: Name | None = name if node.head else None
            while at is not None and at not in found and at in self.nodes:
                found.add(at)
                at = _parent(self.nodes[at])
        return found

    def _rank(self, name: Name) -> tuple[bool, bool, bool, int, str]:
        node = self.nodes[name]
        return name in self.spine, node.on_winner, not node.loser, node.hlc, name[1]

    def _grow(self, names: Sequence[Name]) -> list[Line]:
        """The lines of one group; what leads to the head goes last, where the eye ends."""
        members = set(names)
        children: dict[Name, list[Name]] = defaultdict(list)
        roots: list[Name] = []
        for name in names:
            parent = _parent(self.nodes[name])
            (children[parent] if parent and parent in members else roots).append(name)
        lines: list[Line] = []
        for start in sorted(roots, key=self._rank):
            self._follow(start, children, lines)
        for start in names:  # left over only where parents form a circle
            if start not in self.stops:
                self._follow(start, children, lines)
        return lines

    def _follow(self, start: Name, children: dict[Name, list[Name]], lines: list[Line]) -> None:
        work = [(start, lines)]
        while work:
            first, into = work.pop()
            line = self._line(first, forked=into is not lines)
            into.append(line)
            at: Name | None = first
            while at is not None and at not in self.stops:
                stop = Stop(
                    node=self.nodes[at],
                    facts=self.facts[at],
                    last=at not in self.parents,
                    others=self.others.get(at, ()),
                )
                self.stops[at] = stop
                line.stops.append(stop)
                after = sorted((c for c in children[at] if c not in self.stops), key=self._rank)
                at = after.pop() if after else None
                work.extend((fork, stop.forks) for fork in reversed(after))

    def _line(self, first: Name, *, forked: bool) -> Line:
        parent = None if forked else _parent(self.nodes[first])
        return Line(
            ns=first[0],
            after=None if parent is None else parent[1],
            after_gone=parent is not None and parent not in self.nodes,
        )


def _name(node: Node) -> Name:
    return node.ns, node.checkpoint_id


def _shown(node: Node) -> tuple[bool, bool, bool, int]:
    """Of several records of one id, readers get the one that ranks highest here."""
    return node.head, node.on_winner, not node.loser, node.hlc


def _parent(node: Node) -> Name | None:
    if not node.parent_id or node.parent_id == node.checkpoint_id:
        return None
    return node.ns, node.parent_id
