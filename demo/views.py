"""How the demo draws things. Nothing here decides or checks anything."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from langgraph.types import StateSnapshot
from rich.columns import Columns
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from call_log import FINISHED, STARTED, CallLog

COLOURS = {"lisbon": "cyan", "oslo": "magenta"}


@dataclass(slots=True)
class Screen:
    """The console, and the pauses that let a person read along."""

    console: Console
    pause: float
    scenes: int = 0
    shown: dict[str, int] = field(default_factory=dict)

    def scene(self, title: str) -> None:
        """Begin a scene."""
        self.scenes += 1
        self.console.print()
        self.console.rule(f"[bold]{self.scenes}. {title}[/]", align="left")

    def rest(self) -> None:
        """Time to read, for a person; nothing waits for anything here."""
        time.sleep(self.pause)

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False)

    def show(self, *things: Any) -> None:
        for thing in things:
            self.console.print(thing)

    def calls(self, logs: Mapping[str, CallLog]) -> None:
        """Print the lines that the call logs gained since the last time."""
        for thread, log in logs.items():
            calls = log.calls()
            for call in calls[self.shown.get(thread, 0) :]:
                mark = "▶" if call.event == STARTED else "[green]✔[/]"
                who = f"[{COLOURS[thread]}]{thread:<7}[/] agent {call.pid}"
                self.console.print(f"  {who}  {mark} {call.tool} {call.event}", highlight=False)
            self.shown[thread] = len(calls)


def calls_table(thread: str, log: CallLog) -> Table:
    """How often each tool was called, by the processes together."""
    table = Table(title=f"calls in {thread}", border_style=COLOURS[thread])
    table.add_column("tool")
    table.add_column("started", justify="right")
    table.add_column("finished", justify="right")
    table.add_column("by agents")
    for tool in log.tools():
        pids = dict.fromkeys(str(call.pid) for call in log.calls() if call.tool == tool)
        counts = (str(log.count(tool, event)) for event in (STARTED, FINISHED))
        table.add_row(tool, *counts, ", ".join(pids))
    return table


def conversation(thread: str, messages: Sequence[Any]) -> Panel:
    """The messages of a session as a person reads them."""
    lines = [
        f"[dim]{message.type:>5}[/] {escape(str(message.content))}"
        + (f" [dim]→ {', '.join(c['name'] for c in calls)}[/]" if calls else "")
        for message in messages
        for calls in [getattr(message, "tool_calls", None)]
    ]
    return Panel("\n".join(lines), title=thread, border_style=COLOURS[thread], padding=(0, 1))


def side_by_side(left: Any, right: Any, console: Console) -> Any:
    """Two things beside each other, or below each other where there is no room."""
    return Columns([left, right], equal=True, expand=console.width >= 110)


def history_table(snapshots: Sequence[StateSnapshot], title: str) -> Table:
    """A thread's history, newest first."""
    table = Table(title=title)
    for name in ("step", "source", "checkpoint", "parent", "messages", "budget", "next"):
        table.add_column(name, justify="right" if name in ("step", "messages") else "left")
    for snapshot in snapshots:
        metadata: Any = snapshot.metadata or {}
        table.add_row(
            str(metadata.get("step")),
            str(metadata.get("source")),
            short(id_of(snapshot.config)),
            short(id_of(snapshot.parent_config)),
            str(len(snapshot.values.get("messages", ()))),
            str(snapshot.values.get("budget_eur", "")),
            ", ".join(dict.fromkeys(snapshot.next)) or "-",
        )
    return table


def id_of(config: Any) -> str | None:
    """The checkpoint id that a config names, if it names one."""
    if config is None:
        return None
    found: str | None = config["configurable"].get("checkpoint_id")
    return found


def short(checkpoint_id: str | None) -> str:
    """The end of an id, by which `thread show` names it too: its beginning is only a time."""
    return "-" if checkpoint_id is None else f"…{checkpoint_id[-6:]}"
