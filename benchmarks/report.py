"""The table of a comparison, on the screen, as JSON and as a page of Markdown."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from benchmarks.long_thread import LongThread
from benchmarks.peers import POSTGRES, POSTGRES_EACH, ROUTER, Peer
from benchmarks.rounds import Results
from benchmarks.rows import ROWS

SCHEMA_VERSION: Final = 1
DASH: Final = "-"
EACH: Final = "router : a saver each"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything that one comparison found."""

    peers: Sequence[Peer]
    results: Results
    long_threads: dict[str, LongThread]
    turns: int
    rounds: int
    fsync_ms: float
    load: float
    """The machine's load average when the comparison began: how busy others kept it."""

    def header(self) -> list[str]:
        return [
            "",
            "unit",
            *(peer.name for peer in self.peers),
            "router : postgres",
            "goal",
            "",
            EACH,
        ]

    def lines(self) -> list[list[str]]:
        """The table's cells."""
        lines = []
        for row in ROWS:
            ratio = self.results.ratio(row.name, ROUTER)
            verdict = "" if row.goal is None or ratio is None else _verdict(row.goal.met(ratio))
            medians = [self.results.median(row.name, peer.name) for peer in self.peers]
            goal = str(row.goal or "")
            each = factor(self.results.ratio(row.name, ROUTER, POSTGRES_EACH))
            lines.append(
                [row.name, row.unit, *map(number, medians), factor(ratio), goal, verdict, each]
            )
        return lines + self._long_lines()

    def _long_lines(self) -> list[list[str]]:
        names = {
            "turn_ms": (f"turn {self.turns} of a long thread", "ms"),
            "get_latest_ms": (f"get_latest after turn {self.turns}", "ms"),
            "stored_mb": (f"stored after turn {self.turns}", "MB"),
        }
        lines = []
        for key, (name, unit) in names.items():
            found = {peer: getattr(long, key) for peer, long in self.long_threads.items()}
            ours, theirs = found.get(ROUTER), found.get(POSTGRES)
            ratio = ours / theirs if ours is not None and theirs else None
            cells = [number(found.get(peer.name)) for peer in self.peers]
            lines.append([name, unit, *cells, factor(ratio), "", "", DASH])
        return lines

    def notes(self) -> list[str]:
        """What a reader has to know to use the numbers."""
        promises = [f"{peer.name}: {peer.promise}" for peer in self.peers]
        how = (
            f"medians of {self.rounds} rounds; ratios are taken inside a round; "
            "the long thread was taken once"
        )
        postgres = (
            "postgres: one saver on a pool of 10, as its documentation has it; it does one thing "
            "at a time. 'a saver each': a saver object for each client over such a pool, the best "
            "that it can be made to do. Goals are ratios to the former"
        )
        machine = (
            f"this disk: write and fdatasync of 4 KB {self.fsync_ms:.3f} ms; "
            f"{os.cpu_count()} cores, load average {self.load:.2f} at the start; "
            f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"
        )
        took_part = any(peer.name == POSTGRES for peer in self.peers)
        return [how, *promises, *([postgres] if took_part else ()), machine]

    def versions(self) -> dict[str, str]:
        """Of everything that took part."""
        found: dict[str, str] = {}
        for peer in self.peers:
            found |= peer.versions
        return found

    def show(self, console: Console) -> None:
        """On the screen."""
        table = Table(title="One machine, one disk, every saver in its turn")
        for index, name in enumerate(self.header()):
            table.add_column(name, justify="right" if index > 1 else "left")
        for line in self.lines():
            table.add_row(*line)
        console.print(table)
        for note in self.notes():
            console.print(f"[dim]{note}[/]", highlight=False)

    def write(self, directory: Path) -> tuple[Path, Path]:
        """As JSON (all values) and Markdown (the table)."""
        directory.mkdir(parents=True, exist_ok=True)
        as_json, page = directory / "comparison.json", directory / "comparison.md"
        as_json.write_text(json.dumps(self.document(), indent=2) + "\n")
        page.write_text(self.markdown())
        return as_json, page

    def document(self) -> dict[str, Any]:
        """The published form of the numbers."""
        ratios = {row.name: self.results.ratio(row.name, ROUTER) for row in ROWS}
        return {
            "schema_version": SCHEMA_VERSION,
            "taken_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "rounds": self.rounds,
            "versions": self.versions(),
            "promises": {peer.name: peer.promise for peer in self.peers},
            "machine": {"cores": os.cpu_count(), "load": self.load, "fsync_ms": self.fsync_ms},
            "units": {row.name: row.unit for row in ROWS},
            "values": self.results.values,
            "ratio_router_to_postgres": ratios,
            "goals": {row.name: str(row.goal) for row in ROWS if row.goal is not None},
            "long_thread": {
                "turns": self.turns,
                "peers": {name: asdict(found) for name, found in self.long_threads.items()},
            },
        }

    def markdown(self) -> str:
        """A page."""
        header = self.header()
        rule = ["---"] * 2 + ["---:"] * (len(header) - 2)
        table = "\n".join("| " + " | ".join(line) + " |" for line in [header, rule, *self.lines()])
        notes = "\n".join(f"* {note}" for note in self.notes())
        packages = "\n".join(f"* {name} {version}" for name, version in self.versions().items())
        return (
            f"# The router beside other savers\n\n{table}\n\n{notes}\n\n## Versions\n\n{packages}\n"
        )


def number(value: float | None) -> str:
    """Three digits are all that such a number is worth."""
    if value is None:
        return DASH
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def factor(value: float | None) -> str:
    return DASH if value is None else f"{value:.2f} x"


def _verdict(met: bool) -> str:
    return "met" if met else "not met"


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
