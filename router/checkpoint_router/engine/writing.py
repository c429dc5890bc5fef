"""Taking events in: decided by the core, committed by the storage, then known to the history.

Rules: a put is acknowledged after its transaction; a history in memory takes an event in after
the storage did; the router decides nothing that the client has fixed. Nobody cancels a task
that is `storing`: what the storage took in, the history must take in.
"""

import asyncio
from collections.abc import Sequence

from checkpoint_router.core import limits
from checkpoint_router.core.accept import Accepted, Known, Refused, Wait, accept
from checkpoint_router.core.answers import Growth, NewBlob, PutAnswer, ThreadClock
from checkpoint_router.core.digests import blob_hash, event_digest
from checkpoint_router.core.errors import InvalidArgument, ThreadDeleted
from checkpoint_router.core.ids import ThreadKey
from checkpoint_router.core.records import Entry, Event, entry_of, pack_event
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

    async def put(
        self,
        thread: ThreadKey,
        event: Event,
        digest: bytes | None,
        blobs: Sequence[NewBlob | Growth],
        patience: float,
    ) -> PutAnswer:
        """Stores one event; durable on return unless the answer names missing blobs.

        A repeat with the same bytes has the effect of one call. Raises Stale, ThreadDeleted,
        DigestMismatch, TokenInvalid, InvalidArgument, or what the storage raises.
        """
        packed = pack_event(event)
        actual = event_digest(packed)
        if digest and digest != actual:
            raise InvalidArgument(
                f"event {event.id} does not have the digest that it came with. Nothing was "
                f"written. Its bytes changed on the way, or the client encodes it otherwise.",
                event=str(event.id),
            )
        _check_hashes(blobs)
        token = None if event.header is None else unseal(event.header.token, self._shard.key)
        size = rebuilding.size(blobs)
        if self._rebuilt_bytes + size > limits.REBUILT_BYTES_MAX:
            blobs, size = [b for b in blobs if isinstance(b, NewBlob)], 0
        self._rebuilt_bytes += size
        try:
            entry = entry_of(event, actual)
            return await self._put(thread, event, packed, entry, token, blobs, patience)
        finally:
            self._rebuilt_bytes -= size

    async def _put(
        self,
        thread: ThreadKey,
        event: Event,
        packed: bytes,
        entry: Entry,
        token: ReadToken | None,
        blobs: Sequence[NewBlob | Growth],
        patience: float,
    ) -> PutAnswer:
        async with self._shard.threads.use(thread, fresh=False) as state:
            looked = not self._shard.storage.shared
            whole = await rebuilding.whole(self._shard.storage, state, event.gen, blobs)
            while True:
                await self._shard.threads.settle(thread, state)
                verdict = accept(
                    state.history, event, entry.digest, token, now_ms=self._shard.now_ms()
                )
                match verdict:
                    case Known():
                        return PutAnswer(missing=(), clock=self._shard.clock(state.history))
                    case Refused() if not looked:
                        # Another router may have deleted the thread since.
                        looked = True
                        await self._shard.threads.refresh(thread, state)
                    case Refused(error):
                        raise error
                    case Wait(missing):
                        await self._shard.wait(state, missing, patience)
                    case Accepted(needs):
                        append = Append(
                            thread=thread,
                            gen=event.gen,
                            entry=entry,
                            packed=packed,
                            needs=needs,
                            names=event.blobs(),
                            blobs=whole,
                        )
                        answer = await self._append(state, event, append)
                        if answer is not None:
                            return answer

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
        history = state.history
        match outcome:
            case MissingBlobs(hashes):
                return PutAnswer(missing=hashes, clock=self._shard.clock(history))
            case Stored() | Duplicate(append.entry.digest) if history.gen == append.gen:
                history.apply(append.entry)
                if state.known is not None and isinstance(outcome, Stored):
                    state.known = state.known.after(append.gen, outcome.dot)
                values = ((b.hash, b.value) for b in append.blobs)
                state.recent.add([(event, len(append.packed))], values)
                state.changed()
                return PutAnswer(missing=(), clock=self._shard.clock(history))
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
