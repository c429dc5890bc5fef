"""What the saver's writes do: checkpoints, pending writes, deletes, prunes and copies."""

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import msgspec
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import ChannelVersions, Checkpoint, CheckpointMetadata
from langgraph.checkpoint.serde.base import SerializerProtocol
from msgspec import structs

from checkpoint_router.client import encoding
from checkpoint_router.client.arguments import (
    Names,
    checked_key,
    checked_mapping,
    checked_writes,
    id_text,
    id_texts,
    names_of,
)
from checkpoint_router.client.encoding import Encoded
from checkpoint_router.client.gathering import WORKERS, Batch, Turn
from checkpoint_router.client.operations import AWAITED, Call, Operation, call
from checkpoint_router.client.reading import USELESS, Reading
from checkpoint_router.client.running import running_loop
from checkpoint_router.client.sessions import RUNTIME, Run
from checkpoint_router.core import limits, records
from checkpoint_router.core.answers import NewBlob, PruneStrategy
from checkpoint_router.core.digests import event_digest
from checkpoint_router.core.errors import (
    DeadlineExceeded,
    InvalidArgument,
    LimitExceeded,
    MissingId,
    ThreadDeleted,
    Unavailable,
)
from checkpoint_router.core.ids import ThreadKey, checked_id
from checkpoint_router.core.records import TaskWrites
from checkpoint_router.v1 import checkpoint_service_pb2 as pb
from checkpoint_router.wire import answers, requests
from checkpoint_router.wire.events import packed_event
from checkpoint_router.wire.puts import put_bytes

REQUEST_ID_BYTES: Final = 16

_REFUSED: Final = (*USELESS, ThreadDeleted, InvalidArgument, LimitExceeded)
"""Refusals after which it is certain that nothing was stored."""


class _Put(msgspec.Struct, frozen=True, gc=False):
    """What is to be stored, whichever run stores it."""

    names: Names
    cid: str
    encode: Callable[[Run | None], Encoded]
    """Encodes it with what a run remembers, if one is given."""


class Writing:
    """Writes of one tenant, without IO."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._sessions = reading.sessions
        self._tenant = reading.tenant

    def put(
        self,
        serde: SerializerProtocol,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> Operation[RunnableConfig]:
        """Stores a checkpoint; returns its config, which bears the run."""
        names = names_of(config)
        whole = checked_mapping("the checkpoint", checkpoint)
        cid = checked_id("checkpoint id", checked_key("the checkpoint", whole, "id"))
        encode = partial(
            encoding.encode_checkpoint, serde, config, checkpoint, metadata, new_versions, names,
            partial(self._sessions.cache.new_blob, names.thread),
        )  # fmt: skip
        known = self._sessions.run_of_write(names)
        run = yield from self._stored(_Put(names, cid, encode), known, encode(known))
        return encoding.config_of(run.carrier(), names.ns, cid)

    def put_writes(
        self,
        serde: SerializerProtocol,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str,
        *,
        by_task: bool,
    ) -> Operation[None]:
        """Stores one task's pending writes. `by_task`: for a task of a loop, not for a worker."""
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
        task, blobs = encoding.encode_writes(serde, writes, task_id, task_path)
        run = self._sessions.run_of_write(names)
        if run is not None and names.configurable.get(RUNTIME) is not None:
            yield from self._gathered(names, run, task, blobs, by_task)
            self._sessions.bind(run, names.ns, names.checkpoint_id)
        else:
            yield from self._by_itself(names, run, task, blobs)

    def _by_itself(
        self, names: Names, run: Run | None, task: TaskWrites, blobs: Sequence[NewBlob]
    ) -> Operation[None]:
        encoded = Encoded(records.WriteSet(tasks=(task,)), tuple(blobs))
        put = _Put(names, names.checkpoint_id or "", lambda _: encoded)
        yield from self._stored(put, run, encoded)

    def _gathered(
        self, names: Names, run: Run, task: TaskWrites, blobs: Sequence[NewBlob], by_task: bool
    ) -> Operation[None]:
        """Stores it with what else the run's tasks wrote on that checkpoint meanwhile."""
        yield AWAITED
        began = time.monotonic()
        callers = running_loop() if by_task else WORKERS
        gathering, place = run.gathering, (names.ns, names.checkpoint_id or "", callers)
        batch = gathering.join(place, task, blobs, _size(task, blobs))
        if isinstance(batch, Turn):
            turn = batch
            try:
                batch = yield turn
            except BaseException:
                if not gathering.leave(place, turn):
                    _give_up(run, turn.batch)
                raise
            if batch is None:
                return
        try:
            yield from self._together(names, run, batch, began)
        except _REFUSED as e:
            gathering.ended(place, batch, e)
            raise
        except (DeadlineExceeded, asyncio.CancelledError, GeneratorExit, KeyboardInterrupt):
            # This caller has to go. The others have not.
            if not gathering.hand_on(place, batch):
                _give_up(run, batch)
            raise
        except BaseException as e:
            _give_up(run, batch)
            gathering.ended(place, batch, e)
            raise
        gathering.ended(place, batch)

    def _together(self, names: Names, run: Run, batch: Batch, began: float) -> Operation[None]:
        """Makes a batch's call, for a caller who waits since `began`."""
        if batch.event is None:
            content = run.gathering.content(batch)
            batch.event = run.event(names.ns, names.checkpoint_id or "", content)
        thread, event = self._reading.thread(names.thread), batch.event
        answer = yield from self._sent(thread, run, event, batch.blobs, began)
        if answer.missing:
            answer = yield from self._sent(thread, run, event, _whole(batch.blobs), began)
        if answer.missing:
            raise _lacking(answer.missing)
        run.acknowledged(event.id, answer.clock.hlc, answer.clock.term)

    def _stored(self, put: _Put, run: Run | None, encoded: Encoded) -> Operation[Run]:
        """Stores an event and returns its run."""
        names = put.names
        if run is None:
            run = yield from self._reading.first(names)
        try:
            yield from self._store(put, run, encoded)
        except ThreadDeleted:
            self._sessions.cache.forget(names.thread)
            # A run of the caller's own is told; one that was merely remembered here begins anew.
            if not self._sessions.merely_remembered(names):
                raise
            self._sessions.forget(names.thread, deleted_gen=run.gen)
            run = yield from self._reading.first(names)
            yield from self._store(put, run, put.encode(None), again=True)
        self._sessions.bind(run, names.ns, put.cid)
        return run

    def _store(
        self, put: _Put, run: Run, encoded: Encoded, *, again: bool = False
    ) -> Operation[None]:
        names = put.names
        event = run.event(names.ns, put.cid, encoded.content)
        thread = self._reading.thread(names.thread)
        learn = partial(self._keep, names.thread, encoded) if encoded.named else None
        try:
            # What a run's writes brought is named: a router that lacks it (yet, or again) says so.
            blobs = encoded.blobs if again else run.not_brought(encoded.blobs)
            answer = yield from self._sent(thread, run, event, blobs, meanwhile=learn)
            if answer.missing:
                have = {b.hash: b for b in encoded.blobs}
                if not again and not have.keys() >= set(answer.missing):
                    run.forget_values()
                    # Other bytes are another event: the refused one was never stored.
                    return (yield from self._store(put, run, put.encode(None), again=True))
                # Nothing was written, also of those that were sent: what one of them continues is
                # not there (any more).
                answer = yield from self._sent(thread, run, event, _whole(encoded.blobs))
            if answer.missing:
                raise _lacking(answer.missing)
        except BaseException as e:
            if not isinstance(e, _REFUSED):
                run.give_up(event.id)
            if isinstance(e, USELESS) and self._sessions.merely_remembered(names):
                self._sessions.forget(names.thread)
            raise
        run.acknowledged(event.id, answer.clock.hlc, answer.clock.term)
        if encoded.fresh:
            run.learn(names.ns, encoded.fresh)

    def _keep(self, thread: str, encoded: Encoded) -> None:
        for blob, named in zip(encoded.blobs, encoded.named, strict=True):
            self._sessions.cache.learn(thread, named, blob.continues if blob.kept else None)

    def _sent(
        self,
        thread: ThreadKey,
        run: Run,
        event: records.Event,
        blobs: Sequence[NewBlob],
        began: float | None = None,
        meanwhile: Callable[[], None] | None = None,
    ) -> Operation[Any]:
        """Sends an event with its values, those first that do not fit into one message with it.
        `began`: since when its caller waits, if that may be a while."""
        if sum(map(_sent_bytes, blobs)) > limits.INLINE_BLOBS_BYTES_MAX:
            blobs = yield from self._ahead(thread, run, blobs)
        packed = packed_event(event)
        request = put_bytes(thread, packed, event_digest(packed), blobs)
        name = "put"
        if isinstance(event.content, records.WriteSet):
            name = "put_writes"
            run.brings(event.blobs())
        waited = 0.0 if began is None else time.monotonic() - began
        return (yield Call(name, request, waited, meanwhile))

    def _ahead(
        self, thread: ThreadKey, run: Run, blobs: Sequence[NewBlob]
    ) -> Operation[Sequence[NewBlob]]:
        """Sends the largest values; what is left fits into one message."""
        riding = sorted(blobs, key=_sent_bytes)
        size = sum(map(_sent_bytes, riding))
        while size > limits.INLINE_BLOBS_BYTES_MAX:
            batch: list[NewBlob] = []
            room = limits.INLINE_BLOBS_BYTES_MAX
            while riding and (not batch or len(riding[-1].value.data) <= room):
                batch.append(riding.pop())
                room -= len(batch[-1].value.data)
            size -= sum(map(_sent_bytes, batch))
            yield call(
                "put_blobs", pb.PutBlobsRequest(), requests.fill_put_blobs,
                thread, run.gen, _whole(batch),
            )  # fmt: skip
        return riding

    # Removing and copying -------------------------------------------------------------

    def delete_thread(self, thread_id: str) -> Operation[None]:
        """Deletes a thread, as it is now: the generation that ends is read first."""
        thread = self._reading.thread(id_text("thread_id", thread_id))
        found = yield call(
            "get_tuple", pb.GetTupleRequest(), requests.fill_get_tuple,
            thread, "", None, None, with_blobs=False,
        )  # fmt: skip
        gen = answers.read_answer_of(found).clock.gen
        yield call(
            "delete_thread", pb.DeleteThreadRequest(), requests.fill_delete_thread,
            thread, gen, os.urandom(REQUEST_ID_BYTES),
        )  # fmt: skip
        self._sessions.forget(thread.thread, deleted_gen=gen)

    def delete_for_runs(self, run_ids: Sequence[str]) -> Operation[None]:
        """Removes the checkpoints of these runs."""
        for batch in _batches(id_texts("run_ids", run_ids)):
            yield call(
                "delete_for_runs", pb.DeleteForRunsRequest(), requests.fill_delete_for_runs,
                self._tenant, batch, os.urandom(REQUEST_ID_BYTES),
            )  # fmt: skip
        # Whose they were is not known here.
        self._sessions.cache.clear()

    def copy_thread(self, source: str, target: str) -> Operation[None]:
        """Copies a thread into another."""
        yield call(
            "copy_thread", pb.CopyThreadRequest(), requests.fill_copy_thread,
            self._reading.thread(id_text("source_thread_id", source)),
            self._reading.thread(id_text("target_thread_id", target)),
        )  # fmt: skip

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
        for batch in _batches(ids):
            yield call(
                "prune", pb.PruneRequest(), requests.fill_prune,
                self._tenant, batch, chosen, os.urandom(REQUEST_ID_BYTES),
            )  # fmt: skip
        for thread in ids:
            self._sessions.forget(thread)


def _size(task: TaskWrites, blobs: Sequence[NewBlob]) -> int:
    """Bytes of the values, those in the rows too."""
    inline = sum(len(r.content.data) for r in task.rows if isinstance(r.content, records.Typed))
    return inline + sum(len(b.value.data) for b in blobs)


def _give_up(run: Run, batch: Batch) -> None:
    if batch.event is not None:
        run.give_up(batch.event.id)


def _batches(ids: Sequence[str]) -> list[Sequence[str]]:
    """As many as one call may name."""
    size = limits.IDS_PER_CALL_MAX
    return [ids[at : at + size] for at in range(0, len(ids), size)]


def _sent_bytes(blob: NewBlob) -> int:
    return len(blob.value.data) - blob.kept


def _whole(blobs: Sequence[NewBlob]) -> list[NewBlob]:
    """The same values, to be sent with all of their bytes."""
    return [structs.replace(b, kept=0) if b.kept else b for b in blobs]


def _lacking(hashes: Sequence[bytes]) -> Unavailable:
    return Unavailable(
        f"the router lacks {len(hashes)} value(s) that the call needs ({hashes[0].hex()[:16]}…), "
        f"and this process does not have them either: they were pruned or deleted meanwhile. "
        f"Nothing was written. Read the thread again, then repeat."
    )
