"""`python -m benchmarks.soak`: does anything grow that should not, and does space come back?

32 agents hold conversations that grow, and leave each for a new one after `--turns` turns. Then,
while they go on, every conversation that was left is pruned to its newest checkpoint, then deleted;
then they fill the space again, and at last all of it is deleted. Sampled are memory of router and
client, the files, and the pages in them that are free. Shows and writes each phase, all samples as
CSV and a plot; it asserts nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import os
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from benchmarks.plot import pyplot, saved
from benchmarks.process import resident_mb, stored_mb
from benchmarks.servers import sqlite_bytes
from benchmarks.values import Chain, Saver, config_of, message

SAMPLE_SECONDS: Final = 1.0
AGENTS: Final = 32
PRUNED_AT_ONCE: Final = 20
"""Threads in one call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One look at the router."""

    phase: str
    seconds: float
    puts: int
    router_mb: float
    client_mb: float
    files_mb: float
    wal_mb: float
    """Of the files: write-ahead logs."""

    free_mb: float
    """Of the files: pages that the next puts use again."""

    longest_put_ms: float
    """Since the sample before."""


class Soak:
    """The agents, and what they have done so far."""

    def __init__(self, saver: Saver, turns: int) -> None:
        self._saver = saver
        self._turns = turns
        self.puts = 0
        self.longest_put_ms = 0.0
        self.used: list[str] = []
        """Threads that agents are using."""
        self.left: list[str] = []
        """Threads that no agent uses any more."""

    async def agent(self, number: int) -> None:
        """One conversation after another, until it is cancelled."""
        serial = 0
        while True:
            thread, serial = f"soak-{number}-{serial}", serial + 1
            self.used.append(thread)
            chain, config, said = Chain(self._saver), config_of(thread), list[Any]()
            for turn in range(self._turns):
                said = [*said, message(turn)]
                parts = chain.checkpoint({"messages": said}, ("messages",))
                began = time.perf_counter()
                config = await self._saver.aput(config, *parts)
                took = (time.perf_counter() - began) * 1e3
                self.longest_put_ms = max(self.longest_put_ms, took)
                self.puts += 1
            self.used.remove(thread)
            self.left.append(thread)


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """Takes the samples."""

    soak: Soak
    pid: int
    directory: Path
    samples: list[Sample]
    began: float

    async def during(self, phase: str, work: Awaitable[Any], said: Callable[[str], None]) -> None:
        """Look once a second until the work of a phase is done."""
        task = asyncio.ensure_future(work)
        while not task.done():
            await asyncio.wait([task], timeout=SAMPLE_SECONDS)
            self.samples.append(self._look(phase))
            said(f"{phase}: {self.soak.puts:,} puts, router {self.samples[-1].router_mb:.0f} MB")
        await task

    def _look(self, phase: str) -> Sample:
        longest, self.soak.longest_put_ms = self.soak.longest_put_ms, 0.0
        files, logs = (self.directory.glob(f"*.sqlite3{end}") for end in ("", "-wal"))
        free = sum(sqlite_bytes(path, "freelist_count") for path in files)
        return Sample(
            phase=phase,
            seconds=round(time.monotonic() - self.began, 2),
            puts=self.soak.puts,
            router_mb=round(resident_mb(self.pid), 2),
            client_mb=round(resident_mb(os.getpid()), 2),
            files_mb=round(stored_mb(self.directory), 2),
            wal_mb=round(sum(path.stat().st_size for path in logs) / 1e6, 2),
            free_mb=round(free / 1e6, 2),
            longest_put_ms=round(longest, 1),
        )


async def phases(watch: Watch, saver: Any, seconds: float, said: Callable[[str], None]) -> None:
    """Grow, prune, delete, grow again, while agents talk; then delete all that there is."""
    soak = watch.soak
    agents = [asyncio.create_task(soak.agent(number)) for number in range(AGENTS)]

    async def prune(threads: list[str]) -> None:
        for at in range(0, len(threads), PRUNED_AT_ONCE):
            await saver.aprune(threads[at : at + PRUNED_AT_ONCE], strategy="keep_latest")

    async def delete(threads: list[str]) -> None:
        for thread in threads:
            await saver.adelete_thread(thread)

    try:
        await watch.during("grow", asyncio.sleep(seconds), said)
        left, soak.left = soak.left, []
        await watch.during("prune", prune(left), said)
        await watch.during("delete", delete(left), said)
        await watch.during("grow again", asyncio.sleep(seconds), said)
    finally:
        for task in agents:
            task.cancel()
        ended = await asyncio.gather(*agents, return_exceptions=True)
    for each in ended:
        if not isinstance(each, asyncio.CancelledError):
            raise RuntimeError("an agent did not live to the end") from each
    await watch.during("delete all", delete([*soak.used, *soak.left]), said)


def growth(samples: Sequence[Sample]) -> float | None:
    """Bytes of memory a put in the later half, by least squares; None with too few samples."""
    late = [one for one in samples if one.puts >= samples[-1].puts / 2]
    if len(late) < 3:
        return None
    puts_mean = sum(one.puts for one in late) / len(late)
    memory_mean = sum(one.router_mb for one in late) / len(late)
    above = sum((one.puts - puts_mean) * (one.router_mb - memory_mean) for one in late)
    below = sum((one.puts - puts_mean) ** 2 for one in late)
    return above / below * 1e6 if below else None


def table(samples: Sequence[Sample]) -> Table:
    """A row for each phase, as it was at its end."""
    shown = Table(title="A router under 32 agents whose conversations grow")
    columns = ("phase", "seconds", "puts", "router MB", "client MB", "files MB", "WAL MB")
    for column in (*columns, "free MB", "longest put, ms"):
        shown.add_column(column, justify="left" if column == "phase" else "right")
    before = (0.0, 0)
    for phase in dict.fromkeys(one.phase for one in samples):
        of_it = [one for one in samples if one.phase == phase]
        last, longest = of_it[-1], max(one.longest_put_ms for one in of_it)
        disk = (last.files_mb, last.wal_mb, last.free_mb)
        shown.add_row(
            phase,
            f"{last.seconds - before[0]:.0f}",
            f"{last.puts - before[1]:,}",
            *(f"{size:,.0f}" for size in (last.router_mb, last.client_mb, *disk, longest)),
        )
        before = (last.seconds, last.puts)
    slope = growth([one for one in samples if one.phase.startswith("grow")])
    if slope is not None:
        shown.caption = f"router memory in the later half of the growing: {slope:+.1f} bytes a put"
    return shown


def write(samples: Sequence[Sample], out: Path) -> list[Path]:
    """As CSV, and drawn where matplotlib is installed."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "soak.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(field.name for field in fields(Sample))
        writer.writerows(map(astuple, samples))
    library = pyplot()
    if library is None:
        return [path]
    figure, axes = library.subplots(1, 2, figsize=(12, 5))
    at = [one.seconds for one in samples]
    for axis, names in zip(
        axes, (("router_mb", "client_mb"), ("files_mb", "wal_mb", "free_mb")), strict=True
    ):
        for name in names:
            label = name.replace("_mb", "")
            axis.plot(at, [getattr(one, name) for one in samples], label=label)
        for phase in dict.fromkeys(one.phase for one in samples):
            first = next(one.seconds for one in samples if one.phase == phase)
            axis.axvline(first, color="0.8", linewidth=1)
            axis.annotate(phase, (first, 0), fontsize="small", rotation=90)
        axis.set(xlabel="seconds", ylabel="MB", ylim=(0, None))
        axis.legend()
    return [path, saved(figure, out / "soak.svg")]


async def soak_a_router(options: argparse.Namespace, directory: Path) -> list[Sample]:
    """Start a router, soak it."""
    from checkpoint_router import RouterSaver
    from checkpoint_router.testing import running_router

    samples: list[Sample] = []
    with (
        Console(stderr=True).status("") as status,
        running_router(storage=f"sqlite:{directory}") as router,
    ):
        async with RouterSaver(router.target) as saver:
            soak = Soak(saver, options.turns)
            watch = Watch(
                soak=soak,
                pid=router.pid,
                directory=directory,
                samples=samples,
                began=time.monotonic(),
            )
            await phases(watch, saver, 30 * options.minutes, status.update)
    return samples


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=6.0, help="of growing")
    parser.add_argument("--turns", type=int, default=100, help="before a conversation is left")
    parser.add_argument("--dir", type=Path, help="a directory on the disk to be used")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="router-soak-", dir=options.dir) as name:
        samples = asyncio.run(soak_a_router(options, Path(name)))
    console = Console()
    console.print(table(samples))
    for path in write(samples, options.out):
        console.print(f"written: {path}")


if __name__ == "__main__":
    main()
