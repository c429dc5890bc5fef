"""`RouterSaver`: a LangGraph checkpointer whose checkpoints live behind a router.

Owner of the state: links, sessions and cache, shared by all clones of a saver; the
serialiser is each clone's own and is looked up at every call. The sync and the async half drive
the same operations, each with links of its own, and neither ever waits for the other.
"""

import random
from collections.abc import (
    AsyncIterator,
    Coroutine,
    Iterator,
    Mapping,
    Sequence,
)
from typing import Any, Self, TypeVar

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
)
from langgraph.checkpoint.serde.base import SerializerProtocol

from checkpoint_router.client.cache import Cache
from checkpoint_router.client.gathering import Turn
from checkpoint_router.client.links import Links, check_process
from checkpoint_router.client.listing import Listing
from checkpoint_router.client.operations import Call, Operation, Step
from checkpoint_router.client.reading import Reading
from checkpoint_router.client.sessions import Sessions
from checkpoint_router.client.target import Target
from checkpoint_router.client.writing import Writing
from checkpoint_router.core import limits

T = TypeVar("T")


class RouterSaver(BaseCheckpointSaver[str]):
    """Stores a graph's checkpoints behind one or several routers.

    ```python
    graph = builder.compile(checkpointer=RouterSaver("router://127.0.0.1:7070"))
    ```

    The constructor does no IO and needs no event loop. One saver serves any number of workers and
    loops, sync and async at once: have one in a process, and close it. A checkpoint is durable in
    the router's storage when `put` has returned. Every call waits, reconnecting, up to
    `timeout_seconds`, then raises `DeadlineExceeded`; other errors are those of
    `checkpoint_router.core.errors`.
    """

    def __init__(
        self,
        target: str,
        *,
        tenant: str | None = None,
        serde: SerializerProtocol | None = None,
        timeout_seconds: float = limits.DEADLINE_SECONDS_DEFAULT,
        cache_bytes: int = limits.CACHE_BYTES_DEFAULT,
    ) -> None:
        """`target` is `router://host:port[,host:port…][?tenant=name]`; several addresses are
        routers of one system, over the same storage. A fresh tenant is a fresh, empty saver; the
        default one is named `default`. Up to `cache_bytes` of values stay in this process, so that
        only what is new of them travels; 0 keeps none."""
        super().__init__(serde=serde)
        parsed = Target.parse(target)
        self._links = Links(parsed)
        self._reading = Reading(tenant or parsed.tenant or "default", Sessions(Cache(cache_bytes)))
        self._writing = Writing(self._reading)
        self._timeout_seconds = timeout_seconds

    @classmethod
    def from_conn_string(cls, conn_string: str, **options: Any) -> Self:
        """The same as the constructor: a saver that works bare and as a context manager."""
        return cls(conn_string, **options)

    @property
    def tenant(self) -> str:
        """Whose threads these are."""
        return self._reading.tenant

    # Life cycle -----------------------------------------------------------------------

    def setup(self) -> None:
        """Checks that a router answers. There is no schema to make: the router owns it."""
        self.get_tuple({"configurable": {"thread_id": "checkpoint-router-setup"}})

    async def asetup(self) -> None:
        """As `setup`."""
        await self.aget_tuple({"configurable": {"thread_id": "checkpoint-router-setup"}})

    def close(self) -> None:
        """Closes the links, for all clones. Idempotent."""
        self._links.close()

    async def aclose(self) -> None:
        """As `close`."""
        await self._links.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self.aclose()

    # The sync half --------------------------------------------------------------------

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The newest checkpoint of the config's namespace, or exactly the one it names."""
        return self._drive(self._reading.get_tuple(self.serde, config))

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """Checkpoints, greatest id first, over every namespace that the config does not exclude;
        over every thread of the tenant without a config. Asked for page by page."""
        listing = Listing(self._reading, self.serde, config, filter, before, limit)

        def pages() -> Iterator[CheckpointTuple]:
            while (page := self._drive(listing.next_page())) is not None:
                yield from page

        return pages()

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Stores a checkpoint. Durable on return; what it returns bears the causal token."""
        return self._drive(
            self._writing.put(self.serde, config, checkpoint, metadata, new_versions)
        )

    def put_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """Stores a task's writes, also before their checkpoint. Durable on return."""
        self._drive(
            self._writing.put_writes(self.serde, config, writes, task_id, task_path, by_task=False)
        )

    def delete_thread(self, thread_id: str) -> None:
        """Deletes all of a thread; runs that are under way there get `ThreadDeleted`."""
        self._drive(self._writing.delete_thread(thread_id))

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Removes the checkpoints, with their writes, whose metadata names one of the runs."""
        self._drive(self._writing.delete_for_runs(run_ids))

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copies a thread: every namespace, checkpoint and write."""
        self._drive(self._writing.copy_thread(source_thread_id, target_thread_id))

    def prune(
        self,
        thread_ids: Sequence[str],
        *,
        strategy: str = "keep_latest",
    ) -> None:
        """Keeps each namespace's newest checkpoint and what it is rebuilt from, or nothing."""
        self._drive(self._writing.prune(thread_ids, strategy))

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """What each delta channel is rebuilt from, in one call to the router."""
        return self._drive(self._reading.delta_history(self.serde, config, channels))

    # The async half -------------------------------------------------------------------
    # Plain functions that return coroutines: values are serialised when the saver is called.

    def aget_tuple(self, config: RunnableConfig) -> Coroutine[Any, Any, CheckpointTuple | None]:
        """As `get_tuple`."""
        return self._adrive(self._reading.get_tuple(self.serde, config))

    def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """As `list`."""
        listing = Listing(self._reading, self.serde, config, filter, before, limit)

        async def pages() -> AsyncIterator[CheckpointTuple]:
            while (page := await self._adrive(listing.next_page())) is not None:
                for found in page:
                    yield found

        return pages()

    def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> Coroutine[Any, Any, RunnableConfig]:
        """As `put`."""
        return self._adrive(
            self._writing.put(self.serde, config, checkpoint, metadata, new_versions)
        )

    def aput_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> Coroutine[Any, Any, None]:
        """As `put_writes`."""
        return self._adrive(
            self._writing.put_writes(self.serde, config, writes, task_id, task_path, by_task=True)
        )

    async def adelete_thread(self, thread_id: str) -> None:
        """As `delete_thread`."""
        await self._adrive(self._writing.delete_thread(thread_id))

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """As `delete_for_runs`."""
        await self._adrive(self._writing.delete_for_runs(run_ids))

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """As `copy_thread`."""
        await self._adrive(self._writing.copy_thread(source_thread_id, target_thread_id))

    async def aprune(
        self,
        thread_ids: Sequence[str],
        *,
        strategy: str = "keep_latest",
    ) -> None:
        """As `prune`."""
        await self._adrive(self._writing.prune(thread_ids, strategy))

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """As `get_delta_channel_history`."""
        return await self._adrive(self._reading.delta_history(self.serde, config, channels))

    # ----------------------------------------------------------------------------------

    def get_next_version(self, current: str | float | None, channel: None) -> str:
        """A version above `current` that no other branch will ever make: a counter orders, a
        random part tells branches apart. Continues threads begun under other savers."""
        count = 0
        if isinstance(current, str):
            count = int(current.split(".", 1)[0])
        elif current is not None:
            count = int(current)
        # Each version is repeated in every later checkpoint, where it was seen and where it is, so
        # it is short; after the many zeros of a thread begun elsewhere it still is the greater one.
        apart = int(random.random() * 1e10)  # noqa: S311 # tells apart, hides nothing
        return f"{count + 1:010}.{apart:010}"

    def _drive(self, operation: Operation[T]) -> T:
        check_process()
        try:
            step = next(operation)
            while True:
                try:
                    answer = self._bring(step)
                except BaseException as e:  # noqa: BLE001 # the operation decides what it means
                    step = operation.throw(e)
                else:
                    step = operation.send(answer)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]  # an Operation[T] ends with a T

    def _bring(self, step: Step) -> Any:
        if isinstance(step, Call):
            return self._links.call(
                step.name, step.request, timeout_seconds=self._timeout_seconds,
                waited_seconds=step.waited_seconds, meanwhile=step.meanwhile,
            )  # fmt: skip
        return step.wait() if isinstance(step, Turn) else None

    def _adrive(self, operation: Operation[T]) -> Coroutine[Any, Any, T]:
        """Runs the operation up to its first call now, the rest when it is awaited."""
        try:
            check_process()
            step: Step | Exception = next(operation)
        except Exception as e:  # noqa: BLE001 # raised when awaited, as by a coroutine function
            step = e
        return self._rest(operation, step)

    async def _rest(self, operation: Operation[T], step: Step | Exception) -> T:
        seconds = self._timeout_seconds
        try:
            if isinstance(step, Exception):
                raise step
            while True:
                try:
                    if isinstance(step, Call):
                        answer = await self._links.acall(
                            step.name, step.request, timeout_seconds=seconds,
                            waited_seconds=step.waited_seconds, meanwhile=step.meanwhile,
                        )  # fmt: skip
                    else:
                        answer = (await step) if isinstance(step, Turn) else None
                except BaseException as e:  # noqa: BLE001 # the operation decides what it means
                    step = operation.throw(e)
                else:
                    step = operation.send(answer)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]  # an Operation[T] ends with a T
