"""Draws a thread as a tree.

Rules: only sizes and names are drawn, never a value; what is folded is counted where it would
stand; colour repeats what a word says already, so that a log or a colour-blind eye loses nothing.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from rich.text import Text
from rich.tree import Tree as Drawn

from checkpoint_router.cli import words
from checkpoint_router.cli.forest import Line, Stop, forest, under
from checkpoint_router.core.answers import Node, Tree, WriteSummary
from checkpoint_router.core.clock import unix_ms_of

FIRST_KEPT: Final = 2
"""Checkpoints at the beginning of a folded line that are still drawn."""
LAST_KEPT: Final = 8
"""The same at its end, where people look first."""
INNER_LAST_KEPT: Final = 3
"""The same for forks and nested graphs."""
FORKS_KEPT: Final = 10
"""Newest checkpoints with forks that no fold hides."""
FOLD_MIN: Final = 3
"""A fold of fewer lines would take as much room as it saves."""
BRANCHES_KEPT: Final = 6
"""Forks, nested graphs, tasks or channels of one checkpoint that are drawn."""
DEPTH_MAX: Final = 8
"""Levels drawn; deeper ones would be a staircase off the screen."""

_NOTED: Final = {
    "__interrupt__": "interrupted",
    "__error__": "failed",
    "__resume__": "answered",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """How to draw."""

    everything: bool = False
    """Fold nothing."""
    short_ids: bool = False
    writes: bool = False
    """Each write of each checkpoint, not only those of the last ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fold:
    stops: Sequence[Stop]


def draw(thread: Tree, title: str, look: Look) -> Drawn:
    """The tree of a thread. `title` names it."""
    lines = forest(thread.nodes)
    root = Drawn(Text(title, style="bold"), guide_style="dim")
    root.add(_summary(thread))
    work = [(root.add(_line_title(line, None, look)), line, 1) for line in lines]
    while work:
        tree, line, depth = work.pop()
        for part in _folded(line.stops, look, depth):
            if isinstance(part, _Fold):
                tree.add(_fold_label(part.stops))
            else:
                work.extend(_draw_stop(tree, part, look, depth))
    if thread.orphans:
        waiting = root.add(Text("writes whose checkpoint has not arrived", style="yellow"))
        _draw_writes(waiting, thread.orphans, look)
    return root


def _summary(thread: Tree) -> Text:
    nodes = thread.nodes
    checkpoints = len({(n.ns, n.checkpoint_id) for n in nodes})
    spaces = len({n.ns for n in nodes})
    text = Text(
        f"{words.count(checkpoints, 'checkpoint')} in {words.count(spaces, 'namespace')}, "
        f"{_stored(nodes)}, generation {thread.clock.gen}"
    )
    if thread.open_conflicts:
        text.append(", ")
        text.append(words.count(thread.open_conflicts, "open conflict"), style="bold red")
    return text


def _stored(nodes: Iterable[Node]) -> str:
    """A value counts once, at the checkpoint that named it first."""
    found = list(nodes)
    records = words.size(sum(n.record_bytes for n in found))
    return f"records {records}, values {words.size(sum(n.new_bytes for n in found))}"


def _line_title(line: Line, stop: Stop | None, look: Look) -> Text:
    """`stop` is where a fork leaves; None for the beginning of a namespace."""
    count = words.count(len(line.stops), "checkpoint")
    if stop is not None:
        lost = any(s.node.loser for s in line.stops)
        what = "fork, lost an open conflict" if lost else "fork, left behind"
        if any(s.node.on_winner for s in line.stops):
            what = "fork"
        return Text(f"{what}: {count}", style="red" if lost else "")
    shown = words.short_namespace if look.short_ids else words.namespace
    name = f"subgraph {shown(line.ns)}" if line.ns else words.ROOT
    text = Text.assemble((name, "bold magenta" if line.ns else "bold"), f": {count}")
    if line.after:
        gone = ", which is not stored" if line.after_gone else ""
        after = words.printable(line.after)
        text.append(
            f", after {words.short_id(after) if look.short_ids else after}{gone}", style="dim"
        )
    if any(s.node.loser for s in line.stops):
        text.append(", lost an open conflict", style="red")
    return text


def _folded(stops: Sequence[Stop], look: Look, depth: int) -> Iterable[Stop | _Fold]:
    last = LAST_KEPT if depth == 1 else INNER_LAST_KEPT
    if look.everything or len(stops) < FIRST_KEPT + last + FOLD_MIN:
        return stops
    with_forks = [i for i, s in enumerate(stops) if s.forks]
    kept = {
        *range(FIRST_KEPT),
        *range(len(stops) - last, len(stops)),
        *with_forks[-FORKS_KEPT:],
        *(i for i, s in enumerate(stops) if s.node.head),
    }
    parts: list[Stop | _Fold] = []
    hidden: list[Stop] = []
    for i, stop in enumerate(stops):
        if i not in kept:
            hidden.append(stop)
            continue
        parts.extend((_Fold(stops=hidden),) if len(hidden) >= FOLD_MIN else hidden)
        parts.append(stop)
        hidden = []
    return parts


def _fold_label(stops: Sequence[Stop]) -> Text:
    everything = list(under([Line(ns="", after=None, after_gone=False, stops=list(stops))]))
    steps = [s.facts.step for s in stops if s.facts.step is not None]
    span = f" from step {steps[0]} to {steps[-1]}" if steps else ""
    below = len(everything) - len(stops)
    inner = f" and {below:,} below them" if below else ""
    stored = _stored(s.node for s in everything)
    return Text(
        f"… {words.count(len(stops), 'checkpoint')}{span}{inner} folded (--all), {stored}",
        style="dim italic",
    )


def _draw_stop(tree: Drawn, stop: Stop, look: Look, depth: int) -> list[tuple[Drawn, Line, int]]:
    """Adds one checkpoint; hands back the lines that are still to be drawn below it."""
    item = tree.add(_label(stop, look))
    writes = stop.node.writes
    if writes and (stop.last or look.writes):
        pending = "pending writes" if stop.last else "writes"
        _draw_writes(item.add(Text(pending, style="yellow" if stop.last else "")), writes, look)
    lines = [(line, None) for line in stop.nested] + [(line, stop) for line in stop.forks]
    if not lines:
        return []
    if depth >= DEPTH_MAX and not look.everything:
        below = sum(1 for _ in under(line for line, _ in lines))
        item.add(_more(below, "checkpoint", "deeper"))
        return []
    shown = lines if look.everything else lines[-BRANCHES_KEPT:]
    if len(lines) > len(shown):
        item.add(_more(len(lines) - len(shown), "line", "before these"))
    return [(item.add(_line_title(line, at, look)), line, depth + 1) for line, at in shown]


def _label(stop: Stop, look: Look) -> Text:
    node, facts = stop.node, stop.facts
    glyph, style = ("●", "bold green") if node.head else ("✗", "red") if node.loser else ("○", "")
    step = "step ?" if facts.step is None else f"step {facts.step}"
    cid = words.printable(node.checkpoint_id)
    text = Text.assemble(
        (f"{glyph} ", style),
        (step, style or "bold"),
        f" {words.printable(facts.source or '-')}  ",
        (words.short_id(cid) if look.short_ids else cid, "cyan"),
        f"  {_time(node.hlc, look)}  {_sizes(node, look)}",
    )
    if node.head:
        text.append("  head", style=style)
    if node.loser:
        text.append("  conflict loser", style=style)
    if stop.others:
        text.append(f"  {words.count(len(stop.others), 'other record')} of this id", style="red")
    for noted in _noted(node.writes):
        text.append(f"  {noted}", style="yellow")
    return text


def _time(hlc: int, look: Look) -> str:
    full = words.moment(unix_ms_of(hlc))
    return full.partition(" ")[2] or full if look.short_ids else full


def _sizes(node: Node, look: Look) -> str:
    record, values, new = map(words.size, (node.record_bytes, node.value_bytes, node.new_bytes))
    if look.short_ids:
        return f"{record} + {values} (new {new})"
    return f"record {record}, values {values}, new {new}"


def _noted(writes: Iterable[WriteSummary]) -> list[str]:
    """What tasks did that a person looks for, with the names of the tasks."""
    tasks: dict[str, dict[str, None]] = {}
    for write in writes:
        if write.channel in _NOTED:
            by = words.task_name(write.task_path)
            tasks.setdefault(_NOTED[write.channel], {})[by] = None
    return [
        f"{what} {'by' if what == 'answered' else 'in'} {words.some(list(names))}"
        for what, names in tasks.items()
    ]


def _draw_writes(tree: Drawn, writes: Iterable[WriteSummary], look: Look) -> None:
    tasks: dict[tuple[str, str], list[WriteSummary]] = {}
    for write in writes:
        tasks.setdefault((write.task_path, write.task_id), []).append(write)
    shown = list(tasks.items())[: None if look.everything else BRANCHES_KEPT]
    for (path, task_id), rows in shown:
        channels = Counter[str]()
        sizes = Counter[str]()
        for row in rows:
            channels[row.channel] += 1
            sizes[row.channel] += row.size_bytes
        named = list(channels)[: None if look.everything else BRANCHES_KEPT]
        parts = [
            f"{words.printable(c)}{f' ×{channels[c]}' if channels[c] > 1 else ''} "
            f"{words.size(sizes[c])}"
            for c in named
        ]
        if len(channels) > len(named):
            parts.append(f"and {words.count(len(channels) - len(named), 'more channel')}")
        tree.add(
            Text.assemble(
                (words.task_name(path), "bold"),
                (f" (task {words.printable(task_id)[:8]})", "dim"),
                f": {', '.join(parts)}",
            )
        )
    if len(tasks) > len(shown):
        tree.add(_more(len(tasks) - len(shown), "task", ""))


def _more(number: int, noun: str, where: str) -> Text:
    said = f"… {words.count(number, noun)} {where}".rstrip()
    return Text(f"{said} folded (--all)", style="dim italic")
