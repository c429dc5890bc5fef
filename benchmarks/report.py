"""The tables of a comparison, on the screen, as JSON and as a page of Markdown with its plot."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from benchmarks.engines import MORE_UNITS, Engine
from benchmarks.long_thread import Series
from benchmarks.peers import Peer
from benchmarks.plot import draw
from benchmarks.rounds import Results
from benchmarks.rows import ROWS

SCHEMA_VERSION: Final = 2
DASH: Final = "-"
UNITS: Final[Mapping[str, str]] = {**{row.name: row.unit for row in ROWS}, **MORE_UNITS}
_DIVIDED: Final = {"MB": 1e6, "KB": 1e3}


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What was found on one engine."""

    engine: Engine
    ours: str
    peers: Sequence[Peer]
    missing: Mapping[str, str]
    """Savers that could not take part, and why."""

    faults: Sequence[str] = ()
    """What a rival did not give back as it was given."""

    results: Results
    series: Mapping[str, Series]

    def rows(self) -> list[str]:
        """Those with numbers, in order."""
        known = [name for name in UNITS if name in self.results.values]
        return known + [name for name in self.results.values if name not in UNITS]

    def unit(self, row: str) -> str:
        """As it is shown."""
        return UNITS.get(row, "ms")

    def ratio(self, row: str) -> float | None:
        """Ours through the best rival's."""
        rate = self.unit(row).endswith("/s")
        return self.results.ratio(row, self.ours, self.engine.rivals, rate=rate)

    def header(self) -> list[str]:
        """Of the table."""
        best = "the better of them" if len(self.engine.rivals) > 1 else self.engine.rivals[0]
        names = [peer.name for peer in self.peers]
        return ["", "unit", *names, f"{self.ours} : {best}", "goal (least)", "reached"]

    def lines(self) -> list[list[str]]:
        """The table's cells."""
        lines = []
        for row in self.rows():
            ratio, goal, unit = self.ratio(row), self.engine.goals.get(row), self.unit(row)
            medians = (self.results.median(row, peer.name) for peer in self.peers)
            cells = [number(m and m / _DIVIDED.get(unit, 1.0)) for m in medians]
            verdict = goal.verdict(ratio) if goal and ratio is not None else ""
            times = DASH if ratio is None else f"{ratio:.3g} x"
            lines.append([row, unit, *cells, times, str(goal or ""), verdict])
        return lines

    def notes(self) -> list[str]:
        """What a reader has to know to use the numbers."""
        promises = [f"{peer.name}: {peer.promise}" for peer in self.peers]
        missing = [f"{name} is missing: {why}" for name, why in self.missing.items()]
        return [*promises, *missing, *self.faults]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything that one comparison found."""

    found: Sequence[Found]
    rounds: int
    turns: int
    threads: int
    fsync_ms: float
    load: float
    """The machine's load average when the comparison began: how busy others kept it."""

    def notes(self) -> list[str]:
        """For all tables."""
        how = (
            f"medians of at most {self.rounds} rounds, for a long thread of its last 20 of at most "
            f"{self.turns} turns; ratios are taken inside a round or turn"
        )
        each = (
            "postgres is one saver on a pool of 10, as its documentation has it; it does one "
            "thing at a time. 'A saver each' is a saver object for each client over such a pool, "
            "the best that it can be made to do"
        )
        machine = (
            f"this disk: write and fdatasync of 4 KB {self.fsync_ms:.3f} ms; {os.cpu_count()} "
            f"cores for everything, load average {self.load:.2f} at the start; "
            f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"
        )
        return [how, each, machine]

    def versions(self) -> dict[str, str]:
        """Of everything that took part."""
        every = (peer.versions for one in self.found for peer in one.peers)
        return {name: version for versions in every for name, version in versions.items()}

    def show(self, console: Console) -> None:
        """On the screen."""
        for one in self.found:
            table = Table(title=one.engine.title)
            for index, name in enumerate(one.header()):
                table.add_column(name, justify="right" if index > 1 else "left")
            for line in one.lines():
                table.add_row(*line)
            console.print(table)
            for note in one.notes():
                console.print(f"[dim]{note}[/]", highlight=False)
        for note in self.notes():
            console.print(f"[dim]{note}[/]", highlight=False)

    def write(self, directory: Path) -> list[Path]:
        """All values as JSON, the tables as a page, the long threads as a plot."""
        directory.mkdir(parents=True, exist_ok=True)
        as_json, page = directory / "comparison.json", directory / "comparison.md"
        as_json.write_text(json.dumps(self.document(), indent=1) + "\n")
        series = {name: each for one in self.found for name, each in one.series.items()}
        plotted = draw(series, directory / "comparison.svg") if series else None
        page.write_text(self.markdown(plotted))
        return [as_json, page, *([plotted] if plotted else [])]

    def document(self) -> dict[str, Any]:
        """The published form of the numbers."""
        return {
            "schema_version": SCHEMA_VERSION,
            "taken_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": {"cores": os.cpu_count(), "load": self.load, "fsync_ms": self.fsync_ms},
            "versions": self.versions(),
            "turns": self.turns,
            "threads": self.threads,
            "tables": [
                {
                    "title": one.engine.title,
                    "ours": one.ours,
                    "rivals": one.engine.rivals,
                    "missing": one.missing,
                    "faults": one.faults,
                    "promises": {peer.name: peer.promise for peer in one.peers},
                    "units": {
                        row: one.unit(row).replace("KB", "B").replace("MB", "B")
                        for row in one.rows()
                    },
                    "values": one.results.values,
                    "ratios": {row: one.ratio(row) for row in one.rows()},
                    "goals": {row: asdict(goal) for row, goal in one.engine.goals.items()},
                    "long_thread": {name: asdict(each) for name, each in one.series.items()},
                }
                for one in self.found
            ],
        }

    def markdown(self, plotted: Path | None) -> str:
        """A page."""
        parts = ["# The router beside other savers"]
        for one in self.found:
            header = one.header()
            rule = ["---"] * 2 + ["---:"] * (len(header) - 2)
            lines = [header, rule, *one.lines()]
            table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
            parts += [f"## {one.engine.title}", table, _bullets(one.notes())]
        if plotted is not None:
            parts += ["## Over the length of a conversation", f"![]({plotted.name})"]
        versions = [f"{name} {version}" for name, version in self.versions().items()]
        parts += ["## How", _bullets(self.notes()), "## Versions", _bullets(versions)]
        return "\n\n".join(parts) + "\n"


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"* {line}" for line in lines)


def number(value: float | None) -> str:
    """Three digits are all that such a number is worth."""
    if value is None:
        return DASH
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def fsync_ms(directory: Path, times: int = 100) -> float:
    """What the disk asks for one durable write of 4 KB, the median."""
    taken = []
    descriptor = os.open(directory / "fsync", os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        for _ in range(times):
            began = time.perf_counter()
            os.write(descriptor, b"x" * 4096)
            os.fdatasync(descriptor)
            taken.append(time.perf_counter() - began)
    finally:
        os.close(descriptor)
    return statistics.median(taken) * 1_000
