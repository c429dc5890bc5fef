"""How much a thread holds, before and after something is done to it."""

from dataclasses import dataclass

from checkpoint_router.cli import words
from checkpoint_router.core.answers import Tree


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """How much a thread holds, and in which generation."""

    generation: int
    checkpoints: int
    namespaces: int
    writes: int
    record_bytes: int
    value_bytes: int
    open_conflicts: int

    def __bool__(self) -> bool:
        return bool(self.checkpoints or self.writes)

    def __str__(self) -> str:
        if not self:
            return f"nothing (generation {self.generation})"
        conflicts = (
            f", {words.count(self.open_conflicts, 'open conflict')}" if self.open_conflicts else ""
        )
        return (
            f"{words.count(self.checkpoints, 'checkpoint')} in "
            f"{words.count(self.namespaces, 'namespace')}, {words.count(self.writes, 'write')}, "
            f"records {words.size(self.record_bytes)}, values {words.size(self.value_bytes)}"
            f"{conflicts} (generation {self.generation})"
        )


def content_of(tree: Tree) -> Content:
    """What `tree` amounts to."""
    return Content(
        generation=tree.clock.gen,
        checkpoints=len({(n.ns, n.checkpoint_id) for n in tree.nodes}),
        namespaces=len({n.ns for n in tree.nodes}),
        writes=sum(len(n.writes) for n in tree.nodes) + len(tree.orphans),
        record_bytes=sum(n.record_bytes for n in tree.nodes),
        value_bytes=sum(n.new_bytes for n in tree.nodes),
        open_conflicts=tree.open_conflicts,
    )
