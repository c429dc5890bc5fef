"""Draws the conflict records of a thread: both sides, what ran twice, and what to do about it.

Rules: as `drawing`; a hint names only what this version can do.
"""

from typing import Final

from rich.text import Text
from rich.tree import Tree

from checkpoint_router.cli import words
from checkpoint_router.core.clock import unix_ms_of
from checkpoint_router.core.conflicts import ConflictKind
from checkpoint_router.v1.admin_service_pb2 import ConflictRecord, ConflictSide

CHECKPOINTS_KEPT: Final = 5
"""Newest checkpoints of a side that are drawn; more do not help to tell the sides apart."""

_MEANING: Final[dict[str, str]] = {
    ConflictKind.FORK: "two runs went on from the same checkpoint, neither knew of the other",
    ConflictKind.DOUBLE_EXECUTION: "a task ran on both sides, so its effects happened twice",
    ConflictKind.DOUBLE_RESUME: "one interrupt got two different answers",
    ConflictKind.SAME_ID_OTHER_CONTENT: "both sides wrote one checkpoint id with other content",
}


def draw_conflict(record: ConflictRecord, thread: str, *, short: bool, everything: bool) -> Tree:
    """One record. `thread` is named in the hints; `short` is for ids."""
    state = ("open", "bold red") if record.open else ("closed: continued", "green")
    title = Text.assemble(("conflict ", "bold"), (record.id.hex()[:12], "cyan"), "  ", state)
    drawn = Tree(title, guide_style="dim")
    for kind in sorted(record.kinds):
        meaning = _MEANING.get(kind, "unknown to this version: upgrade it to learn more")
        drawn.add(Text.assemble((kind, "yellow"), f": {meaning}"))
    for side in sorted(record.sides, key=lambda s: not s.wins):
        _draw_side(drawn, side, short=short, everything=everything)
    if record.tasks:
        twice = drawn.add(Text("ran on both sides", style="yellow"))
        for task in record.tasks:
            where = f"checkpoint {words.name(task.checkpoint_id, short=short)}"
            if task.checkpoint_ns:
                where += f" of subgraph {words.namespace(task.checkpoint_ns, short=False)}"
            at = f"  (task {words.printable(task.task_id)[:8]}, {where})"
            twice.add(Text.assemble((words.task_name(task.task_path), "bold"), (at, "dim")))
    for hint in _hints(record, thread):
        drawn.add(Text.assemble(("next: ", "bold"), hint))
    return drawn


def _draw_side(drawn: Tree, side: ConflictSide, *, short: bool, everything: bool) -> None:
    shown = side.checkpoints if everything else side.checkpoints[-CHECKPOINTS_KEPT:]
    count = words.count(len(side.checkpoints), "checkpoint")
    item = drawn.add(
        Text.assemble(
            ("● wins ", "bold green") if side.wins else ("✗ loses ", "red"),
            f" {count} of its own, last write {words.moment(unix_ms_of(side.hlc))}  ",
            (f"segment {side.segment.hex()[:8]}", "dim"),
        )
    )
    if hidden := len(side.checkpoints) - len(shown):
        before = words.count(hidden, "checkpoint")
        item.add(Text(f"… {before} before these folded (--all)", style="dim italic"))
    for name in shown:
        text = Text(words.name(name.checkpoint_id, short=short), style="cyan")
        if name.checkpoint_ns:
            ns = words.namespace(name.checkpoint_ns, short=short)
            text.append(f"  subgraph {ns}", style="magenta")
        item.add(text)


def _hints(record: ConflictRecord, thread: str) -> list[str]:
    if not record.open:
        return ["nothing: a later run went on from the winner and saw both sides."]
    kinds = set(record.kinds)
    hints = []
    # A caller's answer or input is no task: given twice, it has no effects of its own.
    names = words.some(words.task_name(t.task_path) for t in record.tasks if t.task_path)
    if names:
        hints.append(f"look for effects that happened twice: {names} ran on both sides.")
    if ConflictKind.DOUBLE_RESUME in kinds:
        hints.append("ask which of the two answers was meant; the winner's is in force.")
    hints.append(_loser_hint(record, words.printable(thread)))
    if kinds & {ConflictKind.DOUBLE_EXECUTION, ConflictKind.DOUBLE_RESUME}:
        hints.append(
            "this record stays open, as a reminder: going on does not undo what ran twice."
        )
    else:
        hints.append("the next run on the thread goes on from the winner, and closes this record.")
    return hints


def _loser_hint(record: ConflictRecord, thread: str) -> str:
    for side in record.sides:
        roots = [name.checkpoint_id for name in side.checkpoints if not name.checkpoint_ns]
        if not side.wins and roots:
            return (
                "to read the losing side, or to go on from it instead, give an agent "
                f'{{"thread_id": "{thread}", "checkpoint_id": "{words.printable(roots[-1])}"}}.'
            )
    return f"see both sides with `checkpoint-router thread show {thread}`."
