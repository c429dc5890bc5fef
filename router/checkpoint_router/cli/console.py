"""The one writer: data to standard output, talk to standard error.

Rules: data is whole lines, without colour or escapes when nobody's terminal shows it, and is not
cut to a width then; a reader that goes away early (`| head`) ends the output, not the command, and
is not an error; `NO_COLOR` is obeyed; nothing is buffered when this module returns.
"""

import json
import os
import sys
from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Final, TextIO

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from checkpoint_router.cli import words

SCHEMA_VERSION: Final = 1
"""Of the JSON documents. A field may be added under the same number; one that changes its meaning
or goes away raises it."""

_PLAIN_WIDTH: Final = 100_000
"""Columns where nobody looks at a screen: nothing is wrapped or cut."""


class Output(StrEnum):
    """What data looks like."""

    TABLE = "table"
    JSON = "json"


def prepare() -> None:
    """Makes the standard streams take any id: one that the terminal cannot show is escaped."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def on_terminal() -> bool:
    """Whether a person sees the data."""
    return sys.stdout.isatty()


def width() -> int:
    """Columns that data may take."""
    return _console(sys.stdout).width


def can_ask() -> bool:
    """Whether there is somebody to answer a question."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def show(renderable: RenderableType) -> None:
    """Writes something drawn to standard output."""
    console = _console(sys.stdout)
    with console.capture() as captured:
        console.print(renderable)
    text = captured.get()
    if not on_terminal():
        text = "".join(f"{line.rstrip()}\n" for line in text.splitlines())
    _write(text)


def line(text: str) -> None:
    """Writes one line of data."""
    _write(f"{text}\n")


def table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()
) -> None:
    """Writes rows under a heading. `right` names columns of numbers by position."""
    drawn = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for i, name in enumerate(columns):
        drawn.add_column(name, justify="right" if i in right else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(words.printable(cell)) for cell in row))
    show(drawn)


def document(kind: str, body: dict[str, Any]) -> None:
    """Writes one JSON document. docs/reference/cli-json.md describes each kind."""
    whole = {"schema_version": SCHEMA_VERSION, "kind": kind, **body}
    _write(json.dumps(whole, indent=2, ensure_ascii=True, allow_nan=False) + "\n")


def say(text: str, *, style: str = "") -> None:
    """Writes talk: what was done, what to do next."""
    console = _console(sys.stderr)
    console.print(Text(text, style=style), soft_wrap=True)


def complain(text: str, next_step: str = "") -> None:
    """Writes why a command ends without what it was asked for."""
    console = _console(sys.stderr)
    console.print(Text.assemble(("error: ", "bold red"), words_of(text)), soft_wrap=True)
    if next_step:
        console.print(Text.assemble(("next:  ", "bold"), next_step), soft_wrap=True)


def words_of(text: str) -> str:
    """A message with its line ends, and nothing else that moves a cursor."""
    return "\n".join(words.printable(part) for part in text.split("\n"))


def _console(stream: TextIO) -> Console:
    wide = None if stream.isatty() else _PLAIN_WIDTH
    return Console(
        file=stream,
        width=wide,
        highlight=False,
        markup=False,
        emoji=False,
        no_color=True if os.environ.get("NO_COLOR") else None,
        # FORCE_COLOR and the like are for logs that a person reads, never for data in a pipe.
        force_terminal=stream.isatty(),
    )


def _write(text: str) -> None:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        # Python would fail once more when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
