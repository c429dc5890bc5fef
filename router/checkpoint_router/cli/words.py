"""How things read on a screen: sizes, times, ids, namespaces, tasks.

Rules: pure; nothing that a user chose reaches a terminal unescaped, for an id may hold an escape
sequence; a time is UTC, so that two people who compare notes see the same one.
"""

import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

_PULL: Final = "~__pregel_pull, "
_PUSH: Final = "~__pregel_push, "
_CALL: Final = _PUSH + "~"
_ON_ERROR: Final = ", node_error_handler"

ROOT: Final = "root graph"
OUTSIDE: Final = "the caller"
"""Who wrote what no task wrote: an input or an answer that was given to the graph."""


def printable(text: str) -> str:
    """`text` with whatever would move a cursor, or read backwards, as an escape."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def size(count_bytes: int) -> str:
    """A number of bytes in the largest unit that leaves it above one."""
    if count_bytes < 1024:
        return f"{count_bytes} B"
    value = float(count_bytes)
    for unit in ("KiB", "MiB", "GiB"):
        value /= 1024
        if value < 1023.95:
            return f"{value:.1f} {unit}"
    return f"{value / 1024:,.1f} TiB"


def count(number: int, noun: str, plural: str | None = None) -> str:
    """`1 checkpoint`, `3 checkpoints`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def some(names: Sequence[str], kept: int = 3) -> str:
    """The first few of `names`, and how many more there are."""
    shown = ", ".join(names[:kept])
    return f"{shown} and {len(names) - kept:,} more" if len(names) > kept else shown


def moment(unix_milliseconds: int) -> str:
    """A time as `2026-11-21 10:31:02.114Z`; `-` where there is none."""
    if not unix_milliseconds:
        return "-"
    try:
        at = datetime.fromtimestamp(unix_milliseconds / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return f"{unix_milliseconds} ms"
    return at.strftime("%Y-%m-%d %H:%M:%S.") + f"{unix_milliseconds % 1000:03d}Z"


def short_id(checkpoint_id: str) -> str:
    """Enough of an id to tell it from its neighbours: these share their first characters, which
    are a time, and differ in their last, which are random."""
    if len(checkpoint_id) <= 16:
        return checkpoint_id
    return f"{checkpoint_id[:8]}…{checkpoint_id[-6:]}"


def namespace(ns: str) -> str:
    """A checkpoint namespace in words; the root graph's is empty."""
    return printable(ns) if ns else ROOT


def short_namespace(ns: str) -> str:
    """The last part of a nested namespace, its task id cut: what stands below its parent."""
    last = ns.rpartition("|")[2]
    name, colon, task = last.partition(":")
    return printable(f"{name}:{task[:8]}" if colon else name) or ROOT


def task_name(task_path: str) -> str:
    """The node, or the call, that a task path names; the path itself where it names none.

    LangGraph writes a path as `~__pregel_pull, NODE` for a node that an edge led to,
    `~__pregel_push, N, …` for the N-th `Send`, and `~__pregel_push, PATH, N, …` for the N-th call
    of a function inside the task PATH.
    """
    if not task_path:
        return OUTSIDE
    if task_path.startswith(_CALL):
        parts = task_path.removeprefix(_PUSH).rsplit(", ", 2)
        if len(parts) == 3 and parts[1].isdecimal():
            return f"call {int(parts[1]) + 1} in {task_name(parts[0])}"
    if _ON_ERROR in task_path:
        return f"error handler of {task_name(task_path.rpartition(_ON_ERROR)[0])}"
    if task_path.startswith(_PUSH):
        number = task_path.removeprefix(_PUSH).partition(", ")[0]
        return f"Send {int(number) + 1}" if number.isdecimal() else printable(task_path)
    return printable(task_path.removeprefix(_PULL))


def quoted(text: str) -> str:
    """`text` as a shell takes it for one word, with nothing in it that a terminal would obey."""
    if text.isprintable():
        return shlex.quote(text)
    return "$'" + printable(text.replace("\\", "\\\\").replace("'", "\\'")) + "'"
