"""`python -m benchmarks.profile`: where the time of a call goes.

The first table peels one call at a time: the floors are timed in one process on a perfect link;
what the same call takes longer with a real router is the link. The second asks the system how
much CPU time each thread of client and router needs for a call when 32 clients call at once, and
a sampling profiler in which functions they are. Sums are exact by construction: the last row of a
column is what the others leave.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from rich.console import Console
from rich.table import Table

from benchmarks.echo import echo_ms, serving
from benchmarks.graphs import SUPERSTEPS, run_config, talking_agent
from benchmarks.peers import Peer
from benchmarks.report import fsync_ms
from benchmarks.rows import CLIENTS, a_conversation, one_checkpoint
from benchmarks.sampler import Sampler, wait_for
from benchmarks.stack import LAYERS, Ledger, stacked_saver
from benchmarks.values import Chain, Saver, config_of, task_writes

LINK: Final = "link: gRPC, two event loops, wake-ups"
FUNCTIONS_SHOWN: Final = 12
Step = Callable[[], Awaitable[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Peeled:
    """One kind of call, in milliseconds."""

    total_ms: float
    layers_ms: dict[str, float]
    echo_ms: float
    request_bytes: int
    answer_bytes: int


async def puts(saver: Saver, thread: str, times: int) -> list[Step]:
    """`aput` of 4 KB in three new channels."""
    config: list[RunnableConfig] = [config_of(thread)]
    first, *others = Chain(saver).ahead(times + 1)
    config[0] = await saver.aput(config[0], *first)

    def step(parts: tuple[Any, Any, Any]) -> Step:
        async def put() -> None:
            config[0] = await saver.aput(config[0], *parts)

        return put

    return [step(parts) for parts in others]


async def put_writes(saver: Saver, thread: str, times: int) -> list[Step]:
    """`aput_writes` of one finished task."""
    config = await one_checkpoint(saver, thread)
    tasks = [(task_writes(index), str(uuid4())) for index in range(times)]

    def step(writes: list[tuple[str, Any]], task: str) -> Step:
        return lambda: saver.aput_writes(config, writes, task)

    return [step(writes, task) for writes, task in tasks]


async def gets(saver: Saver, thread: str, times: int) -> list[Step]:
    """`aget_tuple` of 50 messages."""
    await a_conversation(saver, thread)
    return [lambda: saver.aget_tuple(config_of(thread))] * times


async def supersteps(saver: Saver, thread: str, times: int) -> list[Step]:
    """Runs of an agent of six of them."""
    agent = talking_agent(Peer(name="", promise="", savers=lambda client: saver), 0)

    def step(index: int) -> Step:
        return lambda: agent.ainvoke({"messages": []}, run_config(f"{thread}-{index}"))

    return [step(index) for index in range(max(1, times // RUNS_SHARE))]


KINDS: Final = {"put": puts, "put_writes": put_writes, "get_latest, 50 messages": gets}
SUPERSTEP: Final = "superstep"
RUNS_SHARE: Final = 10


async def peel(options: argparse.Namespace, directory: Path) -> dict[str, Peeled]:
    """Each kind of call on the real router and on the perfect link, in turns."""
    from checkpoint_router import RouterSaver
    from checkpoint_router.testing import running_router

    found: dict[str, Peeled] = {}
    running = running_router(storage=f"sqlite:{directory / 'real'}")
    with running as router, serving("benchmarks.echo") as port:
        async with RouterSaver(router.target) as real, stacked_saver(directory / "in") as stacked:
            perfect, ledger = stacked
            for name, kind in {**KINDS, SUPERSTEP: supersteps}.items():
                await timed(await kind(real, f"warm-{name}", 20))
                totals, layers = [], []
                # By turns, so that a disk or a machine that is busy for a while is so for both.
                for step, peeled in zip(
                    await kind(real, name, options.times),
                    await kind(perfect, name, options.times),
                    strict=True,
                ):
                    totals += await timed([step])
                    layers.append((await ledger.operation(peeled))[1])
                each = SUPERSTEPS if name == SUPERSTEP else 1
                found[name] = await _peeled(totals, layers, ledger, port, each)
    return found


async def _peeled(
    totals: list[float], layers: list[dict[str, float]], ledger: Ledger, port: int, parts: int
) -> Peeled:
    total = statistics.median(totals) * 1e3 / parts
    medians = {
        name: statistics.median(each[name] for each in layers) * 1e3 / parts for name in LAYERS
    }
    return Peeled(
        total_ms=total,
        layers_ms=medians | {LINK: total - sum(medians.values())},
        echo_ms=await echo_ms(
            port, request_bytes=ledger.request_bytes, answer_bytes=ledger.answer_bytes, times=300
        ),
        request_bytes=ledger.request_bytes,
        answer_bytes=ledger.answer_bytes,
    )


async def timed(steps: Sequence[Step]) -> list[float]:
    """Seconds of each step, one after another."""
    taken = []
    for step in steps:
        began = time.perf_counter()
        await step()
        taken.append(time.perf_counter() - began)
    return taken


async def langgraph_ms(runs: int) -> float:
    """A superstep of an agent on InMemorySaver: what LangGraph itself takes."""
    steps = await supersteps(InMemorySaver(), "profile", runs * RUNS_SHARE)
    return statistics.median(await timed(steps)) * 1e3 / SUPERSTEPS


async def crowd(name: str, options: argparse.Namespace, directory: Path) -> dict[str, Any]:
    """32 clients at once on a router with a sampler inside; what both processes did."""
    from checkpoint_router import RouterSaver
    from checkpoint_router.testing import running_router

    samples = directory / f"{uuid4().hex}.json"
    here = Path(__file__).parent
    paths = [str(here / "sampled"), str(here.parent), os.environ.get("PYTHONPATH", "")]
    env = {"PYTHONPATH": os.pathsep.join(paths), "BENCHMARKS_SAMPLES": str(samples)}
    with running_router(storage=f"sqlite:{directory / uuid4().hex}", env=env) as router:
        async with RouterSaver(router.target) as saver:
            each = max(1, options.times // 4)
            clients = [await KINDS[name](saver, f"{name}-{c}", each) for c in range(CLIENTS)]
            own = Sampler()
            own.start()
            os.kill(router.pid, signal.SIGUSR1)
            began = time.perf_counter()
            await asyncio.gather(*(timed(steps) for steps in clients))
            seconds = time.perf_counter() - began
            os.kill(router.pid, signal.SIGUSR1)
            own.stop()
            calls = CLIENTS * each
            return {
                "calls": calls,
                "seconds": seconds,
                "client": own.document(),
                "router": wait_for(samples),
            }


def peel_table(peeled: dict[str, Peeled], langgraph: float, fsync: float) -> Table:
    """One column a kind of call."""
    table = Table(title="Where the time of one call goes, microseconds (one client)")
    table.add_column("")
    for name in peeled:
        table.add_column(name, justify="right")
    for layer in (*LAYERS, LINK):
        table.add_row(layer, *(f"{p.layers_ms[layer] * 1e3:,.0f}" for p in peeled.values()))
    table.add_section()
    table.add_row("all of it", *(f"{p.total_ms * 1e3:,.0f}" for p in peeled.values()))
    table.add_section()
    calls = [one for name, one in peeled.items() if name != SUPERSTEP]
    table.add_row("a bare gRPC echo of it", *(f"{p.echo_ms * 1e3:,.0f}" for p in calls))
    sizes = (f"{p.request_bytes:,} / {p.answer_bytes:,}" for p in calls)
    table.add_row("bytes there / back", *sizes)
    table.caption = (
        f"load average {os.getloadavg()[0]:.1f}; a busy machine shows mostly in the link, where "
        "processes wait for a core, and a link below 0 says that the disk was too uneven: run it "
        f"again. One fdatasync of 4 KB on this disk: {fsync * 1e3:,.0f}. "
        f"A superstep on InMemorySaver: {langgraph * 1e3:,.0f}"
    )
    return table


def crowd_tables(name: str, found: dict[str, Any], functions: int) -> list[Table]:
    """CPU time by thread, and the functions that it goes to."""
    calls, seconds = found["calls"], found["seconds"]
    threads = Table(
        title=f"{name}, {CLIENTS} clients: {calls / seconds:,.0f} a second, "
        f"{seconds / calls * 1e6:,.0f} microseconds each"
    )
    for column in ("process", "thread", "CPU microseconds a call", "share of a core"):
        threads.add_column(column, justify="left" if len(column) < 8 else "right")
    tables = [threads]
    for process in ("client", "router"):
        document = found[process]
        cpu = sorted(document["cpu_seconds"].items(), key=lambda each: -each[1])
        for thread, used in cpu[:6]:
            if thread == "sampler":
                continue
            share = f"{used / seconds:.0%}"
            threads.add_row(process, thread, f"{used / calls * 1e6:,.0f}", share)
        tables.append(_functions(process, document, functions))
    return tables


def _functions(process: str, document: dict[str, Any], functions: int) -> Table:
    """Shares are of one thread's samples: threads that wait for each other are sampled alike."""
    table = Table(title=f"{process}: where each thread was seen, as a share of its own samples")
    for column in ("thread", "share", "our innermost function", "share", "innermost of all"):
        table.add_column(column, overflow="fold")
    cpu = document["cpu_seconds"]
    for thread in sorted(cpu, key=lambda name: -cpu[name]):
        ours, leaves = (
            [(place, count) for name, place, count in document[kind] if name == thread]
            for kind in ("owners", "leaves")
        )
        if not ours or cpu[thread] < max(cpu.values()) / 20:
            continue
        left, right = (sum(count for _, count in rows) for rows in (ours, leaves))
        for mine, leaf in zip(ours[:functions], leaves[:functions], strict=False):
            own, any_ = f"{mine[1] / left:.0%}", f"{leaf[1] / right:.0%}"
            named = mine[0].removeprefix("checkpoint_router/")
            table.add_row(thread, own, named, any_, leaf[0])
        table.add_section()
    return table


async def main_async(options: argparse.Namespace, directory: Path, console: Console) -> None:
    """Take and show everything."""
    peeled = await peel(options, directory)
    memory = await langgraph_ms(options.runs)
    console.print(peel_table(peeled, memory, fsync_ms(directory)))
    for name in KINDS:
        for table in crowd_tables(name, await crowd(name, options, directory), options.functions):
            console.print(table)


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile", description=__doc__)
    parser.add_argument("--times", type=int, default=400, help="calls of each kind")
    parser.add_argument("--runs", type=int, default=20, help="of an agent")
    parser.add_argument("--functions", type=int, default=FUNCTIONS_SHOWN, help="to be shown")
    parser.add_argument("--dir", type=Path, help="a directory on the disk to be used")
    parser.add_argument("--width", type=int, help="of the tables, in characters")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="router-profile-", dir=options.dir) as name:
        asyncio.run(main_async(options, Path(name), Console(width=options.width)))


if __name__ == "__main__":
    main()
