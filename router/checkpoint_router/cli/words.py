"""How things read on a screen: sizes, times, ids, namespaces, tasks.

Rules: pure; nothing that a user chose reaches a terminal unescaped, for an id may hold an escape
sequence; a time is UTC, so that two people who compare notes see the same one.
"""

import shlex
from collections.abc import Iterable, Mapping
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


def count(number: int, noun: str) -> str:
    """`1 checkpoint`, `3 checkpoints`."""
    return f"{number:,} {noun if number == 1 else noun + 's'}"


def stored(record_bytes: int, value_bytes: int) -> str:
    """How much room something takes."""
    return f"records {size(record_bytes)}, values {size(value_bytes)}"


def held(content: Mapping[str, int]) -> str:
    """How much a thread holds, as `documents.content` counts it."""
    generation = f"generation {content['generation']}"
    if not content["checkpoints"] and not content["writes"]:
        return f"nothing, {generation}"
    conflicts = content["open_conflicts"]
    return (
        f"{count(content['checkpoints'], 'checkpoint')} in "
        f"{count(content['namespaces'], 'namespace')}, {count(content['writes'], 'write')}, "
        f"{stored(content['record_bytes'], content['value_bytes'])}, {generation}"
        f"{', ' + count(conflicts, 'open conflict') if conflicts else ''}"
    )


def some(names: Iterable[str]) -> str:
    """The first three of `names`, each once, and how many more there are."""
    found = list(dict.fromkeys(names))
    return ", ".join(found[:3]) + (f" and {len(found) - 3:,} more" if len(found) > 3 else "")


def moment(unix_milliseconds: int) -> str:
    """A time as `2026-11-21 10:31:02.114Z`; `-` where there is none."""
    if not unix_milliseconds:
        return "-"
    try:
        at = datetime.fromtimestamp(unix_milliseconds / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return f"{unix_milliseconds} ms"
    return at.replace(tzinfo=None).isoformat(" ", "milliseconds") + "Z"


def name(checkpoint_id: str, *, short: bool) -> str:
    """A checkpoint's id; short: enough to tell it from its neighbours, for these share their
    first characters, which are a time, and differ in their last, which are random."""
    if not short or len(checkpoint_id) <= 16:
        return printable(checkpoint_id)
    return f"{printable(checkpoint_id[:8])}…{printable(checkpoint_id[-6:])}"


def namespace(ns: str, *, short: bool) -> str:
    """A checkpoint namespace in words; short: the last part of a nested one, its task id cut."""
    if short:
        graph, colon, task = ns.rpartition("|")[2].partition(":")
        ns = graph + colon + task[:8]
    return printable(ns) or ROOT


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
