"""The one writer: data to standard output, talk to standard error.

Rules: data is whole lines, without colour or escapes when nobody's terminal shows it, and is not
cut to a width then; a reader that goes away early (`| head`) ends the output, not the command, and
is not an error; `NO_COLOR` is obeyed; nothing is buffered when this module returns.
"""

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import Any, Final, TextIO

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
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
    if not console.is_terminal:  # where the last column's cells are filled up with spaces
        text = "".join(f"{line.rstrip()}\n" for line in text.splitlines())
    _write(text)


def line(text: str) -> None:
    """Writes one line of data."""
    _write(f"{text}\n")


def table(columns: Sequence[str], rows: Iterable[Sequence[str | int]]) -> None:
    """Writes rows under a heading, numbers to the right."""
    found = list(rows)
    drawn = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for i, name in enumerate(columns):
        number = any(isinstance(row[i], int) for row in found)
        drawn.add_column(name, justify="right" if number else "left", overflow="fold")
    for row in found:
        drawn.add_row(*(Text(words.printable(str(cell))) for cell in row))
    show(drawn)


def document(kind: str, body: dict[str, Any]) -> None:
    """Writes one JSON document. docs/reference/cli-json.md describes each kind."""
    whole = {"schema_version": SCHEMA_VERSION, "kind": kind, **body}
    line(json.dumps(whole, indent=2, allow_nan=False))


def say(*parts: str | tuple[str, str]) -> None:
    """Writes talk: what was done, what to do next. A part may have a style."""
    _console(sys.stderr).print(Text.assemble(*parts), soft_wrap=True)


def complain(text: str, next_step: str = "") -> None:
    """Writes why a command ends without what it was asked for. The message's own line ends stay,
    and nothing else in it moves a cursor."""
    say(("error: ", "bold red"), "\n".join(map(words.printable, text.split("\n"))))
    if next_step:
        say(("next:  ", "bold"), next_step)


@contextmanager
def progress(doing: str) -> Iterator[Callable[[int, int], None]]:
    """What is called with "so many of so many" draws a bar while somebody's terminal shows it."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    screen = _console(sys.stderr)
    bar = Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal)
    with bar:
        task = bar.add_task(doing, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _console(stream: TextIO) -> Console:
    return Console(
        file=stream,
        width=None if stream.isatty() else _PLAIN_WIDTH,
        highlight=False,
        markup=False,
        emoji=False,
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
