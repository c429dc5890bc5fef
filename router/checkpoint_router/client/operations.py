"""What each method of the saver does, once for the sync and the async half.

An operation is a generator: it yields calls (name, request), is sent the answers, and returns the
result. Whoever drives it does the IO. All up to the first yield happens when the saver is called,
so values are serialised, and the order of a run's calls is fixed, before anything is awaited.
"""

import os
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeVar

from google.protobuf.message import Message
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    ChannelVersions,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
)
from langgraph.checkpoint.base import Checkpoint as LangGraphCheckpoint
from langgraph.checkpoint.serde.base import SerializerProtocol

from checkpoint_router.client import encoding
from checkpoint_router.client.arguments import (
    checked_key,
    checked_list,
    checked_mapping,
    checked_writes,
    id_text,
    id_texts,
    optional_id,
)
from checkpoint_router.client.encoding import Encoded
from checkpoint_router.client.sessions import Run, Sessions
from checkpoint_router.core import limits
from checkpoint_router.core.answers import (
    CheckpointTuple as Found,
)
from checkpoint_router.core.answers import (
    DeltaAnswer,
    NewBlob,
    PruneStrategy,
    ReadAnswer,
)
from checkpoint_router.core.digests import event_digest
from checkpoint_router.core.errors import (
    DataLoss,
    InvalidArgument,
    LimitExceeded,
    MissingId,
    Stale,
    ThreadDeleted,
    TokenInvalid,
    Unavailable,
)
from checkpoint_router.core.ids import ThreadKey, checked_id, checked_tenant
from checkpoint_router.core.records import (
    Blob,
    Checkpoint,
    Content,
    Event,
    Typed,
    Version,
    WriteSet,
    pack_event,
)
from checkpoint_router.v1 import checkpoint_service_pb2 as pb
from checkpoint_router.wire import answers, requests

T = TypeVar("T")

REQUEST_ID_BYTES = 16

_READS_MAX: Final = 10
"""Times that a thread is read whose values vanish each time before they are fetched."""

_USELESS: Final = (Stale, TokenInvalid)
"""Refusals of a token that no later try will change: its storage lost events, or is another one."""

_REFUSED: Final = (*_USELESS, ThreadDeleted, InvalidArgument, LimitExceeded)
"""Refusals after which it is certain that nothing was stored."""


class Call(NamedTuple):
    """One call to a router."""

    name: str
    request: Message


Operation = Generator[Call, Any, T]
"""Yields calls, is sent their answers, returns T."""


class Names(NamedTuple):
    """The ids of a config, checked."""

    thread: str
    ns: str
    checkpoint_id: str | None
    configurable: Mapping[str, Any]


class Operations:
    """The saver's methods over one tenant, without IO."""

    def __init__(self, tenant: str, sessions: Sessions) -> None:
        self.tenant = checked_tenant(tenant)
        self.sessions = sessions

    # Writing --------------------------------------------------------------------------

    def put(
        self,
        serde: SerializerProtocol,
        config: RunnableConfig,
        checkpoint: LangGraphCheckpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> Operation[RunnableConfig]:
        """Stores a checkpoint; returns its config, which bears the run."""
        names = names_of(config)
        whole = checked_mapping("the checkpoint", checkpoint)
        cid = checked_id("checkpoint id", checked_key("the checkpoint", whole, "id"))
        run = self._writer(names)

        def encode(known: Run | None) -> Encoded:
            def remembered(channel: str, version: Version) -> Content | None:
                return None if known is None else known.remembered(names.ns, channel, version)

            def previous(channel: str) -> bytes | None:
                return None if known is None else known.previous(names.ns, channel)

            return encoding.encode_checkpoint(
                serde, config, checkpoint, metadata, new_versions,
                parent_id=names.checkpoint_id, remembered=remembered, previous=previous,
            )  # fmt: skip

        encoded = encode(run)
        if run is None:
            run = yield from self._read_first(names)
        try:
            event = yield from self._store(run, names, cid, "", encoded, again=lambda: encode(None))
        except ThreadDeleted as refused:
            run = yield from self._anew(run, names, refused)
            event = yield from self._store(run, names, cid, "", encode(None), again=None)
        assert isinstance(event.content, Checkpoint)
        self._learn(run, names.ns, event.content)
        self.sessions.bind(run, names.ns, cid)
        return {
            "configurable": {
                "thread_id": run.carrier(),
                "checkpoint_ns": names.ns,
                "checkpoint_id": cid,
            }
        }

    def put_writes(
        self,
        serde: SerializerProtocol,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str,
    ) -> Operation[None]:
        """Stores one task's pending writes."""
        names = names_of(config)
        if names.checkpoint_id is None:
            raise MissingId(
                "put_writes needs config['configurable']['checkpoint_id']: the checkpoint to "
                "which the writes belong.",
                field="checkpoint_id",
            )
        checked_id("task_id", task_id, empty=True)
        if not checked_writes(writes):  # every write of the task went to an untracked channel
            return
        encoded = encoding.encode_writes(serde, writes, task_path)
        run = self._writer(names)
        if run is None:
            run = yield from self._read_first(names)
        try:
            yield from self._store(run, names, names.checkpoint_id, task_id, encoded, again=None)
        except ThreadDeleted as refused:
            run = yield from self._anew(run, names, refused)
            yield from self._store(run, names, names.checkpoint_id, task_id, encoded, again=None)
        self.sessions.bind(run, names.ns, names.checkpoint_id)

    def _writer(self, names: Names) -> Run | None:
        return self.sessions.run_of_write(
            names.thread, names.ns, names.checkpoint_id, names.configurable
        )

    def _read_first(self, names: Names) -> Operation[Run]:
        """A call without a token reads before it writes, so that it has one."""
        plain = names._replace(
            checkpoint_id=None, configurable={**names.configurable, "checkpoint_id": None}
        )
        memory = self.sessions.thread(names.thread)
        before = memory.last
        answer = yield from self._read(plain, with_blobs=False)
        # Another call that had to read first, meanwhile, has made the run of both.
        opened = memory.last
        if opened is None or opened is before or opened.by_id:
            opened = self._writer(names)
        if opened is not None:
            return opened
        return self.sessions.opened(names.thread, plain.configurable, answer.token, answer.clock)

    def _anew(self, run: Run, names: Names, refused: ThreadDeleted) -> Operation[Run]:
        """A new run for a write whose thread turned out to be deleted, if the old one was merely
        remembered here; a run of the caller's own is told."""
        if not self.sessions.merely_remembered(names.configurable):
            raise refused
        self.sessions.forget(names.thread, deleted_gen=run.gen)
        return (yield from self._read_first(names))

    def _store(
        self, run: Run, names: Names, cid: str, task_id: str, encoded: Encoded, *, again: Any
    ) -> Operation[Event]:
        event = run.event(names.ns, cid, task_id, encoded.content)
        thread = ThreadKey(self.tenant, names.thread)
        try:
            blobs = yield from self._sent_ahead(thread, run, encoded.blobs)
            answer = yield self._put(thread, event, blobs)
            missing = answer.missing
            if missing:
                have = {b.hash: b for b in encoded.blobs}
                if any(h not in have for h in missing):
                    if again is None:
                        raise _lost(missing)
                    run.forget_values()
                    # Other bytes are another event: the refused one was never stored.
                    return (yield from self._store(run, names, cid, task_id, again(), again=None))
                wanted = [have[h] for h in missing]
                blobs = yield from self._sent_ahead(thread, run, wanted)
                answer = yield self._put(thread, event, blobs)
                if answer.missing:
                    raise _lost(answer.missing)
        except BaseException as e:
            if not isinstance(e, _REFUSED):
                run.give_up(event.id)
            if isinstance(e, _USELESS) and self.sessions.merely_remembered(names.configurable):
                self.sessions.forget(names.thread)
            raise
        run.acknowledged(event.id, answers.clock_of(answer.clock))
        return event

    def _put(self, thread: ThreadKey, event: Event, blobs: Sequence[NewBlob]) -> Call:
        digest = event_digest(pack_event(event))
        if isinstance(event.content, WriteSet):
            writes = pb.PutWritesRequest()
            requests.fill_put(writes, thread, event, digest, blobs)
            return Call("put_writes", writes)
        put = pb.PutRequest()
        requests.fill_put(put, thread, event, digest, blobs)
        return Call("put", put)

    def _sent_ahead(
        self, thread: ThreadKey, run: Run, blobs: Sequence[NewBlob]
    ) -> Operation[Sequence[NewBlob]]:
        """Sends what does not fit one message before the put; returns what rides with it."""
        riding = list(blobs)
        size = sum(len(b.value.data) for b in riding)
        while size > limits.INLINE_BLOBS_BYTES_MAX:
            batch: list[NewBlob] = []
            room = limits.INLINE_BLOBS_BYTES_MAX
            while riding and (not batch or len(riding[-1].value.data) <= room):
                batch.append(riding.pop())
                room -= len(batch[-1].value.data)
            size -= sum(len(b.value.data) for b in batch)
            request = pb.PutBlobsRequest()
            requests.fill_put_blobs(request, thread, run.gen, batch)
            yield Call("put_blobs", request)
        return riding

    # Reading --------------------------------------------------------------------------

    def get_tuple(
        self, serde: SerializerProtocol, config: RunnableConfig
    ) -> Operation[CheckpointTuple | None]:
        """The newest checkpoint of a namespace, or exactly the one that the config names."""
        names = names_of(config)

        def once() -> Operation[tuple[ReadAnswer, dict[bytes, Typed]]]:
            answer = yield from self._read(names, with_blobs=True)
            found = () if answer.tuple is None else (answer.tuple,)
            return answer, (yield from self.complete(names.thread, found, dict(answer.blobs)))

        answer, blobs = yield from self.steadily(once)
        run = self.sessions.opened(names.thread, names.configurable, answer.token, answer.clock)
        return None if answer.tuple is None else self.shown(serde, run, answer.tuple, blobs)

    def delta_history(
        self, serde: SerializerProtocol, config: RunnableConfig, channels: Sequence[str]
    ) -> Operation[Mapping[str, DeltaChannelHistory]]:
        """What each delta channel is rebuilt from."""
        if not channels:
            return {}
        channels = [
            checked_id("channel", c, empty=True) for c in checked_list("channels", channels)
        ]
        names = names_of(config)
        run = self.sessions.run_of_read(names.thread, names.configurable)
        thread = ThreadKey(self.tenant, names.thread)
        request = pb.GetDeltaHistoryRequest()
        requests.fill_delta_history(
            request, thread, names.ns, names.checkpoint_id, channels,
            None if run is None else run.session(inside=True),
        )  # fmt: skip

        def once() -> Operation[tuple[DeltaAnswer, dict[bytes, Typed]]]:
            answer = answers.delta_answer_of((yield Call("get_delta_history", request)))
            contents = [w.content for h in answer.channels for w in h.writes]
            contents += [h.seed for h in answer.channels if h.seed is not None]
            return answer, (yield from self._fetched(names.thread, contents, dict(answer.blobs)))

        answer, blobs = yield from self.steadily(once)
        result: dict[str, DeltaChannelHistory] = {}
        for history in answer.channels:
            entry = DeltaChannelHistory(writes=encoding.decode_writes(serde, history.writes, blobs))
            if history.seed is not None:
                where = f"channel {history.channel!r}"
                entry["seed"] = encoding.decode_content(serde, history.seed, blobs, where)
            result[history.channel] = entry
        return result

    def _read(self, names: Names, *, with_blobs: bool) -> Operation[ReadAnswer]:
        inside = self.sessions.run_of_read(names.thread, names.configurable)
        guard = self.sessions.guard(names.thread, names.configurable) if inside is None else None
        try:
            return (yield from self._read_as(names, inside or guard, inside, with_blobs))
        except (*_USELESS, ThreadDeleted) as e:
            if guard is None:
                raise
            # A token that is merely remembered must not stand in the way for ever.
            deleted = isinstance(e, ThreadDeleted)
            self.sessions.forget(names.thread, deleted_gen=guard.gen if deleted else 0)
            if not deleted:
                raise
        return (yield from self._read_as(names, None, None, with_blobs))

    def _read_as(
        self, names: Names, run: Run | None, inside: Run | None, with_blobs: bool
    ) -> Operation[ReadAnswer]:
        request = pb.GetTupleRequest()
        session = None if run is None else run.session(inside=inside is not None)
        thread = ThreadKey(self.tenant, names.thread)
        requests.fill_get_tuple(
            request, thread, names.ns, names.checkpoint_id, session, with_blobs=with_blobs
        )
        return answers.read_answer_of((yield Call("get_tuple", request)))

    @staticmethod
    def steadily(once: Callable[[], Operation[T]]) -> Operation[T]:
        """Runs `once`, which reads and then fetches what did not fit beside the answer. What it
        misses then may have been pruned or deleted in between, so it reads again; what is missing
        twice running, although a newer answer named it, is lost."""
        missed = ""
        for _ in range(_READS_MAX):
            try:
                return (yield from once())
            except DataLoss as e:
                if e.message == missed:
                    raise
                missed = e.message
        raise Unavailable(
            "the thread kept being pruned while its values were read. Nothing is lost. Try again "
            "when it is quieter."
        )

    def complete(
        self, thread: str, found: Sequence[Found], blobs: dict[bytes, Typed]
    ) -> Operation[dict[bytes, Typed]]:
        """`blobs` with every value of these tuples, fetched where it did not fit beside them."""
        contents = [e.content for t in found for e in t.checkpoint.manifest]
        contents += [w.content for t in found for w in t.pending_writes]
        return (yield from self._fetched(thread, contents, blobs))

    def _fetched(
        self, thread: str, contents: Sequence[Content], blobs: dict[bytes, Typed]
    ) -> Operation[dict[bytes, Typed]]:
        """`blobs` with every value that did not fit beside the answer."""
        named = dict.fromkeys(c.hash for c in contents if isinstance(c, Blob))
        wanted = [h for h in named if h not in blobs]
        while wanted:
            request = pb.GetBlobsRequest()
            batch = wanted[: limits.BLOBS_PER_CALL_MAX]
            requests.fill_get_blobs(request, ThreadKey(self.tenant, thread), batch)
            answer = yield Call("get_blobs", request)
            fetched = dict(answers.values_of(answer.blobs))
            if not fetched:
                raise _lost(wanted)
            blobs |= fetched
            wanted = [h for h in wanted if h not in blobs]
        return blobs

    def shown(
        self, serde: SerializerProtocol, run: Run, found: Found, blobs: Mapping[bytes, Typed]
    ) -> CheckpointTuple:
        """LangGraph's tuple of a checkpoint that was read, bearing `run`."""
        self._learn(run, found.ns, found.checkpoint)
        self.sessions.bind(run, found.ns, found.checkpoint_id)
        return encoding.decode_tuple(serde, run.carrier(), found, blobs)

    @staticmethod
    def _learn(run: Run, ns: str, checkpoint: Checkpoint) -> None:
        for entry in checkpoint.manifest:
            if isinstance(entry.content, Typed | Blob):
                run.remember(ns, entry.channel, entry.version, entry.content)

    # Removing and copying -------------------------------------------------------------

    def delete_thread(self, thread_id: str) -> Operation[None]:
        """Deletes a thread, as it is now: the generation that ends is read first."""
        thread = ThreadKey(self.tenant, id_text("thread_id", thread_id))
        look = pb.GetTupleRequest()
        requests.fill_get_tuple(look, thread, "", None, None, with_blobs=False)
        clock = answers.read_answer_of((yield Call("get_tuple", look))).clock
        request = pb.DeleteThreadRequest()
        requests.fill_delete_thread(request, thread, clock.gen, os.urandom(REQUEST_ID_BYTES))
        yield Call("delete_thread", request)
        self.sessions.forget(thread.thread, deleted_gen=clock.gen)

    def delete_for_runs(self, run_ids: Sequence[str]) -> Operation[None]:
        """Removes the checkpoints of these runs."""
        ids = id_texts("run_ids", run_ids)
        for at in range(0, len(ids), limits.IDS_PER_CALL_MAX):
            request = pb.DeleteForRunsRequest()
            batch = ids[at : at + limits.IDS_PER_CALL_MAX]
            requests.fill_delete_for_runs(request, self.tenant, batch, os.urandom(REQUEST_ID_BYTES))
            yield Call("delete_for_runs", request)

    def copy_thread(self, source: str, target: str) -> Operation[None]:
        """Copies a thread into another."""
        request = pb.CopyThreadRequest()
        requests.fill_copy_thread(
            request,
            ThreadKey(self.tenant, id_text("source_thread_id", source)),
            ThreadKey(self.tenant, id_text("target_thread_id", target)),
        )
        yield Call("copy_thread", request)

    def prune(self, thread_ids: Sequence[str], strategy: str) -> Operation[None]:
        """Prunes threads."""
        ids = id_texts("thread_ids", thread_ids)
        try:
            chosen = PruneStrategy(strategy)
        except ValueError:
            known = ", ".join(repr(s.value) for s in PruneStrategy)
            raise InvalidArgument(
                f"prune strategy {strategy!r:.100} is unknown; there are {known}.", field="strategy"
            ) from None
        for at in range(0, len(ids), limits.IDS_PER_CALL_MAX):
            request = pb.PruneRequest()
            batch = ids[at : at + limits.IDS_PER_CALL_MAX]
            requests.fill_prune(request, self.tenant, batch, chosen, os.urandom(REQUEST_ID_BYTES))
            yield Call("prune", request)
        for thread in ids:
            self.sessions.forget(thread)


def configurable_of(config: Any) -> Mapping[str, Any]:
    """The ids of a config, whatever else it has; empty if there is none."""
    whole = checked_mapping("config", config, optional=True)
    return checked_mapping("config['configurable']", whole.get("configurable"), optional=True)


def names_of(config: RunnableConfig | None) -> Names:
    """The ids of a config. Raises MissingId (a KeyError) without a thread_id."""
    configurable = configurable_of(config)
    thread = configurable.get("thread_id")
    if thread is None:
        raise MissingId(
            "the config has no thread_id. Give config={'configurable': {'thread_id': …}}.",
            field="thread_id",
        )
    ns = configurable.get("checkpoint_ns")
    return Names(
        id_text("thread_id", thread),
        "" if ns is None else checked_id("checkpoint_ns", ns, empty=True),
        optional_id("checkpoint_id", configurable.get("checkpoint_id")),
        configurable,
    )


def _lost(hashes: Sequence[bytes]) -> DataLoss | Unavailable:
    return Unavailable(
        f"the router lacks {len(hashes)} value(s) that the call needs ({hashes[0].hex()[:16]}…), "
        f"and this process does not have them either: they were pruned or deleted meanwhile. "
        f"Nothing was written. Read the thread again, then repeat."
    )
