"""Looks at what a saver gives back, before it is timed: a wrong answer is no fast answer."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from langgraph.checkpoint.base import CheckpointTuple

from benchmarks.graphs import (
    PARALLEL_TASKS,
    SUPERSTEPS,
    fanning_agent,
    run_config,
    talking_agent,
)
from benchmarks.peers import Peer
from benchmarks.rows import CLIENTS, LISTED, a_conversation, one_checkpoint
from benchmarks.values import Chain, config_of, message, task_writes

ACROSS = 5


class Mismatch(Exception):
    """A saver gave back something else than it was given."""


async def verify(peer: Peer) -> tuple[int, list[Mismatch]]:
    """Check each shape that will be timed: how many values were right, and what was not."""
    right, wrong = 0, []
    for check in (_chain, _writes, _conversation, _clients, _runs, _fan):
        try:
            right += await peer.drive(check(peer, f"verify-{check.__name__}"))
        except Mismatch as mismatch:
            wrong.append(mismatch)
    return right, wrong


async def _chain(peer: Peer, thread: str) -> int:
    saver, config, put = peer.saver_of(0), config_of(thread), []
    for checkpoint, metadata, new in Chain(saver).ahead(2 * LISTED):
        config = await saver.aput(config, checkpoint, metadata, new)
        put.append((checkpoint, metadata))
    found = [one async for one in saver.alist(config_of(thread), limit=LISTED)]
    expect(peer, "list of 10", len(found), LISTED)
    for one, (checkpoint, metadata) in zip(found, reversed(put[-LISTED:]), strict=True):
        expect_tuple(peer, "list", one, checkpoint, metadata)
    latest = await saver.aget_tuple(config_of(thread))
    expect_tuple(peer, "the latest", latest, *put[-1])
    oldest = {"thread_id": thread, "checkpoint_ns": "", "checkpoint_id": put[0][0]["id"]}
    first = await saver.aget_tuple({"configurable": oldest})
    expect_tuple(peer, "the first by id", first, *put[0])
    return LISTED + 2


async def _writes(peer: Peer, thread: str) -> int:
    saver = peer.saver_of(0)
    config = await one_checkpoint(saver, thread)
    given = {str(uuid4()): task_writes(index) for index in range(CLIENTS)}
    tasks = list(given)

    async def client(number: int) -> None:
        await saver.aput_writes(config, given[tasks[number]], tasks[number])

    await peer.together(client, CLIENTS)
    found = await saver.aget_tuple(config_of(thread))
    kept: dict[str, list[Any]] = {}
    for task, *write in (found.pending_writes if found else None) or []:
        # Each task's in their order; no saver says anything of the order of tasks.
        kept.setdefault(task, []).append(tuple(write))
    expect(peer, "pending writes of 32 tasks", len(kept), CLIENTS)
    expect(peer, "pending writes", kept, given)
    return 2 * CLIENTS


async def _conversation(peer: Peer, thread: str) -> int:
    values = await a_conversation(peer.saver_of(0), thread)
    found = await peer.saver_of(0).aget_tuple(config_of(thread))
    expect(peer, "50 messages", found and found.checkpoint["channel_values"], values)
    return 1


async def _clients(peer: Peer, thread: str) -> int:
    async def client(number: int) -> None:
        saver, config = peer.saver_of(number), config_of(f"{thread}-{number}")
        chain = Chain(saver).ahead(ACROSS, first=number)
        for checkpoint, metadata, new in chain:
            config = await saver.aput(config, checkpoint, metadata, new)
        latest = await saver.aget_tuple(config_of(f"{thread}-{number}"))
        expect_tuple(peer, f"client {number}", latest, *chain[-1][:2])

    await peer.together(client, CLIENTS)
    return CLIENTS


async def _runs(peer: Peer, thread: str) -> int:
    async def client(number: int) -> None:
        agent, config = talking_agent(peer, number), run_config(f"{thread}-{number}")
        await peer.run(agent, {"messages": []}, config)
        state = await peer.state(agent, config)
        expected = {"messages": [message(i) for i in range(SUPERSTEPS)], "count": SUPERSTEPS}
        expect(peer, "state after a run", state.values, expected)

    await peer.together(client, CLIENTS)
    return CLIENTS


async def _fan(peer: Peer, thread: str) -> int:
    agent, config = fanning_agent(peer), run_config(thread)
    await peer.run(agent, {"results": []}, config)
    state = await peer.state(agent, config)
    expected = [f"result {index}" for index in range(PARALLEL_TASKS)]
    expect(peer, "state after 50 tasks", state.values.get("results"), expected)
    return PARALLEL_TASKS


def expect_tuple(
    peer: Peer, what: str, found: CheckpointTuple | None, checkpoint: Any, metadata: Any
) -> None:
    """The same checkpoint and metadata as were put."""
    expect(peer, f"checkpoint ({what})", found and found.checkpoint, checkpoint)
    expect(peer, f"metadata ({what})", found and found.metadata, metadata)


def expect(peer: Peer, what: str, found: Any, expected: Any) -> None:
    """Equal, or a Mismatch that shows both."""
    if found != expected:
        raise Mismatch(
            f"{peer.name} gave back another {what} than it was given: "
            f"{str(found)[:200]} instead of {str(expected)[:200]}"
        )
