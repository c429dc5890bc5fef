"""`python -m benchmarks.idle`: what a router costs that nobody uses.

A router on an empty file, and the same router started on a file with 10,000 threads: time until it
answers, memory, and the share of a core over ten quiet seconds with one client connected.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from benchmarks.process import cpu_seconds, resident_mb, stored_mb
from benchmarks.values import Chain, config_of, text

IN_FLIGHT: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Rest:
    """One router at rest."""

    threads: int
    start_seconds: float
    first_read_ms: float
    resident_mb: float
    cpu_percent_of_a_core: float
    file_mb: float


async def look(router: Any, directory: Path, threads: int, quiet_seconds: float) -> Rest:
    """Start the router, connect one client, read once, and watch it doing nothing."""
    from checkpoint_router import RouterSaver

    began = time.perf_counter()
    await asyncio.to_thread(router.start)
    started = time.perf_counter() - began
    async with RouterSaver(router.target) as saver:
        began = time.perf_counter()
        await saver.aget_tuple(config_of(f"idle-{threads // 2}"))
        first_read = time.perf_counter() - began
        cpu, began = cpu_seconds(router.pid), time.perf_counter()
        await asyncio.sleep(quiet_seconds)  # the quiet itself is what is measured
        share = (cpu_seconds(router.pid) - cpu) / (time.perf_counter() - began)
    return Rest(
        threads=threads,
        start_seconds=round(started, 3),
        first_read_ms=round(first_read * 1e3, 2),
        resident_mb=round(resident_mb(router.pid), 1),
        cpu_percent_of_a_core=round(100 * share, 2),
        file_mb=round(stored_mb(directory), 1),
    )


async def fill(target: str, threads: int) -> None:
    """One checkpoint in each of many threads."""
    from checkpoint_router import RouterSaver

    async with RouterSaver(target) as saver:
        names = iter(range(threads))

        async def client() -> None:
            for number in names:
                parts = Chain(saver).checkpoint({"note": text(200, number)}, ("note",))
                await saver.aput(config_of(f"idle-{number}"), *parts)

        async with asyncio.TaskGroup() as group:
            for _ in range(IN_FLIGHT):
                group.create_task(client())


async def rest(options: argparse.Namespace, directory: Path) -> list[Rest]:
    """The empty router, then the full one."""
    from checkpoint_router.testing import running_router

    with running_router(storage=f"sqlite:{directory}") as router:
        router.stop()
        empty = await look(router, directory, 0, options.seconds)
        await fill(router.target, options.threads)
        router.stop()
        full = await look(router, directory, options.threads, options.seconds)
    return [empty, full]


def table(found: Iterable[Rest]) -> Table:
    """One column a router."""
    shown = Table(title="A router at rest (goals: ≤ 120 MB, ≤ 1 % of a core)")
    shown.add_column("")
    columns = [asdict(one) for one in found]
    for column in columns:
        shown.add_column(f"{column['threads']:,} threads", justify="right")
    for name in list(columns[0])[1:]:
        shown.add_row(name.replace("_", " "), *(f"{column[name]:,}" for column in columns))
    return shown


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.idle", description=__doc__)
    parser.add_argument("--threads", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=10.0, help="of quiet")
    parser.add_argument("--dir", type=Path, help="a directory on the disk to be used")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="router-idle-", dir=options.dir) as name:
        found = asyncio.run(rest(options, Path(name)))
    Console().print(table(found))
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "idle.json").write_text(json.dumps([asdict(one) for one in found], indent=2))


if __name__ == "__main__":
    main()
