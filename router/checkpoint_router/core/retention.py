"""What prune keeps: the closure of every kept checkpoint, so that each reads back as before.

A kept checkpoint needs its own writes, the ancestors from which its delta channels are rebuilt
(back to a stored value of each), and the checkpoints that hold a value which it names by version
alone. Unresolved losers of conflicts are kept like heads.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from checkpoint_router.core import view
from checkpoint_router.core.conflicts import losing
from checkpoint_router.core.history import History, bits
from checkpoint_router.core.records import Kind

COUNTERS = "counters_since_delta_snapshot"
"""Metadata key that names the delta channels of a checkpoint (LangGraph's)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What retention must know of a checkpoint's payload."""

    delta_channels: frozenset[str]
    """Channels that are rebuilt from ancestors (keys of the metadata's counters)."""
    stored: frozenset[str]
    """Channels that have a value in this checkpoint, inline or as a blob."""
    by_version: frozenset[tuple[str, object]]
    """(channel, version) whose value stands in an earlier checkpoint."""
    holds: frozenset[tuple[str, object]]
    """(channel, version) whose value, or emptiness, stands here."""
    root_id: str | None
    """Metadata `parents[""]`: the root checkpoint that this subgraph call belonged to."""


NeedsOf = Callable[[int], Needs]


def prunable(history: History, needs: NeedsOf) -> int:
    """Events that `keep_latest` removes: all that no kept checkpoint needs."""
    visible = history.all & ~history.erased
    lineage = history.lineage(history.winner())
    heads: list[int] = []
    for ns in history.by_ns:
        position = view.head(history, ns, lineage)
        if position is not None:
            heads.append(position)
    heads = [p for p in heads if not _call_of_a_pruned_root(history, p, heads, needs)]
    spared = losing(history) & visible
    kept = _closure(history, [*heads, *_checkpoints(history, spared)], needs) | spared
    return visible & ~kept & ~_orphans(history)


def removable(history: History, wanted: int, needs: NeedsOf) -> int:
    """Of the checkpoints in `wanted` (a run's), with their writes, those that no other needs."""
    visible = history.all & ~history.erased
    doomed = wanted & visible
    rest = [p for p in _checkpoints(history, visible) if not doomed >> p & 1]
    doomed &= ~_ancestors(history, rest, needs)
    out = doomed
    for position in bits(doomed):
        entry = history.entries[position]
        name = (entry.ns, entry.checkpoint_id)
        if not history.checkpoints[name] & visible & ~doomed:
            out |= history.writes.get(name, 0) & visible
    return out


def _closure(history: History, roots: Iterable[int], needs: NeedsOf) -> int:
    roots = list(roots)
    kept = _ancestors(history, roots, needs)
    for position in roots:
        kept |= 1 << position
    for position in bits(kept):
        entry = history.entries[position]
        kept |= history.writes.get((entry.ns, entry.checkpoint_id), 0)
    return kept


def _ancestors(history: History, roots: Iterable[int], needs: NeedsOf) -> int:
    """Checkpoints from which delta channels and values by version of `roots` are rebuilt."""
    kept = 0
    for root in roots:
        wanted = needs(root)
        versions = set(wanted.by_version)
        channels = set(wanted.delta_channels - wanted.stored)
        at, walked = root, 1 << root
        while channels or versions:
            parent = _parent(history, at, walked)
            if parent is None:
                break
            walked |= 1 << parent
            here = needs(parent)
            kept |= 1 << parent
            channels -= here.stored
            versions -= here.holds
            at = parent
    return kept


def _parent(history: History, position: int, walked: int) -> int | None:
    entry = history.entries[position]
    if not entry.parent_id:
        return None
    mask = history.checkpoints.get((entry.ns, entry.parent_id), 0) & ~history.erased & ~walked
    if not mask:
        return None
    own = history.lineage(entry.id.segment).mask & mask
    return max(bits(own or mask), key=history.order)


def _call_of_a_pruned_root(
    history: History, position: int, heads: list[int], needs: NeedsOf
) -> bool:
    """A subgraph call's namespace goes with the root checkpoint that it belonged to."""
    if ":" not in history.entries[position].ns:
        return False
    root = needs(position).root_id
    stored = 0 if root is None else history.checkpoints.get(("", root), 0) & ~history.erased
    return bool(stored) and not any(stored >> head & 1 for head in heads)


def _checkpoints(history: History, mask: int) -> list[int]:
    return [p for p in bits(mask) if history.entries[p].kind is Kind.CHECKPOINT]


def _orphans(history: History) -> int:
    """Writes whose checkpoint has not arrived: normal traffic, never garbage."""
    out = 0
    for name, mask in history.writes.items():
        if name not in history.checkpoints:
            out |= mask
    return out
