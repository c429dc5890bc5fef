"""One way to call a saver for both of its halves.

A test body is written once, as a coroutine. `Calls` turns each call into the async method on the
test's own loop, or into the sync method in a worker thread, so neither half can be forgotten.
`Runs` does the same for a compiled graph.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointTuple,
    DeltaChannelHistory,
)

Flavour = Literal["sync", "async"]
FLAVOURS: tuple[Flavour, ...] = ("sync", "async")

METHODS = (
    "get_tuple",
    "list",
    "put",
    "put_writes",
    "delete_thread",
    "delete_for_runs",
    "copy_thread",
    "prune",
    "get_delta_channel_history",
)
"""Every I/O method of the contract; the async twin of each is named with an `a` in front."""


class Calls:
    """A saver, called through one of its halves."""

    def __init__(self, saver: BaseCheckpointSaver[Any], flavour: Flavour) -> None:
        self.saver = saver
        self.flavour = flavour

    async def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Calls `method` or its async twin; `list` has a way of its own below."""
        if self.flavour == "async":
            return await getattr(self.saver, "a" + method)(*args, **kwargs)
        return await asyncio.to_thread(getattr(self.saver, method), *args, **kwargs)

    async def get_tuple(self, config: Mapping[str, Any]) -> CheckpointTuple | None:
        found: CheckpointTuple | None = await self.call("get_tuple", config)
        return found

    async def read(self, config: Mapping[str, Any]) -> CheckpointTuple:
        """As `get_tuple`, for a test in which something must be there."""
        found = await self.get_tuple(config)
        assert found is not None, f"nothing is stored under {config}"
        return found

    async def list(self, config: Mapping[str, Any] | None, **kwargs: Any) -> list[CheckpointTuple]:
        """The whole list, consumed in the half that makes it."""
        if self.flavour == "async":
            return [found async for found in self.saver.alist(config, **kwargs)]  # type: ignore[arg-type]
        return await asyncio.to_thread(lambda: list(self.saver.list(config, **kwargs)))  # type: ignore[arg-type]

    async def put(
        self,
        config: Mapping[str, Any],
        checkpoint: Checkpoint,
        metadata: Mapping[str, Any],
        new_versions: ChannelVersions,
    ) -> dict[str, Any]:
        stored: dict[str, Any] = await self.call("put", config, checkpoint, metadata, new_versions)
        return stored

    async def put_writes(
        self,
        config: Mapping[str, Any],
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        await self.call("put_writes", config, writes, task_id, task_path=task_path)

    async def delete_thread(self, thread_id: str) -> None:
        await self.call("delete_thread", thread_id)

    async def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        await self.call("delete_for_runs", run_ids)

    async def copy_thread(self, source: str, target: str) -> None:
        await self.call("copy_thread", source, target)

    async def prune(self, thread_ids: Sequence[str], **kwargs: Any) -> None:
        await self.call("prune", thread_ids, **kwargs)

    async def delta_history(
        self, config: Mapping[str, Any], channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        found: Mapping[str, DeltaChannelHistory] = await self.call(
            "get_delta_channel_history", config=config, channels=channels
        )
        return found


class Runs:
    """A compiled graph, run through one half of the API (and so through that half of its saver)."""

    def __init__(self, graph: Any, flavour: Flavour) -> None:
        self.graph = graph
        self.flavour = flavour

    async def _call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        if self.flavour == "async":
            return await getattr(self.graph, "a" + method)(*args, **kwargs)
        return await asyncio.to_thread(getattr(self.graph, method), *args, **kwargs)

    async def invoke(self, *args: Any, **kwargs: Any) -> Any:
        return await self._call("invoke", *args, **kwargs)

    async def get_state(self, *args: Any, **kwargs: Any) -> Any:
        return await self._call("get_state", *args, **kwargs)

    async def update_state(self, *args: Any, **kwargs: Any) -> Any:
        return await self._call("update_state", *args, **kwargs)

    async def bulk_update_state(self, *args: Any, **kwargs: Any) -> Any:
        return await self._call("bulk_update_state", *args, **kwargs)

    async def stream(
        self, *args: Any, on_chunk: Callable[[Any], None] = lambda chunk: None, **kwargs: Any
    ) -> list[Any]:
        """All chunks; each is given to `on_chunk` while the graph is still running."""
        chunks: list[Any] = []

        def take(chunk: Any) -> None:
            on_chunk(chunk)
            chunks.append(chunk)

        def run() -> None:
            for chunk in self.graph.stream(*args, **kwargs):
                take(chunk)

        if self.flavour == "async":
            async for chunk in self.graph.astream(*args, **kwargs):
                take(chunk)
        else:
            await asyncio.to_thread(run)
        return chunks

    async def history(self, *args: Any, **kwargs: Any) -> list[Any]:
        if self.flavour == "async":
            return [state async for state in self.graph.aget_state_history(*args, **kwargs)]
        return await asyncio.to_thread(lambda: list(self.graph.get_state_history(*args, **kwargs)))
