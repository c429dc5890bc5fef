"""Deletes and prunes: wanted, made known, decided, done, each step by whoever comes by.

A removal stands in the thread's state as an intent. Phase 1: it is wanted, and has no effect. The
fence of the group is raised, so that every put that begins from then on, and every put whose
batch is not answered yet, sees it. Then it is decided, by a condition: a delete ends the
generation; a prune looks at the thread again, and is dropped if an event came. Phase 2: rows go;
then the operation is written down and the intent removed, together.

A batch of which only a part is to be seen may come to be shown by a reader that saw the whole
(`index`), and may name values that nothing else names. So a prune takes no values while one is
there, neither when it begins nor when it is decided.

Rule: whoever meets an intent, at a read or after a put, finishes it first. So nobody sees half of
one, and a router that dies in the middle of one leaves nothing to clear up.
"""

import asyncio
import secrets
from collections.abc import Sequence

import msgspec

from checkpoint_router.backends.cassandra import index, values
from checkpoint_router.backends.cassandra.fences import Fences
from checkpoint_router.backends.cassandra.listings import Listings
from checkpoint_router.backends.cassandra.place import State
from checkpoint_router.backends.cassandra.session import Change, Session
from checkpoint_router.backends.cassandra.statements import (
    BLOB,
    ENDED,
    ERASED,
    PRUNED,
    RECORD,
    REMOVED,
    ROW,
    SEGMENT,
    Name,
)
from checkpoint_router.core.errors import DataLoss
from checkpoint_router.core.ids import ThreadKey
from checkpoint_router.storage.port import Erase

_ROWS: int = 200
"""Removals in one request."""

_LOOKS: int = 8
_LOOK_SECONDS: float = 0.25
"""How long a prune waits for a batch that is not wholly there. One that does not come was left by
a router or a member that went away; the prune leaves all values then."""


class Intent(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """A removal that was begun."""

    operation: bytes
    gen: int
    """The generation that was live when it was begun."""
    next: int
    """The one that lives after it: equal for a prune."""
    events: tuple[bytes, ...] = ()
    """Keys of what a prune takes."""
    copies: tuple[tuple[bytes, int, int], ...] = ()
    """(hash, size, writer) of the copies of values that it takes: none that comes later. One that
    grew has no pieces, and no size here."""
    logs: tuple[bytes, ...] = ()
    """Append logs that go with them."""
    stored: int = 0
    """Events that whoever wants to prune has seen."""
    nonce: bytes
    """Tells it from every other that wants the same."""

    def pack(self) -> bytes:
        return msgspec.msgpack.encode(self)

    @classmethod
    def unpack(cls, packed: bytes) -> "Intent":
        return msgspec.msgpack.decode(packed, type=cls)


class Removal:
    """What takes things away."""

    def __init__(self, session: Session, fences: Fences, listings: Listings) -> None:
        self._session = session
        self._fences = fences
        self._listings = listings

    async def done(self, thread: ThreadKey, operation: bytes) -> bool:
        """Whether that operation was finished."""
        of = (thread.tenant, thread.thread, operation)
        return bool(operation and await self._session.read(Name.OPERATION, *of))

    async def settled(self, thread: ThreadKey) -> State:
        """The thread's state, without an intent: one that is there is finished first."""
        while True:
            state = await index.state_of(self._session, thread)
            if state.intent is None:
                return state
            await self._step(thread, state, state.intent)

    async def delete(self, thread: ThreadKey, gen: int | None, operation: bytes) -> int:
        """See `Storage.delete`."""
        while True:
            state = await self.settled(thread)
            if await self.done(thread, operation):
                return state.live
            ended = state.live if gen is None else gen
            if ended < state.live:
                if operation:
                    of = (thread.tenant, thread.thread, operation)
                    await self._session.condition((Name.OPERATION_SET, of))
                return state.live
            intent = Intent(
                operation=operation, gen=state.live, next=ended + 1, nonce=secrets.token_bytes(8)
            )
            if await self._begin(thread, state, intent):
                return (await self.settled(thread)).live

    async def erase(self, erase: Erase) -> bool:
        """See `Storage.erase`."""
        thread = erase.thread
        while True:
            state = await self.settled(thread)
            if await self.done(thread, erase.operation):
                return True
            if state.live != erase.gen:
                return False
            seen = await self._seen(thread, state)
            for _ in range(_LOOKS if erase.blobs else 0):
                if not seen.doubtful:
                    break
                await asyncio.sleep(_LOOK_SECONDS)
                seen = await self._seen(thread, state)
            if len(seen.rows) > erase.stored:
                return False
            blobs = () if seen.doubtful else erase.blobs
            copies = await values.copies(self._session, thread, erase.gen, blobs)
            logs = await values.dead_logs(self._session, thread, erase.gen, copies)
            intent = Intent(
                operation=erase.operation,
                gen=erase.gen,
                next=erase.gen,
                events=tuple(values.key_of(e) for e in erase.events),
                copies=tuple((c.hash, 0 if c.path else c.size, c.writer) for c in copies),
                logs=logs,
                stored=erase.stored,
                nonce=secrets.token_bytes(8),
            )
            if await self._begin(thread, state, intent):
                await self.settled(thread)
                return await self.done(thread, erase.operation)

    async def _seen(self, thread: ThreadKey, state: State) -> index.Index:
        return await index.read(self._session, thread, state.live, pruned=bool(state.erasures))

    async def _came(self, thread: ThreadKey, state: State, intent: Intent) -> bool:
        """Whether there is more, or may come to be, than whoever wants to prune has seen."""
        seen = await self._seen(thread, state)
        takes_values = bool(intent.copies or intent.logs)
        return len(seen.rows) > intent.stored or (takes_values and seen.doubtful)

    async def _begin(self, thread: ThreadKey, state: State, intent: Intent) -> bool:
        of = (thread.tenant, thread.thread)
        values_ = (intent.pack(), *of, state.gen, state.erasures)
        return await self._session.condition((Name.INTENT_BEGIN, values_))

    async def _step(self, thread: ThreadKey, state: State, packed: bytes) -> None:
        """Takes the intent one step on. A step that somebody else took is no failure."""
        intent = Intent.unpack(packed)
        of = (thread.tenant, thread.thread)
        if state.phase == 2:
            number = (state.erasures or 0) + 1
            await self._take(thread, intent, number)
            done: Sequence[Change] = ()
            if intent.operation:
                done = [(Name.OPERATION_DONE, (*of, intent.operation))]
            finish = (number, *of, packed)
            await self._session.condition((Name.INTENT_FINISH, finish), *done)
            return
        await self._fences.lift(thread)
        if intent.next == intent.gen and await self._came(thread, state, intent):
            await self._session.condition((Name.INTENT_ABORT, (*of, packed)))
            return
        # Of a thread that was never deleted the generation stays unset: it is 1.
        gen = state.gen if intent.next == intent.gen else intent.next
        await self._session.condition((Name.INTENT_DECIDE, (gen, *of, packed)))

    async def _take(self, thread: ThreadKey, intent: Intent, number: int) -> None:
        """All that goes, in any number of tries: the rows that say what goes are the last."""
        if intent.next != intent.gen:
            try:
                found = await index.read(self._session, thread, intent.gen, pruned=False)
                entries = [row.entry for row in found.rows]
            except DataLoss:
                entries = []  # A broken thread can be deleted; listings may name it for longer.
            await self._listings.remove(thread, intent.gen, entries, thread_too=True)
            of = (thread.tenant, thread.thread, intent.gen)
            await self._session.write(Name.REMOVE_GENERATION, ENDED, *of)
            return
        found = await index.read(self._session, thread, intent.gen, pruned=False)
        doomed = set(intent.events)
        going = [row.entry for row in found.rows if values.key_of(row.entry.id) in doomed]
        left = any(
            not row.entry.erased and values.key_of(row.entry.id) not in doomed for row in found.rows
        )
        await self._listings.remove(thread, intent.gen, going, thread_too=not left)
        of = (thread.tenant, thread.thread, intent.gen)
        rows: list[Change] = []
        for entry in going:
            key = values.key_of(entry.id)
            rows.append((Name.PUT_MARK, (*of, ERASED, key, 0, ROW)))
            rows.append((Name.REMOVE_KEY, (REMOVED, *of, RECORD, key)))
        for hash, size, writer in intent.copies:
            rows += [
                (Name.REMOVE_PIECE, (REMOVED, *of, BLOB, hash, n, writer))
                for n in range(1 + max(0, size - 1) // values.PIECE_BYTES)
            ]
        await self._together(rows)
        # After the values that stood in them: who finds bytes gone looks whether the value is.
        logs = [(Name.REMOVE_KEY, (REMOVED, *of, SEGMENT, key)) for key in intent.logs]
        await self._together(logs)
        await self._session.write(Name.PUT_MARK, *of, ERASED, PRUNED, number, ROW)

    async def _together(self, rows: Sequence[Change]) -> None:
        for at in range(0, len(rows), _ROWS):
            await self._session.together(rows[at : at + _ROWS])
