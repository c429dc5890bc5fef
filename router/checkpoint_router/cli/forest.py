"""How the checkpoints of a thread hang together: lines of descent, forks, nested graphs.

A long conversation is one line, however many checkpoints it has, so a line is a list and only
a fork goes deeper. Of the checkpoints that share a parent, the one that leads to the head goes on
with the line; the others begin lines of their own. A nested graph's checkpoints hang below the
checkpoint of the enclosing graph that they ran in, which metadata `parents` names.

Rules: pure; every checkpoint stands in exactly one line, also where parents are gone or form a
circle; nothing recurses, for forks may be as deep as a thread is long.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
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
    parent: Name | None
    parent_gone: bool = False
    """Whether the parent is not stored any more."""
    others: int
    """Further records of the same id: it was put again, or two lineages disagree about it."""
    last: bool = True
    """Nobody's parent in its namespace."""
    below: list["Line"] = field(default_factory=list)
    """Of the graphs that ran inside it, and forks."""

    @property
    def name(self) -> Name:
        """Of the checkpoint."""
        return self.node.checkpoint_ns, self.node.checkpoint_id

    @property
    def forks(self) -> bool:
        """Whether another line of its namespace leaves here."""
        return any(line.fork for line in self.below)


@dataclass(slots=True, kw_only=True)
class Line:
    """Checkpoints of one namespace, each the parent of the next, oldest first."""

    fork: bool
    """Whether the parent of its first checkpoint stands just above."""
    stops: list[Stop]


def forest(nodes: Iterable[ThreadNode]) -> list[Line]:
    """The lines that hang below nothing, root graph first."""
    stops = _stops(nodes)
    spine: set[Name | None] = set()
    """The heads and all their ancestors."""
    for stop in stops.values():
        at = stop if stop.node.head else None
        while at and at.name not in spine:
            spine.add(at.name)
            at = stops.get(at.parent) if at.parent else None
    # What a line goes on with comes last among those that share a parent.
    order = sorted(stops.values(), key=lambda s: (s.name in spine, _rank(s.node), s.name[::-1]))
    inside = {stop.name: _enclosing(stop, stops) for stop in order}
    children: dict[Name, list[Stop]] = defaultdict(list)
    roots: list[Stop] = []
    for stop in order:
        parent = stop.parent
        if parent in stops and inside[parent] == inside[stop.name]:
            children[parent].append(stop)
        else:
            roots.append(stop)
    top: list[Line] = []
    planted: set[Name] = set()
    # All of them once more: those are left over whose parents form a circle.
    for root in (*roots, *order):
        if root.name not in planted:
            enclosing = inside[root.name]
            lines = top if enclosing is None else stops[enclosing].below
            lines.append(_grown(root, children, planted))
    return sorted(top, key=lambda line: line.stops[0].name[0])


def under(lines: Iterable[Line]) -> Iterator[Stop]:
    """Every stop of `lines` and of what branches off them."""
    work = list(lines)
    while work:
        for stop in work.pop().stops:
            yield stop
            work += stop.below


def _stops(nodes: Iterable[ThreadNode]) -> dict[Name, Stop]:
    stops: dict[Name, Stop] = {}
    # Of several records of one id, readers get the one that ranks highest, which comes last.
    for node in sorted(nodes, key=_rank):
        name = node.checkpoint_ns, node.checkpoint_id
        known = node.parent_id and node.parent_id != node.checkpoint_id
        stops[name] = Stop(
            node=node,
            metadata=metadata_of(node.metadata),
            parent=(node.checkpoint_ns, node.parent_id) if known else None,
            others=stops[name].others + 1 if name in stops else 0,
        )
    for stop in stops.values():
        if stop.parent in stops:
            stops[stop.parent].last = False
        else:
            stop.parent_gone = stop.parent is not None
    return stops


def _rank(node: ThreadNode) -> tuple[bool, bool, bool, int]:
    return node.head, node.on_winner, not node.loser, node.hlc


def _enclosing(stop: Stop, stops: Mapping[Name, Stop]) -> Name | None:
    """The nearest stored checkpoint that `stop` ran in. Its namespace is shorter, so that no two
    can stand below each other."""
    ns = stop.node.checkpoint_ns
    parents = fact(stop.metadata, "parents", dict) or {}
    named = [(o, c) for o, c in parents.items() if isinstance(c, str) and (o, c) in stops]
    outer = [name for name in named if ns and (not name[0] or ns.startswith(name[0] + "|"))]
    return max(outer, key=lambda name: len(name[0]), default=None)


def _grown(root: Stop, children: Mapping[Name, list[Stop]], planted: set[Name]) -> Line:
    """The line that begins with `root`, with its forks and theirs."""
    whole = Line(fork=False, stops=[root])
    work = [whole]
    while work:
        line = work.pop()
        for stop in line.stops:  # which grows under way
            planted.add(stop.name)
            after = [c for c in children.get(stop.name, ()) if c.name not in planted]
            line.stops += after[-1:]
            forks = [Line(fork=True, stops=[c]) for c in after[:-1]]
            stop.below += forks
            work += forks
    return whole
