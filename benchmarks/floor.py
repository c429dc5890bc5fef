"""The floor: the least that a saver behind a gRPC server can do in Python on this machine.

It serialises each value once, sends it on one stream in the fewest bytes, stores it with all that
came in the same frame in one transaction, and answers. It keeps what it is given and gives it back
(the comparison verifies that), and promises nothing else: no causality, no retries, no deadlines,
limits, tenants, deletes, errors or cache, no thread beside the loop. What a saver of that shape
costs above this is its promises; a goal below this cannot be had with it.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
)

from benchmarks.echo import serving
from benchmarks.floor_server import ANSWERS, METHOD, Found, Get, Put, Record, Write, pack
from benchmarks.peers import Opener, Peer, versions
from benchmarks.servers import Place, Storage


class FloorSaver(BaseCheckpointSaver[int]):
    """The saver: root namespace only, one loop."""

    def __init__(self, call: Any) -> None:
        super().__init__()
        self._call = call
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[list[Found]]] = {}
        self._ready: list[Put | Write | Get] = []
        self._more = asyncio.Event()
        self.tasks = [asyncio.create_task(work()) for work in (self._read, self._send)]

    async def _read(self) -> None:
        while (answers := await self._call.read()) is not grpc.aio.EOF:
            for call, found in ANSWERS.decode(answers):
                self._waiting.pop(call).set_result(found)

    async def _send(self) -> None:
        while True:
            if not self._ready:
                self._more.clear()
                await self._more.wait()
            ready, self._ready = self._ready, []
            await self._call.write(pack(ready))

    async def _ask(self, call: Put | Write | Get) -> list[Found]:
        waiter = asyncio.get_running_loop().create_future()
        self._waiting[call.call] = waiter
        self._ready.append(call)
        self._more.set()
        found: list[Found] = await waiter
        return found

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        named, dump = config["configurable"], self.serde.dumps_typed
        values = checkpoint["channel_values"]
        keys = {name: f"{name} {v}" for name, v in checkpoint["channel_versions"].items()}
        body = dump(({**checkpoint, "channel_values": {}}, metadata))
        parent = named.get("checkpoint_id") or ""
        record = Record(checkpoint["id"], parent, body, [keys[name] for name in values])
        new = [(keys[name], *dump(values[name])) for name in new_versions if name in values]
        await self._ask(Put(next(self._ids), named["thread_id"], record, new))
        return _config(named["thread_id"], checkpoint["id"])

    async def aput_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        named = config["configurable"]
        rows = [(name, *self.serde.dumps_typed(value)) for name, value in writes]
        call = next(self._ids)
        await self._ask(Write(call, named["thread_id"], named["checkpoint_id"], task_id, rows))

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        named = config["configurable"]
        thread, name = named["thread_id"], named.get("checkpoint_id") or ""
        found = await self._ask(Get(next(self._ids), thread, name, 1))
        return self._tuple(thread, found[0]) if found else None

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        assert config is not None
        assert limit is not None
        thread = config["configurable"]["thread_id"]
        for one in await self._ask(Get(next(self._ids), thread, "", limit)):
            yield self._tuple(thread, one)

    def _tuple(self, thread: str, found: Found) -> CheckpointTuple:
        record, values, writes = found
        load = self.serde.loads_typed
        checkpoint, metadata = load(record.body)
        checkpoint["channel_values"] = {
            key.rpartition(" ")[0]: load((tag, data)) for key, tag, data in values
        }
        return CheckpointTuple(
            config=_config(thread, record.name),
            checkpoint=checkpoint,
            metadata=metadata,
            parent_config=_config(thread, record.parent) if record.parent else None,
            pending_writes=[
                (task, name, load((tag, data))) for task, rows in writes for name, tag, data in rows
            ],
        )


def _config(thread: str, name: str) -> RunnableConfig:
    return {"configurable": {"thread_id": thread, "checkpoint_ns": "", "checkpoint_id": name}}


def floor(name: str, storage: Callable[[Place], Storage]) -> Opener:
    """Opens it, on a server process of its own before that storage."""

    @asynccontextmanager
    async def opened(place: Place) -> AsyncIterator[Peer]:
        where = storage(place)
        with serving("benchmarks.floor_server", where.url) as port:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                call: Any = channel.stream_stream(METHOD)()
                saver = FloorSaver(call)
                yield Peer(
                    name=name,
                    promise="no promise but that of its storage: what could be saved at the most",
                    savers=lambda client: saver,
                    versions=versions("grpcio"),
                    stored=where.stored,
                    stored_is_cheap=where.stored_is_cheap,
                )
                for task in saver.tasks:
                    task.cancel()
                await asyncio.gather(*saver.tasks, return_exceptions=True)

    return opened
