"""Taking events in: decided by the core, committed by the storage, then known to the history.

Rules: a put is acknowledged after its transaction; a history in memory takes an event in after
the storage did; the router decides nothing that the client has fixed. Nobody cancels a task
that is `storing`: what the storage took in, the history must take in.
"""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, cast

from checkpoint_router.core import limits
from checkpoint_router.core.accept import Accepted, Known, Refused, Wait, accept
from checkpoint_router.core.answers import Growth, NewBlob, PutAnswer, ThreadClock
from checkpoint_router.core.digests import blob_hash, event_digest
from checkpoint_router.core.errors import InvalidArgument, ThreadDeleted
from checkpoint_router.core.ids import ThreadKey
from checkpoint_router.core.records import Entry, Event, entry_of
from checkpoint_router.core.token import ReadToken, unseal
from checkpoint_router.engine import rebuilding
from checkpoint_router.engine.shard import Shard
from checkpoint_router.engine.threads import ThreadState
from checkpoint_router.storage.port import Append, Appended, Duplicate, MissingBlobs, Stored


class Writing:
    """Puts of one shard."""

    def __init__(self, shard: Shard) -> None:
        self._shard = shard
        self._rebuilt_bytes = 0
        """Of what puts that are at work have rebuilt: requests that are small on the wire."""

    def put(
        self,
        thread: ThreadKey,
        event: Event,
        packed: bytes,
        digest: bytes | None,
        blobs: Sequence[NewBlob | Growth],
        patience: float,
    ) -> Coroutine[Any, Any, PutAnswer]:
        """See `Engine.put`; `packed` are the canonical bytes of `event`. What need not be waited
        for is raised at once."""
        actual = event_digest(packed)
        if digest and digest != actual:
            raise InvalidArgument(
                f"event {event.id} does not have the digest that it came with. Nothing was "
                f"written. Its bytes changed on the way, or the client encodes it otherwise.",
                event=str(event.id),
            )
        _check_hashes(blobs)
        token = None if event.header is None else unseal(event.header.token, self._shard.key)
        return self._put(thread, event, packed, token, entry_of(event, actual), blobs, patience)

    async def _put(
        self,
        thread: ThreadKey,
        event: Event,
        packed: bytes,
        token: ReadToken | None,
        entry: Entry,
        blobs: Sequence[NewBlob | Growth],
        patience: float,
    ) -> PutAnswer:
        shard, size = self._shard, rebuilding.size(blobs)
        if self._rebuilt_bytes + size > limits.REBUILT_BYTES_MAX:
            blobs, size = [b for b in blobs if isinstance(b, NewBlob)], 0
        state = shard.threads.begin(thread)
        self._rebuilt_bytes += size
        try:
            if size:
                await shard.threads.settle(thread, state)
                blobs = await rebuilding.whole(shard.storage, state, event.gen, blobs)
            looked = not shard.storage.shared
            while True:
                if state.doubtful:
                    await shard.threads.settle(thread, state)
                verdict = accept(state.history, event, entry.digest, token, now_ms=shard.now_ms())
                if type(verdict) is Accepted:
                    append = Append(
                        thread=thread,
                        gen=event.gen,
                        entry=entry,
                        packed=packed,
                        needs=verdict.needs,
                        names=event.blobs(),
                        blobs=cast("tuple[NewBlob, ...]", blobs),
                    )
                    answer = await self._append(state, event, append)
                    if answer is not None:
                        return answer
                elif type(verdict) is Wait:
                    await shard.wait(state, verdict.missing, patience)
                elif type(verdict) is Known:
                    return PutAnswer(missing=(), clock=shard.clock(state.history))
                elif looked:
                    assert type(verdict) is Refused
                    raise verdict.error
                else:
                    # Another router may have deleted the thread since.
                    looked = True
                    await shard.threads.refresh(thread, state)
        finally:
            shard.threads.end(thread, state)
            self._rebuilt_bytes -= size

    async def _append(self, state: ThreadState, event: Event, append: Append) -> PutAnswer | None:
        """Commits, then lets the history know. None: decide again, the storage knew better."""
        storing, task = self._shard.storing, asyncio.current_task()
        storing.add(task)
        try:
            outcome = await self._shard.storage.append(append)
        except BaseException:
            state.doubtful = True
            raise
        finally:
            storing.discard(task)
        return self._take(state, event, append, outcome)

    def _take(
        self, state: ThreadState, event: Event, append: Append, outcome: Appended
    ) -> PutAnswer | None:
        history, current = state.history, state.history.gen == append.gen
        match outcome:
            case Stored() | Duplicate(append.entry.digest) if current:
                history.apply(append.entry)
                if state.known is not None and isinstance(outcome, Stored):
                    state.known = state.known.after(append.gen, outcome.dot)
                values = [(b.hash, b.value) for b in append.blobs]
                state.recent.add([(event, len(append.packed))], values)
                state.changed()
                return PutAnswer(missing=(), clock=self._shard.clock(history))
            case MissingBlobs(hashes):
                return PutAnswer(missing=hashes, clock=self._shard.clock(history))
            case Stored():  # a delete was applied while this was on its way back
                raise ThreadDeleted.of(append.thread.thread, append.gen, history.gen)
            case _:
                state.doubtful = True
                return None

    async def put_blobs(self, thread: ThreadKey, gen: int, blobs: Sequence[NewBlob]) -> ThreadClock:
        """Stores blobs ahead of the put that names them. Durable on return."""
        _check_hashes(blobs)
        async with self._shard.threads.use(thread, fresh=False) as state:
            if not await self._shard.storage.put_blobs(thread, gen, blobs):
                state.doubtful = True
                await self._shard.threads.settle(thread, state)
                raise ThreadDeleted.of(thread.thread, gen, state.history.gen)
            return self._shard.clock(state.history)


def _check_hashes(blobs: Sequence[NewBlob | Growth]) -> None:
    for blob in blobs:
        if isinstance(blob, NewBlob) and blob_hash(blob.value.tag, blob.value.data) != blob.hash:
            raise InvalidArgument(
                f"a value of {len(blob.value.data)} bytes does not have the hash "
                f"{blob.hash.hex()[:16]}… that it came with. Nothing was written."
            )
