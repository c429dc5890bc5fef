"""`python -m benchmarks`: one command, one table, peers beside us."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

from rich.console import Console

from benchmarks.long_thread import long_thread
from benchmarks.peers import MEMORY, POSTGRES, POSTGRES_EACH, Place, openers
from benchmarks.postgres import MISSING, binaries, running_postgres
from benchmarks.report import Report, fsync_ms
from benchmarks.rounds import run_rounds
from benchmarks.rows import Scale
from benchmarks.verify import Mismatch, verify

FULL = Scale(alone=150, each=20, runs=12)
QUICK = Scale(alone=40, each=6, runs=4)


def main() -> int:
    """Compare; exit code 0, or 1 if a saver gave back something wrong."""
    options = parse()
    console = Console(stderr=True)
    try:
        with a_place(options.dir, console) as place:
            report = asyncio.run(compare(place, options, console))
    except Mismatch as error:
        console.print(f"[bold red]{error}[/]")
        return 1
    report.show(Console(width=options.width))
    for path in report.write(options.out):
        console.print(f"written: {path}")
    return 0


async def compare(place: Place, options: argparse.Namespace, console: Console) -> Report:
    """Verify every saver, then let them take turns, then the long thread on fresh storage."""
    load, found = os.getloadavg()[0], openers(place)
    chosen = {name: found[name] for name in found if name not in options.without}
    async with AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(open_(place)) for open_ in chosen.values()]
        for peer in peers:
            console.print(f"verified {await verify(peer)} values of {peer.name}")
        with console.status("") as status:
            results = await run_rounds(
                peers,
                rounds=options.rounds,
                scale=QUICK if options.quick else FULL,
                said=status.update,
            )
    long_threads = {}
    for name, open_ in chosen.items():
        if name not in (POSTGRES_EACH, MEMORY):
            with console.status(f"a thread of {options.turns} turns: {name}"):
                long_threads[name] = await long_thread(open_, place, options.turns)
    return Report(
        peers=peers,
        results=results,
        long_threads=long_threads,
        turns=options.turns,
        rounds=options.rounds,
        fsync_ms=fsync_ms(place.directory),
        load=load,
    )


@contextmanager
def a_place(parent: Path | None, console: Console) -> Iterator[Place]:
    """A temporary directory, with a PostgreSQL server in it if there is one to start."""
    with tempfile.TemporaryDirectory(prefix="router-bench-", dir=parent) as name:
        directory = Path(name)
        if missing := why_no_postgres():
            console.print(f"[yellow]{missing}[/]")
            yield Place(directory=directory, postgres=None)
            return
        with running_postgres(directory) as server:
            yield Place(directory=directory, postgres=server)


def why_no_postgres() -> str | None:
    """None if AsyncPostgresSaver can take part."""
    if binaries() is None:
        return MISSING
    try:
        import langgraph.checkpoint.postgres.aio  # noqa: F401 - asks whether it is there
        import psycopg_pool  # noqa: F401 - likewise
    except ImportError as error:
        return f"AsyncPostgresSaver is left out: {error}"
    return None


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, help="5; with --quick 3")
    parser.add_argument("--quick", action="store_true", help="small and rough: a minute")
    parser.add_argument("--turns", type=int, help="of the long thread: 500; with --quick 100")
    parser.add_argument("--without", action="append", default=[], help="leave out a saver by name")
    parser.add_argument("--dir", type=Path, help="a directory on the disk to be measured")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results"))
    parser.add_argument("--width", type=int, help="of the table, in characters")
    options = parser.parse_args()
    options.rounds = options.rounds or (3 if options.quick else 5)
    options.turns = options.turns or (100 if options.quick else 500)
    if POSTGRES in options.without:
        options.without.append(POSTGRES_EACH)
    return options


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    sys.exit(main())
