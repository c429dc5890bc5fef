"""Draws the conflict records of a thread: both sides, what ran twice, and what to do about it.

Rules: as `drawing`; a hint names only what this version can do.
"""

from typing import Final

from rich.text import Text
from rich.tree import Tree as Drawn

from checkpoint_router.cli import words
from checkpoint_router.core.clock import unix_ms_of
from checkpoint_router.core.conflicts import Conflict, ConflictKind, Side

CHECKPOINTS_KEPT: Final = 5
"""Newest checkpoints of a side that are drawn; more do not help to tell the sides apart."""

_MEANING: Final = {
    ConflictKind.FORK: "two runs went on from the same checkpoint, neither knew of the other",
    ConflictKind.DOUBLE_EXECUTION: "a task ran on both sides, so its effects happened twice",
    ConflictKind.DOUBLE_RESUME: "one interrupt got two different answers",
    ConflictKind.SAME_ID_OTHER_CONTENT: "both sides wrote one checkpoint id with other content",
}


def draw_conflict(record: Conflict, thread: str, *, short_ids: bool, everything: bool) -> Drawn:
    """One record. `thread` is named in the hints."""
    state = ("open", "bold red") if record.open else ("closed: continued", "green")
    drawn = Drawn(
        Text.assemble(("conflict ", "bold"), (record.id.hex()[:12], "cyan"), "  ", state),
        guide_style="dim",
    )
    for kind in sorted(record.kinds):
        drawn.add(Text.assemble((kind.value, "yellow"), f": {_MEANING[kind]}"))
    for side in sorted(record.sides, key=lambda s: not s.wins):
        _draw_side(drawn, side, short_ids=short_ids, everything=everything)
    if record.tasks:
        twice = drawn.add(Text("ran on both sides", style="yellow"))
        for task in record.tasks:
            cid = words.printable(task.checkpoint_id)
            where = f"checkpoint {words.short_id(cid) if short_ids else cid}"
            if task.ns:
                where += f" of subgraph {words.namespace(task.ns)}"
            twice.add(
                Text.assemble(
                    (words.task_name(task.task_path), "bold"),
                    (f"  (task {words.printable(task.task_id)[:8]}, {where})", "dim"),
                )
            )
    for hint in _hints(record, thread):
        drawn.add(Text.assemble(("next: ", "bold"), hint))
    return drawn


def _draw_side(drawn: Drawn, side: Side, *, short_ids: bool, everything: bool) -> None:
    wins = ("● wins ", "bold green") if side.wins else ("✗ loses ", "red")
    item = drawn.add(
        Text.assemble(
            wins,
            f" {words.count(len(side.checkpoints), 'checkpoint')} of its own, "
            f"last write {words.moment(unix_ms_of(side.hlc))}  ",
            (f"segment {side.segment.hex()[:8]}", "dim"),
        )
    )
    shown = side.checkpoints if everything else side.checkpoints[-CHECKPOINTS_KEPT:]
    if len(shown) < len(side.checkpoints):
        before = words.count(len(side.checkpoints) - len(shown), "checkpoint")
        item.add(Text(f"… {before} before these folded (--all)", style="dim italic"))
    for ns, checkpoint_id in shown:
        cid = words.printable(checkpoint_id)
        text = Text(words.short_id(cid) if short_ids else cid, style="cyan")
        if ns:
            shown_ns = words.short_namespace(ns) if short_ids else words.namespace(ns)
            text.append(f"  subgraph {shown_ns}", style="magenta")
        item.add(text)


def _hints(record: Conflict, thread: str) -> list[str]:
    if not record.open:
        return ["nothing: a later run went on from the winner and saw both sides."]
    hints = []
    # A caller's answer or input is no task: given twice, it has no effects of its own.
    names = list(dict.fromkeys(words.task_name(t.task_path) for t in record.tasks if t.task_path))
    if names:
        hints.append(
            f"look for effects that happened twice: {words.some(names)} ran on both sides."
        )
    if ConflictKind.DOUBLE_RESUME in record.kinds:
        hints.append("ask which of the two answers was meant; the winner's is in force.")
    hints.append(_loser_hint(record, thread))
    if record.kinds & {ConflictKind.DOUBLE_EXECUTION, ConflictKind.DOUBLE_RESUME}:
        hints.append(
            "this record stays open, as a reminder: going on does not undo what ran twice."
        )
    else:
        hints.append("the next run on the thread goes on from the winner, and closes this record.")
    return hints


def _loser_hint(record: Conflict, thread: str) -> str:
    named = words.printable(thread)
    for side in record.sides:
        roots = [cid for ns, cid in side.checkpoints if not ns]
        if not side.wins and roots:
            return (
                "to read the losing side, or to go on from it instead, give an agent "
                f'{{"thread_id": "{named}", "checkpoint_id": "{words.printable(roots[-1])}"}}.'
            )
    return f"see both sides with `checkpoint-router thread show {named}`."
