"""`python -m benchmarks`: one command, a table for each engine, peers beside us."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from rich.console import Console

from benchmarks.engines import ENGINES, ROUTER, Engine
from benchmarks.long_thread import Series, long_thread
from benchmarks.peers import Opener, Peer
from benchmarks.report import Found, Report, fsync_ms
from benchmarks.rounds import WARM_UP, Results, run_rounds
from benchmarks.rows import ROWS, Scale
from benchmarks.scale import SCALE, scale
from benchmarks.servers import Missing, Place, a_place
from benchmarks.verify import Mismatch, verify

FULL: Final = Scale(alone=150, each=20, runs=12)
QUICK: Final = Scale(alone=20, each=3, runs=2)
QUICK_SECONDS: Final = 150.0
"""For everything; what starts and verifies takes the rest of three minutes."""

ROWS_SHARE: Final = 0.6
"""Of an engine's time; the rest is for the long thread."""


def main() -> int:
    """Compare; exit code 0, or 1 if a saver gave back something wrong."""
    options = parse()
    console = Console(stderr=True)
    load = os.getloadavg()[0]
    with (
        tempfile.TemporaryDirectory(prefix="router-bench-", dir=options.dir) as directory,
        a_place(Path(directory)) as place,
    ):
        try:
            found = asyncio.run(compare(place, options, console))
        except Mismatch as error:
            console.print(f"[bold red]{error}[/]")
            return 1
        report = Report(
            found=found,
            rounds=options.rounds,
            turns=options.turns,
            threads=options.threads,
            fsync_ms=fsync_ms(place.directory),
            load=load,
        )
    report.show(Console(width=options.width))
    for path in report.write(options.out):
        console.print(f"written: {path}")
    return 0


async def compare(place: Place, options: argparse.Namespace, console: Console) -> list[Found]:
    """One engine after another; the savers of one take turns."""
    began, found = time.monotonic(), []
    for done, name in enumerate(options.engines):
        # Each engine has its share of what is left, so that the last is not the shortest.
        share = (began + options.seconds - time.monotonic()) / (len(options.engines) - done)
        until = time.monotonic() + share
        console.rule(name)
        if name == SCALE:
            with console.status("") as status:
                found.append(await scale(place, options.threads, options.puts, status.update))
        else:
            one = await on_engine(ENGINES[name], place, options, until, console)
            found += [one] if one is not None else []
    return found


async def on_engine(
    engine: Engine, place: Place, options: argparse.Namespace, until: float, console: Console
) -> Found | None:
    """Verify every saver, then let them take turns, then the long thread on fresh storage."""
    missing: dict[str, str] = {}
    rows = [] if engine.long_thread_only else [r for r in ROWS if options.rows in r.name]
    results, peers, series = Results(), list[Peer](), dict[str, Series]()
    faults: list[str] = []
    with console.status("") as status:
        if rows:
            async with AsyncExitStack() as stack:
                for peer in await opened(engine, place, stack, missing):
                    if (wrong := await verified(peer, missing, console)) is not None:
                        peers.append(peer)
                        faults += wrong
                results = await run_rounds(
                    peers,
                    rows,
                    rounds=options.rounds,
                    scale=QUICK if options.quick else FULL,
                    warm_up=None if options.quick else WARM_UP,
                    until=time.monotonic() + ROWS_SHARE * (until - time.monotonic()),
                    said=status.update,
                )
                late = [row.name for row in rows if row.name not in results.values]
                faults += [f"not taken, for want of time: {'; '.join(late)}"] if late else []
        if options.rows in "long thread":
            async with AsyncExitStack() as stack:
                others = await opened(engine, place, stack, missing)
                peers = peers or others
                series = await long_thread(others, options.turns, until, results, status.update)
    for name, why in missing.items():
        console.print(f"[yellow]{name} is missing: {why}[/]")
    return Found(
        engine=engine,
        ours=next(iter(engine.savers)),
        peers=peers,
        missing=missing,
        faults=faults,
        results=results,
        series=series,
    )


async def verified(peer: Peer, missing: dict[str, str], console: Console) -> list[str] | None:
    """What a rival gave back wrong: it is timed all the same, and that is said. None: it failed.

    Raises Mismatch, or what a call raised, if the saver is ours.
    """
    ours = peer.name.startswith(ROUTER)
    try:
        right, wrong = await verify(peer)
    except Exception as error:  # whatever a rival raises, the others go on
        if ours:
            raise
        missing[peer.name] = f"it failed while it was verified: {error!r}"
        return None
    console.print(f"verified {right} values of {peer.name}")
    if wrong and ours:
        raise wrong[0]
    return [str(mismatch) for mismatch in wrong]


async def opened(
    engine: Engine, place: Place, stack: AsyncExitStack, missing: dict[str, str]
) -> list[Peer]:
    """Those savers of an engine that can take part; the others go into `missing`."""
    peers = []
    for name, opener in engine.savers.items():
        if name not in missing:
            try:
                peers.append(await _opened(opener, place, stack))
            except Missing as error:
                missing[name] = str(error)
    return peers


async def _opened(opener: Opener, place: Place, stack: AsyncExitStack) -> Peer:
    return await stack.enter_async_context(opener(place))


def parse() -> argparse.Namespace:
    """The command line."""
    known = [*ENGINES, SCALE]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--engines", help=f"of {','.join(known)}", default=",".join(known))
    parser.add_argument("--rows", default="", help="only those with these words: 'put', 'long'")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="small, rough, and cut off when its three minutes are over",
    )
    parser.add_argument("--rounds", type=int, help="5; with --quick 3 at most")
    parser.add_argument("--turns", type=int, help="of the long thread: 500; with --quick 30")
    parser.add_argument("--threads", type=int, help="1,000,000; with --quick 5,000")
    parser.add_argument("--puts", type=int, help="in one thread: 5,000; with --quick 300")
    parser.add_argument("--dir", type=Path, help="a directory on the disk to be measured")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results"))
    parser.add_argument("--width", type=int, help="of the tables, in characters")
    options = parser.parse_args()
    options.engines = options.engines.split(",")
    if unknown := set(options.engines) - set(known):
        parser.error(f"no engine is called {', '.join(sorted(unknown))}; there are {known}")
    quick = {"rounds": 3, "turns": 30, "threads": 5_000, "puts": 300}
    full = {"rounds": 5, "turns": 500, "threads": 1_000_000, "puts": 5_000}
    for name, value in (quick if options.quick else full).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    options.seconds = QUICK_SECONDS if options.quick else float("inf")
    return options


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR)
    sys.exit(main())
