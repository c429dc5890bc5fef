"""What prune keeps: the closure of every kept checkpoint, so that each reads back as before.

A kept checkpoint needs its own writes, the ancestors from which its delta channels are rebuilt
(back to a stored value of each), and the checkpoints that hold a value which it names by version
alone; so do these in turn, since they are shown. Unresolved losers of conflicts are kept as heads
are.
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
    kept = 0
    while roots:
        kept |= _ancestors(history, roots, needs)
        for position in roots:
            kept |= 1 << position
        roots = [p for p in _shown_instead(history, kept) if not kept >> p & 1]
    for position in bits(kept):
        entry = history.entries[position]
        kept |= history.writes.get((entry.ns, entry.checkpoint_id), 0)
    return kept


def _shown_instead(history: History, kept: int) -> Iterable[int]:
    """Where an id was put more than once: the event that a read of it shows. Without it the
    read would show an older one."""
    for position in bits(kept):
        entry = history.entries[position]
        name = entry.ns, entry.checkpoint_id
        if (history.checkpoints[name] & ~history.erased).bit_count() > 1:
            shown = view.by_id(history, *name)
            if shown is not None:
                yield history.position(shown.checkpoint.id)


def _ancestors(history: History, roots: Iterable[int], needs: NeedsOf) -> int:
    """Checkpoints from which delta channels and values by version of `roots` are rebuilt, and
    those from which these are, since what is kept is shown."""
    kept = 0
    known: dict[int, Needs] = {}
    followed: dict[int, frozenset[str]] = {}
    """Channels that were looked for above a checkpoint already."""
    shown = list(roots)
    above: list[tuple[int, frozenset[str]]] = []
    while shown or above:
        if shown:
            position = shown.pop()
            if position in followed:
                continue
            here = known.setdefault(position, needs(position))
            followed[position] = frozenset()
            above.append((position, here.delta_channels - here.stored))
            found = _holders(history, position, here.by_version, needs)
        else:
            position, wanted = above.pop()
            channels = wanted - followed.get(position, frozenset())
            followed[position] = followed[position] | channels
            found = _parents(history, position) if channels else []
            for parent in found:
                if parent not in known:
                    known[parent] = needs(parent)
                above.append((parent, channels - known[parent].stored))
        shown += found
        for position in found:
            kept |= 1 << position
    return kept


def _holders(
    history: History, position: int, versions: frozenset[tuple[str, object]], needs: NeedsOf
) -> list[int]:
    """Where values that a checkpoint names by version alone stand: on its own lineage, and on
    the one that it is shown on. Not only its ancestors: a copy of a step skips its parent."""
    if not versions:
        return []
    entry = history.entries[position]
    lineages = [history.lineage(entry.id.segment)]
    shown = view.by_id(history, entry.ns, entry.checkpoint_id)
    if shown is not None and shown.checkpoint.id == entry.id:
        lineages.append(shown.lineage)
    found: list[int] = []
    for lineage in lineages:
        left = set(versions)
        for earlier in view.earlier(history, lineage, entry):
            at = history.position(earlier.id)
            holds = left & needs(at).holds
            if holds:
                found.append(at)
                left -= holds
            if not left:
                break
    return found


def _parents(history: History, position: int) -> list[int]:
    """Every event of the parent's name: which of them is read depends on who reads."""
    entry = history.entries[position]
    if not entry.parent_id or entry.parent_id == entry.checkpoint_id:
        return []
    return list(bits(history.checkpoints.get((entry.ns, entry.parent_id), 0) & ~history.erased))


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
