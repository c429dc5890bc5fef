"""`python -m benchmarks.soak`: does the router's memory grow with the number of puts?

Many clients put small checkpoints until `--puts` or `--minutes` is reached; each goes round some
threads and leaves them for new ones after a while, as conversations come and go. Meanwhile the
router's memory and its file are sampled. Writes the samples as CSV, shows them as lines of text,
draws them if matplotlib is installed, and says how fast memory grew in the second half. It asserts
nothing. With `--round 16 --puts-each 1000000` the same 1,024 threads are used for ever: more than
the router keeps in memory, so that it reads them again and again.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from benchmarks.process import cpu_seconds, resident_mb, stored_mb
from benchmarks.values import Chain, Saver, config_of, text

SAMPLE_SECONDS: Final = 1.0
CLIENTS: Final = 64
BARS: Final = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One look at the router."""

    seconds: float
    puts: int
    router_mb: float
    file_mb: float
    client_mb: float
    router_cpu_share: float


class Soak:
    """The clients, and what they have done so far."""

    def __init__(self, saver: Saver, options: argparse.Namespace) -> None:
        self._saver = saver
        self._options = options
        self._puts_max: int = options.puts
        self._ends = time.monotonic() + 60 * options.minutes
        self.puts = 0
        self.threads = 0
        self.running = True

    async def run(self) -> None:
        """All clients until the end, or the first error of one."""
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(CLIENTS):
                    group.create_task(self._client(number))
        finally:
            self.running = False

    async def _client(self, number: int) -> None:
        while self._goes_on():
            await self._round(number)

    async def _round(self, number: int) -> None:
        """Some threads, turn by turn, until each has had its puts."""
        size = self._options.round
        first, self.threads = self.threads, self.threads + size
        chains = [Chain(self._saver) for _ in range(size)]
        configs = [config_of(f"soak-{number}-{first + index}") for index in range(size)]
        for turn in range(self._options.puts_each * size):
            if not self._goes_on():
                return
            index, values = turn % size, {"note": text(200, self.puts)}
            parts = chains[index].checkpoint(values, ("note",))
            configs[index] = await self._saver.aput(configs[index], *parts)
            self.puts += 1

    def _goes_on(self) -> bool:
        return self.puts < self._puts_max and time.monotonic() < self._ends


async def sample(soak: Soak, pid: int, directory: Path, said: Any) -> list[Sample]:
    """Look once a second until the soak has ended."""
    samples: list[Sample] = []
    began, cpu_before, looked = time.monotonic(), cpu_seconds(pid), time.monotonic()
    while True:
        await asyncio.sleep(SAMPLE_SECONDS)
        now, cpu = time.monotonic(), cpu_seconds(pid)
        samples.append(
            Sample(
                seconds=round(now - began, 2),
                puts=soak.puts,
                router_mb=round(resident_mb(pid), 2),
                file_mb=round(stored_mb(directory), 2),
                client_mb=round(resident_mb(os.getpid()), 2),
                router_cpu_share=round((cpu - cpu_before) / (now - looked), 3),
            )
        )
        cpu_before, looked = cpu, now
        said(f"{soak.puts:,} puts, router {samples[-1].router_mb:.0f} MB")
        if not soak.running:
            return samples


def sparkline(values: Sequence[float], width: int = 60) -> str:
    """The values from zero up, as a line of bars."""
    step = max(1, len(values) // width)
    shown, top = values[::step], max(values, default=0) or 1
    return "".join(BARS[min(len(BARS) - 1, int(value / top * len(BARS)))] for value in shown)


def growth(samples: Sequence[Sample]) -> float | None:
    """Bytes of memory a put in the second half, by least squares; None with too few samples."""
    late = [one for one in samples if one.puts >= samples[-1].puts / 2]
    if len(late) < 3:
        return None
    puts_mean = sum(one.puts for one in late) / len(late)
    memory_mean = sum(one.router_mb for one in late) / len(late)
    above = sum((one.puts - puts_mean) * (one.router_mb - memory_mean) for one in late)
    below = sum((one.puts - puts_mean) ** 2 for one in late)
    return above / below * 1e6 if below else None


def report(samples: Sequence[Sample], threads: int, out: Path, console: Console) -> None:
    """Show and write the samples."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "soak.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(field.name for field in fields(Sample))
        writer.writerows(map(astuple, samples))
    last = samples[-1]
    console.print(
        f"{last.puts:,} puts in {last.seconds:.0f} s ({last.puts / last.seconds:,.0f} a second), "
        f"{threads:,} threads"
    )
    for name in ("router_mb", "file_mb", "client_mb"):
        values = [getattr(one, name) for one in samples]
        console.print(f"{name:<10}{values[0]:8.1f} → {values[-1]:8.1f}  {sparkline(values)}")
    slope = growth(samples)
    if slope is not None:
        console.print(f"router memory in the second half: {slope:+.2f} bytes a put")
    console.print(f"written: {path}")
    if drawn := draw(samples, out / "soak.svg"):
        console.print(f"written: {drawn}")


def draw(samples: Sequence[Sample], path: Path) -> Path | None:
    """A plot of memory and file over puts; None where matplotlib is not installed."""
    try:
        from matplotlib import pyplot  # type: ignore[import-not-found,unused-ignore]  # optional
    except ImportError:
        return None
    figure, axes = pyplot.subplots()
    for name, label in (("router_mb", "router memory, MB"), ("client_mb", "client memory, MB")):
        axes.plot([s.puts for s in samples], [getattr(s, name) for s in samples], label=label)
    axes.set_xlabel("puts")
    axes.set_ylim(bottom=0)
    axes.legend()
    figure.savefig(path)
    return path


async def soak_a_router(options: argparse.Namespace, directory: Path, console: Console) -> None:
    """Start a router, soak it, report."""
    from checkpoint_router import RouterSaver
    from checkpoint_router.testing import running_router

    with running_router(storage=f"sqlite:{directory}") as router:
        async with RouterSaver(router.target) as saver:
            soak = Soak(saver, options)
            with console.status("") as status:
                running = asyncio.create_task(soak.run())
                samples = await sample(soak, router.pid, directory, status.update)
                await running
    report(samples, soak.threads, options.out, console)


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--puts", type=int, default=1_000_000)
    parser.add_argument("--minutes", type=float, default=10.0, help="at most")
    parser.add_argument("--round", type=int, default=1, help="threads that a client goes round")
    parser.add_argument("--puts-each", type=int, default=50, help="before a thread is left")
    parser.add_argument("--dir", type=Path, help="a directory on the disk to be used")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="router-soak-", dir=options.dir) as name:
        asyncio.run(soak_a_router(options, Path(name), Console()))


if __name__ == "__main__":
    main()
