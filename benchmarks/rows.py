"""What is measured: one function a row, each gives one number for one saver in one round.

Rules: everything that a row stores is built before its clock starts, and every row uses threads of
its own, named by `thread`, so that no round profits from the one before. A coroutine here waits
for its saver alone, so that it serves for savers that block, too.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

from langchain_core.runnables import RunnableConfig

from benchmarks.graphs import SUPERSTEPS, fanning_agent, run_config, talking_agent
from benchmarks.peers import Peer
from benchmarks.values import Chain, config_of, conversation, task_writes

CLIENTS: Final = 32
MESSAGES: Final = 50
LISTED: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How much one row does in one round."""

    alone: int
    """Calls one after another; the row gives their median."""

    each: int
    """Calls of each of the 32 clients."""

    runs: int
    """Runs of an agent one after another."""


Measure = Callable[[Peer, Scale, str], Coroutine[Any, Any, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table."""

    name: str
    unit: str
    """`ms` (less is better) or something a second (more is better)."""

    measure: Measure
    many_clients: bool = False


async def put_alone(peer: Peer, scale: Scale, thread: str) -> float:
    """`aput` of 4 KB in three new channels, the next when the last was answered."""
    saver, config = peer.saver_of(0), config_of(thread)
    times = []
    for checkpoint, metadata, new in Chain(saver).ahead(scale.alone):
        began = time.perf_counter()
        config = await saver.aput(config, checkpoint, metadata, new)
        times.append(time.perf_counter() - began)
    return milliseconds(times)


async def put_many(peer: Peer, scale: Scale, thread: str) -> float:
    """The same from 32 clients, each with a thread of its own."""
    chains = [Chain(peer.saver_of(c)).ahead(scale.each) for c in range(CLIENTS)]

    async def client(number: int) -> None:
        saver, config = peer.saver_of(number), config_of(f"{thread}-{number}")
        for checkpoint, metadata, new in chains[number]:
            config = await saver.aput(config, checkpoint, metadata, new)

    return await per_second(peer, client, CLIENTS * scale.each)


async def put_writes_alone(peer: Peer, scale: Scale, thread: str) -> float:
    """`aput_writes` of one finished task, two channels, 1 KB."""
    saver = peer.saver_of(0)
    config = await one_checkpoint(saver, thread)
    times = []
    for index in range(scale.alone):
        writes, task = task_writes(index), str(uuid4())
        began = time.perf_counter()
        await saver.aput_writes(config, writes, task)
        times.append(time.perf_counter() - began)
    return milliseconds(times)


async def put_writes_many(peer: Peer, scale: Scale, thread: str) -> float:
    """The same from 32 clients, each on a checkpoint of its own."""
    configs = [await one_checkpoint(peer.saver_of(c), f"{thread}-{c}") for c in range(CLIENTS)]
    writes = [(task_writes(index), str(uuid4())) for index in range(scale.each)]

    async def client(number: int) -> None:
        saver = peer.saver_of(number)
        for values, task in writes:
            await saver.aput_writes(configs[number], values, task)

    return await per_second(peer, client, CLIENTS * scale.each)


async def get_latest_alone(peer: Peer, scale: Scale, thread: str) -> float:
    """`aget_tuple` of the newest checkpoint, 50 messages of 512 B."""
    saver = peer.saver_of(0)
    await a_conversation(saver, thread)
    times = []
    for _ in range(scale.alone):
        began = time.perf_counter()
        await saver.aget_tuple(config_of(thread))
        times.append(time.perf_counter() - began)
    return milliseconds(times)


async def get_latest_many(peer: Peer, scale: Scale, thread: str) -> float:
    """The same from 32 clients, each its own thread."""
    for number in range(CLIENTS):
        await a_conversation(peer.saver_of(number), f"{thread}-{number}")

    async def client(number: int) -> None:
        saver = peer.saver_of(number)
        for _ in range(scale.each):
            await saver.aget_tuple(config_of(f"{thread}-{number}"))

    return await per_second(peer, client, CLIENTS * scale.each)


async def list_ten(peer: Peer, scale: Scale, thread: str) -> float:
    """`alist` with limit 10, of a thread of 20 checkpoints of 4 KB."""
    saver, config = peer.saver_of(0), config_of(thread)
    for checkpoint, metadata, new in Chain(saver).ahead(2 * LISTED):
        config = await saver.aput(config, checkpoint, metadata, new)
    times = []
    for _ in range(max(1, scale.alone // 4)):
        began = time.perf_counter()
        found = [one async for one in saver.alist(config_of(thread), limit=LISTED)]
        times.append(time.perf_counter() - began)
        if len(found) != LISTED:
            raise LookupError(f"{peer.name} listed {len(found)} of {LISTED} checkpoints")
    return milliseconds(times)


async def superstep_alone(peer: Peer, scale: Scale, thread: str) -> float:
    """A run of 6 supersteps through LangGraph, durability `async`; time of a run through 6."""
    agent, times = talking_agent(peer, 0), []
    for index in range(scale.runs):
        began = time.perf_counter()
        await peer.run(agent, {"messages": []}, run_config(f"{thread}-{index}"))
        times.append((time.perf_counter() - began) / SUPERSTEPS)
    return milliseconds(times)


async def superstep_many(peer: Peer, scale: Scale, thread: str) -> float:
    """32 such runs at once."""
    agents = [talking_agent(peer, number) for number in range(CLIENTS)]

    async def client(number: int) -> None:
        await peer.run(agents[number], {"messages": []}, run_config(f"{thread}-{number}"))

    return await per_second(peer, client, CLIENTS * SUPERSTEPS)


async def parallel_superstep(peer: Peer, scale: Scale, thread: str) -> float:
    """A run whose one superstep has 50 tasks."""
    agent, times = fanning_agent(peer), []
    for index in range(scale.runs):
        began = time.perf_counter()
        await peer.run(agent, {"results": []}, run_config(f"{thread}-{index}"))
        times.append(time.perf_counter() - began)
    return milliseconds(times)


async def one_checkpoint(saver: Any, thread: str) -> RunnableConfig:
    """A thread with one checkpoint of the usual size; gives the config that names it."""
    ((checkpoint, metadata, new),) = Chain(saver).ahead(1)
    config: RunnableConfig = await saver.aput(config_of(thread), checkpoint, metadata, new)
    return config


async def a_conversation(saver: Any, thread: str) -> dict[str, Any]:
    """A thread whose newest checkpoint has 50 messages; gives its channel values."""
    values = {"messages": conversation(MESSAGES)}
    await saver.aput(config_of(thread), *Chain(saver).checkpoint(values, ("messages",)))
    return values


async def per_second(
    peer: Peer, client: Callable[[int], Coroutine[Any, Any, None]], calls: int
) -> float:
    """The rate of all clients together."""
    began = time.perf_counter()
    await peer.together(client, CLIENTS)
    return calls / (time.perf_counter() - began)


def milliseconds(times: list[float]) -> float:
    """The median."""
    return statistics.median(times) * 1_000


PUT: Final = "put alone, p50"
PUT_MANY: Final = "put, 32 clients"
WRITES: Final = "put_writes alone, p50"
WRITES_MANY: Final = "put_writes, 32 clients"
GET: Final = "get_latest alone, 50 messages, p50"
GET_MANY: Final = "get_latest, 32 clients"
LIST: Final = "list of 10, p50"
STEP: Final = "superstep of an agent"
STEP_MANY: Final = "supersteps, 32 runs"
FAN: Final = "superstep of 50 parallel tasks"

ROWS: Final = (
    Row(name=PUT, unit="ms", measure=put_alone),
    Row(name=PUT_MANY, unit="puts/s", measure=put_many, many_clients=True),
    Row(name=WRITES, unit="ms", measure=put_writes_alone),
    Row(name=WRITES_MANY, unit="calls/s", measure=put_writes_many, many_clients=True),
    Row(name=GET, unit="ms", measure=get_latest_alone),
    Row(name=GET_MANY, unit="gets/s", measure=get_latest_many, many_clients=True),
    Row(name=LIST, unit="ms", measure=list_ten),
    Row(name=STEP, unit="ms", measure=superstep_alone),
    Row(name=STEP_MANY, unit="steps/s", measure=superstep_many, many_clients=True),
    Row(name=FAN, unit="ms", measure=parallel_superstep),
)
