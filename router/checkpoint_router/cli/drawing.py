"""Draws a thread as a tree.

Rules: only sizes and names are drawn, never a value; what is folded is counted where it would
stand; colour repeats what a word says already, so that a log or a colour-blind eye loses nothing.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from rich.text import Text
from rich.tree import Tree

from checkpoint_router.cli import words
from checkpoint_router.cli.documents import content, fact
from checkpoint_router.cli.forest import Line, Stop, forest, under
from checkpoint_router.core.clock import unix_ms_of
from checkpoint_router.v1.admin_service_pb2 import (
    GetThreadResponse,
    PendingWriteSummary,
    ThreadNode,
)

FIRST_KEPT: Final = 2
"""Checkpoints at the beginning of a folded line that are still drawn."""
LAST_KEPT: Final = 8
"""The same at its end, where people look first."""
FORKS_KEPT: Final = 10
"""Newest checkpoints with forks that no fold hides."""
FOLD_MIN: Final = 3
"""A fold of fewer lines would take as much room as it saves."""
BRANCHES_KEPT: Final = 6
"""Forks, nested graphs, tasks or channels of one checkpoint that are drawn."""
DEPTH_MAX: Final = 8
"""Levels drawn; deeper ones would be a staircase off the screen."""

_NOTED: Final = {
    "__interrupt__": "interrupted in",
    "__error__": "failed in",
    "__resume__": "answered by",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """How to draw."""

    everything: bool = False
    """Fold nothing."""
    short_ids: bool = False
    writes: bool = False
    """Each write of each checkpoint, not only those of the last ones."""


def draw(thread: GetThreadResponse, title: str, look: Look) -> Tree:
    """The tree of a thread. `title` names it."""
    root = Tree(Text(title, style="bold"), guide_style="dim")
    root.add(summary := Text(words.held(content(thread))))
    summary.highlight_regex(r"\d+ open conflicts?", style="bold red")
    work = [(root.add(_line_title(line, look)), line, 1) for line in forest(thread.nodes)]
    while work:
        tree, line, depth = work.pop()
        for part in _folded(line.stops, look):
            if isinstance(part, Stop):
                work.extend(_draw_stop(tree, part, look, depth))
            else:
                tree.add(_fold_label(part))
    if thread.orphans:
        waiting = root.add(Text("writes whose checkpoint has not arrived", style="yellow"))
        _draw_writes(waiting, thread.orphans, look)
    return root


def _line_title(line: Line, look: Look) -> Text:
    count = words.count(len(line.stops), "checkpoint")
    lost = ", lost an open conflict" if any(stop.node.loser for stop in line.stops) else ""
    if line.fork:
        left = "" if any(stop.node.on_winner for stop in line.stops) else ", left behind"
        return Text(f"fork{lost or left}: {count}", style="red" if lost else "")
    first = line.stops[0]
    ns = first.node.checkpoint_ns
    name = f"subgraph {words.namespace(ns, short=look.short_ids)}" if ns else words.ROOT
    text = Text.assemble((name, "bold magenta" if ns else "bold"), f": {count}")
    if first.parent is not None:
        gone = ", which is not stored" if first.parent_gone else ""
        after = words.name(first.parent[1], short=look.short_ids)
        text.append(f", after {after}{gone}", style="dim")
    return text.append(lost, style="red")


def _folded(stops: Sequence[Stop], look: Look) -> list[Stop | list[Stop]]:
    """The stops that are drawn, and in their place lists of those that are folded."""
    everywhere = range(len(stops))
    kept = {
        *everywhere[:FIRST_KEPT],
        *everywhere[-LAST_KEPT:],
        *[i for i in everywhere if stops[i].forks][-FORKS_KEPT:],
        *(i for i in everywhere if stops[i].node.head),
    }
    parts: list[Stop | list[Stop]] = []
    for drawn, group in groupby(everywhere, key=kept.__contains__):
        found = [stops[i] for i in group]
        parts += found if drawn or look.everything or len(found) < FOLD_MIN else [found]
    return parts


def _fold_label(stops: list[Stop]) -> Text:
    nodes = [stop.node for stop in under([Line(fork=False, stops=stops)])]
    steps = [step for s in stops if (step := fact(s.metadata, "step", int)) is not None]
    span = f" from step {steps[0]} to {steps[-1]}" if steps else ""
    below = len(nodes) - len(stops)
    inner = f" and {below:,} below them" if below else ""
    stored = words.stored(sum(n.record_bytes for n in nodes), sum(n.new_bytes for n in nodes))
    text = f"… {words.count(len(stops), 'checkpoint')}{span}{inner} folded (--all), {stored}"
    return Text(text, style="dim italic")


def _draw_stop(tree: Tree, stop: Stop, look: Look, depth: int) -> list[tuple[Tree, Line, int]]:
    """Adds one checkpoint; hands back the lines that are still to be drawn below it."""
    item = tree.add(_label(stop, look))
    if stop.node.writes and (stop.last or look.writes):
        what = Text("pending writes", style="yellow") if stop.last else Text("writes")
        _draw_writes(item.add(what), stop.node.writes, look)
    lines = sorted(stop.below, key=lambda line: line.fork)
    if lines and depth >= DEPTH_MAX and not look.everything:
        item.add(_more(sum(1 for _ in under(lines)), "checkpoint", " deeper"))
        return []
    hidden = 0 if look.everything else max(0, len(lines) - BRANCHES_KEPT)
    if hidden:
        item.add(_more(hidden, "line", " before these"))
    return [(item.add(_line_title(line, look)), line, depth + 1) for line in lines[hidden:]]


def _label(stop: Stop, look: Look) -> Text:
    node, step = stop.node, fact(stop.metadata, "step", int)
    glyph, style = ("●", "bold green") if node.head else ("✗", "red") if node.loser else ("○", "")
    at = words.moment(unix_ms_of(node.hlc))
    text = Text.assemble(
        (f"{glyph} ", style),
        (f"step {'?' if step is None else step}", style or "bold"),
        f" {words.printable(fact(stop.metadata, 'source', str) or '-')}  ",
        (words.name(node.checkpoint_id, short=look.short_ids), "cyan"),
        f"  {at[11:] or at if look.short_ids else at}  {_sizes(node, look)}",
    )
    if node.head:
        text.append("  head", style=style)
    if node.loser:
        text.append("  conflict loser", style=style)
    if stop.others:
        text.append(f"  {words.count(stop.others, 'other record')} of this id", style="red")
    noted: dict[str, list[str]] = defaultdict(list)
    for write in node.writes:
        if write.channel in _NOTED:
            noted[_NOTED[write.channel]].append(words.task_name(write.task_path))
    for what, tasks in noted.items():
        text.append(f"  {what} {words.some(tasks)}", style="yellow")
    return text


def _sizes(node: ThreadNode, look: Look) -> str:
    record, values, new = map(words.size, (node.record_bytes, node.value_bytes, node.new_bytes))
    if look.short_ids:
        return f"{record} + {values} (new {new})"
    return f"record {record}, values {values}, new {new}"


def _draw_writes(tree: Tree, writes: Iterable[PendingWriteSummary], look: Look) -> None:
    tasks: dict[tuple[str, str], dict[str, list[int]]] = {}
    for write in writes:
        channels = tasks.setdefault((write.task_path, write.task_id), {})
        channels.setdefault(write.channel, []).append(write.bytes)
    kept = len(tasks) if look.everything else BRANCHES_KEPT
    for (path, task_id), channels in list(tasks.items())[:kept]:
        parts = []
        for channel, sizes in channels.items():
            times = f" ×{len(sizes)}" if len(sizes) > 1 else ""
            parts.append(f"{words.printable(channel)}{times} {words.size(sum(sizes))}")
        if len(parts) > BRANCHES_KEPT and not look.everything:
            more = words.count(len(parts) - BRANCHES_KEPT, "more channel")
            parts[BRANCHES_KEPT:] = [f"and {more}"]
        task = (words.task_name(path), "bold"), (f" (task {words.printable(task_id)[:8]})", "dim")
        tree.add(Text.assemble(*task, f": {', '.join(parts)}"))
    if len(tasks) > kept:
        tree.add(_more(len(tasks) - kept, "task"))


def _more(number: int, noun: str, where: str = "") -> Text:
    return Text(f"… {words.count(number, noun)}{where} folded (--all)", style="dim italic")
