"""`python -m benchmarks.overload`: ten times the clients that the machine can serve.

Looks for the number of clients at which a router stores most puts a second, then lets ten times as
many loose on it: once as it is, and once on a router that is told to hold no more requests than
the best number of clients makes. Beside the puts, agents run in every client process, and each of
their runs has to end. Exit code 1 if something that is promised does not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from benchmarks.graphs import run_config, talking_agent
from benchmarks.peers import Peer
from benchmarks.process import cpu_seconds, resident_mb
from benchmarks.values import Chain, config_of, text
from checkpoint_router.backends.sqlite.storing import REMEMBERED_MAX
from checkpoint_router.core import limits

PROCESSES: Final = 4
RUNS_AT_ONCE: Final = 2
"""Agents of each client process."""

RAMP: Final = (8, 16, 32, 64, 128)
TIMES_TOO_MANY: Final = 10
LEAST_SHARE: Final = 0.8
CALL_BYTES: Final = 24 * 1024
"""What a router counts for a put of ours, about."""

SETTING: Final = "CHECKPOINT_ROUTER_BYTES_IN_FLIGHT_MAX"
SETTING_MIN: Final = 1 << 20
VALUE: Final = text(4_000, 1)
CACHES_MB: Final = (
    limits.RECENT_BYTES_MAX
    + 1024 * limits.HISTORY_EVENTS_MAX
    # SQLite's pages, and the writer's tables of values, of threads and of segments.
    + 16 * limits.MIB
    + 3 * 200 * REMEMBERED_MAX
) / 1e6
"""What a router fills with what it was given, however many clients gave it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What so many clients got."""

    clients: int
    seconds: float
    puts: int
    """Acknowledged in the time, those of the agents with them."""

    late_ms: list[float]
    """Of each put, from the call to its answer, however late that came."""

    refused: int
    """Answers that said `not now`, and when to come back; the saver came back."""

    without_hint: int
    """Of these, those without the hint."""

    runs: int
    """Agents' runs that were begun, and ended."""

    failed: dict[str, int]
    """Calls and runs that raised, by what they raised."""

    router_mb: float
    """The most memory that the router had."""

    router_seconds: float
    """Processor time of the router, until all had ended."""

    client_seconds: float
    """Of the client processes, in the same time."""

    @property
    def rate(self) -> float:
        """Puts a second."""
        return self.puts / self.seconds

    def micros(self, seconds: float) -> float:
        """Of processor time for each put, the agents' other work with it."""
        return seconds * 1e6 / max(1, len(self.late_ms))


# A client process --------------------------------------------------------------------------------


class Clients:
    """Those of one process, on one saver."""

    def __init__(self, saver: Any, name: str, seconds: float) -> None:
        self._saver = saver
        self._name = name
        self._until = time.monotonic() + seconds
        self.late_ms: list[float] = []
        self.puts = self.runs = 0
        self.failed: Counter[str] = Counter()
        aput = type(saver).aput

        async def timed(put: Any) -> Any:
            began = time.monotonic()
            config = await put
            ended = time.monotonic()
            self.late_ms.append((ended - began) * 1e3)
            self.puts += ended < self._until
            return config

        # On the class: a graph has a copy of the saver.
        type(saver).aput = lambda saver, *parts: timed(aput(saver, *parts))

    async def put(self, number: int) -> None:
        """One client: the next put when the last was answered."""
        chain, config = Chain(self._saver), config_of(f"{self._name}-{number}")
        while time.monotonic() < self._until:
            parts = chain.checkpoint({"note": f"{number} {self.puts} {VALUE}"}, ("note",))
            try:
                config = await self._saver.aput(config, *parts)
            except Exception as error:  # noqa: BLE001 - counted, whatever it is
                self.failed[type(error).__name__] += 1
                return

    async def run(self, number: int) -> None:
        """One agent, run after run."""
        agent = talking_agent(Peer(name="", promise="", savers=lambda client: self._saver), 0)
        while time.monotonic() < self._until:
            thread = f"{self._name}-run-{number}-{self.runs}"
            try:
                await agent.ainvoke({"messages": []}, run_config(thread))
            except Exception as error:  # noqa: BLE001 - counted, whatever it is
                self.failed[f"run: {type(error).__name__}"] += 1
                return
            self.runs += 1


async def client_process(options: argparse.Namespace) -> None:
    """Say that it is ready, wait for the word, load the router, say what came of it."""
    from checkpoint_router import RouterSaver
    from checkpoint_router.wire.errors import RETRY_AFTER_MS

    links: Any = import_module("checkpoint_router.client.links")
    refusals: Counter[bool] = Counter()
    pause = links._pause

    def counted(error: Any, so_far: int) -> Any:
        refusals[RETRY_AFTER_MS in error.attributes] += error.reason == "OVERLOADED"
        return pause(error, so_far)

    links._pause = counted
    async with RouterSaver(options.target) as saver:
        await saver.asetup()
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        before = time.process_time()
        clients = Clients(saver, options.client, options.seconds)
        puts = (clients.put(number) for number in range(options.clients))
        runs = (clients.run(number) for number in range(RUNS_AT_ONCE))
        await asyncio.gather(*puts, *runs)
    found = {name: getattr(clients, name) for name in ("puts", "late_ms", "runs", "failed")}
    found |= {"refused": refusals.total(), "without_hint": refusals[False]}
    print(json.dumps(found | {"client_seconds": time.process_time() - before}))


# The one that starts them -------------------------------------------------------------------------


async def load(router: Any, clients: int, seconds: float) -> Load:
    """So many clients, in a few processes."""
    words = [sys.executable, "-m", "benchmarks.overload", "--target", router.target]
    words += ["--clients", str(clients // PROCESSES), "--seconds", str(seconds)]
    pipe = asyncio.subprocess.PIPE
    processes = [
        await asyncio.create_subprocess_exec(
            *words, "--client", f"{clients}-{number}", stdin=pipe, stdout=pipe, limit=1 << 26
        )
        for number in range(PROCESSES)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            await process.stdout.readline()
        before = cpu_seconds(router.pid)
        for process in processes:
            assert process.stdin is not None
            process.stdin.write(b"go\n")
        memory = asyncio.create_task(_most_memory(router.pid))
        said = [(await process.communicate())[0] for process in processes]
        memory.cancel()
        most = await memory
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
    found = [json.loads(each) for each in said]
    return Load(
        clients=clients,
        seconds=seconds,
        late_ms=[each for one in found for each in one["late_ms"]],
        failed=dict(sum((Counter(one["failed"]) for one in found), Counter[str]())),
        router_mb=most,
        router_seconds=cpu_seconds(router.pid) - before,
        **{
            name: sum(one[name] for one in found)
            for name in ("puts", "refused", "without_hint", "runs", "client_seconds")
        },
    )


async def _most_memory(pid: int) -> float:
    most = resident_mb(pid)
    try:
        while True:
            await asyncio.sleep(0.1)
            most = max(most, resident_mb(pid))
    except asyncio.CancelledError:
        return most


async def overload(
    options: argparse.Namespace, directory: Path, console: Console
) -> tuple[list[Load], list[str]]:
    """The ramp and both overloads; gives what was found, and what does not hold."""
    from checkpoint_router.testing import running_router

    found, wrong = [], []
    with running_router(storage=f"sqlite:{directory / 'ramp'}") as router:
        for clients in options.ramp:
            found.append(await load(router, clients, options.load_seconds))
            console.print(f"{clients} clients: {found[-1].rate:,.0f} puts a second")
    best = max(found, key=lambda one: one.rate)
    held = max(SETTING_MIN, best.clients * CALL_BYTES)
    for name, env in (("as it is", {}), (f"that holds {held:,} bytes", {SETTING: str(held)})):
        storage = f"sqlite:{directory / name.replace(' ', '-')}"
        with running_router(storage=storage, env=env) as router:
            before = resident_mb(router.pid)
            one = await load(router, TIMES_TOO_MANY * best.clients, options.load_seconds)
        found.append(one)
        wrong += [
            f"a router {name}: {each}"
            for each in faults(one, best, before, held=held if env else 0)
        ]
    return found, wrong


def faults(one: Load, best: Load, before_mb: float, *, held: int) -> list[str]:
    """What an overload must not do, and did.

    `held`: bytes of requests that the router was told to hold at most, or 0.
    """
    out = []
    if one.rate < LEAST_SHARE * best.rate:
        out.append(f"{one.rate / best.rate:.0%} of the best rate, not {LEAST_SHARE:.0%}")
    if one.failed:
        out.append(f"calls or runs failed: {one.failed}")
    if not one.runs:
        out.append("no agent's run came to its end")
    if held and not one.refused:
        out.append("nothing was refused")
    if one.without_hint:
        out.append(f"{one.without_hint} refusals did not say when to come back")
    cap = before_mb + 3 * (held or limits.BYTES_IN_FLIGHT_MAX) / 1e6 + CACHES_MB
    if one.router_mb > cap:
        out.append(f"the router had {one.router_mb:.0f} MB, more than {cap:.0f}")
    return out


def table(found: Sequence[Load]) -> Table:
    """A row for each load."""
    shown = Table(title="Puts from more and more clients, and agents beside them")
    times = ("p50 ms", "p99 ms", "longest ms")
    columns = ("clients", "puts/s", "of the best", *times, "refused", "runs ended", "failed")
    for column in (*columns, "router MB", "router µs a put", "clients µs a put"):
        shown.add_column(column, justify="right")
    best = max(one.rate for one in found)
    for one in found:
        late = [*sorted(one.late_ms), 0.0]
        took = (statistics.median(late), late[int(0.99 * (len(late) - 1))], max(late))
        shown.add_row(
            f"{one.clients:,}",
            f"{one.rate:,.0f}",
            f"{one.rate / best:.0%}",
            *(f"{each:,.0f}" for each in took),
            f"{one.refused:,}",
            f"{one.runs:,}",
            str(sum(one.failed.values())),
            f"{one.router_mb:.0f}",
            *(f"{one.micros(each):,.0f}" for each in (one.router_seconds, one.client_seconds)),
        )
    return shown


def main() -> int:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overload", description=__doc__)
    parser.add_argument("--load-seconds", type=float, default=10.0, help="of each load")
    parser.add_argument("--ramp", type=int, nargs="+", default=RAMP, help="clients to try")
    parser.add_argument("--dir", type=Path, help="a directory on the disk to be used")
    for name, kind in (("target", str), ("client", str), ("clients", int), ("seconds", float)):
        parser.add_argument(f"--{name}", type=kind, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.client is not None:
        asyncio.run(client_process(options))
        return 0
    console = Console()
    with tempfile.TemporaryDirectory(prefix="router-overload-", dir=options.dir) as name:
        found, wrong = asyncio.run(overload(options, Path(name), console))
    console.print(table(found))
    for each in wrong:
        console.print(f"[bold red]{each}[/]")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
