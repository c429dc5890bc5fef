"""One agent under load: `python -m tests.probe.load TARGET LOG HALF NUMBER`.

Writes threads of its own through the sync or the async half, and notes each call that was
acknowledged in LOG, one JSON line each, until its standard input is closed. Every value is derived
from its name, so that a reader can tell byte for byte what must be there.
"""

import asyncio
import json
import os
import sys
from hashlib import blake2b
from pathlib import Path
from typing import Any

from langgraph.checkpoint.base import Checkpoint, empty_checkpoint, uuid6

from checkpoint_router import RouterSaver
from checkpoint_router.core import limits

CHECKPOINTS_PER_THREAD = 12
PATIENCE_SECONDS = 90.0
"""Longer than any outage that a test makes."""

CACHES = (limits.CACHE_BYTES_DEFAULT, 0, 64 * limits.KIB)
"""Of the agents' savers, in turns: the usual one, none, and one that always makes room."""


def bytes_of(name: str, size: int) -> bytes:
    """`size` bytes that only `name` has."""
    block = blake2b(name.encode()).digest()
    return (block * (size // len(block) + 1))[:size]


def checkpoint_of(thread: str, step: int, id: str) -> Checkpoint:
    """The checkpoint that `thread` has at `step`: a list that grows, and bytes of its own."""
    version = f"{step + 1:032}.5"
    checkpoint = empty_checkpoint()
    checkpoint["id"] = id
    checkpoint["ts"] = "2026-01-01T00:00:00+00:00"
    checkpoint["channel_values"] = {
        "messages": [f"{thread} said {i} " + "x" * 200 for i in range(step + 1)],
        "own": bytes_of(f"{thread}/{step}", 3000),
    }
    checkpoint["channel_versions"] = {"messages": version, "own": version}
    return checkpoint


def write_of(thread: str, step: int, task: int) -> bytes:
    """What a task of that step wrote."""
    return bytes_of(f"{thread}/{step}/{task}", 2500)


async def drive(saver: RouterSaver, log: Path, half: str, number: int) -> None:
    """Writes until standard input ends."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin.fileno(), stopped.set)
    count = 0
    with log.open("a", buffering=1) as out:
        while not stopped.is_set():
            await one_thread(saver, out, half, f"agent{number}-{os.getpid()}-{count}", stopped)
            count += 1
    loop.remove_reader(sys.stdin.fileno())


async def one_thread(
    saver: RouterSaver, out: Any, half: str, thread: str, stopped: asyncio.Event
) -> None:
    """A thread of checkpoints, each with the writes of two tasks beside it."""

    async def call(name: str, *args: Any) -> Any:
        if half == "sync":
            return await asyncio.to_thread(getattr(saver, name), *args)
        return await getattr(saver, "a" + name)(*args)

    config: Any = {"configurable": {"thread_id": thread, "checkpoint_ns": ""}}
    parent = None
    for step in range(CHECKPOINTS_PER_THREAD):
        if stopped.is_set():
            return
        checkpoint = checkpoint_of(thread, step, str(uuid6(clock_seq=step)))
        versions = checkpoint["channel_versions"]
        config = await call("put", config, checkpoint, {"source": "loop", "step": step}, versions)
        out.write(json.dumps(["put", thread, step, checkpoint["id"], parent]) + "\n")
        parent = checkpoint["id"]

        async def write(task: int, at: Any = config, step: int = step, id: str = parent) -> None:
            value = write_of(thread, step, task)
            await call("put_writes", at, [("out", value), ("out", task)], f"task-{task}")
            out.write(json.dumps(["writes", thread, step, id, task]) + "\n")

        await asyncio.gather(write(1), write(2))


def main() -> None:
    target, log, half, number = sys.argv[1:]
    size = CACHES[int(number) // 2 % len(CACHES)]
    saver = RouterSaver(target, tenant="load", timeout_seconds=PATIENCE_SECONDS, cache_bytes=size)
    asyncio.run(drive(saver, Path(log), half, int(number)))


if __name__ == "__main__":
    main()
