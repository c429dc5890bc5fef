"""Puts: one batch in one partition, its listings beside it, then a look at the fence.

Owner of the dot counters, which are the truth and no copy: this file, on the loop. Rules: of each
thread one batch is under way, and the puts that come meanwhile share the next one; a batch whose
outcome is unknown is sent again, with the same bytes, until it is known, and nothing later of the
thread is written before; a put is acknowledged after its batch was answered and a fence that was
read later shows that nobody deleted or pruned the thread.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Final, TypeVar

from checkpoint_router.backends.cassandra import values
from checkpoint_router.backends.cassandra.ahead import Hint
from checkpoint_router.backends.cassandra.fences import Fences
from checkpoint_router.backends.cassandra.gather import Gather
from checkpoint_router.backends.cassandra.growing import Placed, Plan, Span, pack_path
from checkpoint_router.backends.cassandra.index import actor_key
from checkpoint_router.backends.cassandra.listings import Listings, Written
from checkpoint_router.backends.cassandra.place import Logged, Place, State
from checkpoint_router.backends.cassandra.removal import Removal
from checkpoint_router.backends.cassandra.session import Change, Session
from checkpoint_router.backends.cassandra.statements import BLOB, RECORD, ROW, VOID, Name
from checkpoint_router.backends.cassandra.threads import Threads
from checkpoint_router.core import limits
from checkpoint_router.core.answers import NewBlob
from checkpoint_router.core.errors import Overloaded, Unavailable
from checkpoint_router.core.ids import Dot, EventId, ThreadKey
from checkpoint_router.core.records import Entry, Kind, pack_entry
from checkpoint_router.storage.codec import seal_envelope, seal_record
from checkpoint_router.storage.logs import worth_a_log
from checkpoint_router.storage.port import (
    Append,
    Appended,
    Duplicate,
    MissingBlobs,
    MissingEvents,
    OtherGeneration,
    Stored,
)

T = TypeVar("T")

AHEAD_BYTES: Final = 64 * limits.KIB
"""A record or value above this is written before the batch, in requests of its own. Larger: a
batch may be more than a member takes at once. Smaller: more requests for a put."""

TOGETHER_MAX: Final = 128
"""Puts of one thread in a batch. Larger: one request keeps a member's worker for longer. Smaller:
the tasks of one superstep wait for more batches, one after the other."""

WAITING_MAX: Final = 512
"""Puts of one thread that wait. Beyond it they are refused: an engine that is away must not fill
the router's memory, where they stay until their outcome is known."""

WAITING_BYTES_MAX: Final = 128 * limits.MIB
"""The same over all threads."""

_AGAIN_SECONDS: Final = 0.25
"""Between two tries of a batch whose outcome is unknown."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """A put that is written, with its place in the log."""

    append: Append
    row: Logged


class Writing:
    """Puts of all threads."""

    def __init__(
        self,
        session: Session,
        fences: Fences,
        listings: Listings,
        removal: Removal,
        threads: Threads,
    ) -> None:
        self._session = session
        self._fences = fences
        self._listings = listings
        self._removal = removal
        self._threads = threads
        self.actor = 0
        self._counters: dict[tuple[ThreadKey, int], tuple[int, int]] = {}
        """The last n of the live actor in each thread and generation, with its position."""
        self._rounds: dict[ThreadKey, Gather[Append, Appended]] = {}
        self._drawing = asyncio.Lock()
        self._closing = False
        self._waiting_bytes = 0
        self._writers = count(secrets.randbits(62))
        """Numbers that nobody else has: each names one writing of a row. Asking the system for
        chance costs a tenth of a put."""

    async def open(self) -> None:
        """Draws an actor, durably."""
        actor = secrets.randbits(63)
        if not await self._session.condition((Name.META_SET, (f"actor {actor:016x}", b"1"))):
            raise Unavailable("an actor was drawn that another router has. Start again.")
        self.actor = actor
        self._counters.clear()

    async def close(self) -> None:
        """Ends what is under way, as far as the engine answers."""
        self._closing = True
        await asyncio.gather(*(r.end() for r in list(self._rounds.values())))

    async def append(self, append: Append) -> Appended:
        """See `Storage.append`."""
        with self._threads.use(append.thread) as place:
            id = append.entry.id
            before = place.under_way.get(id)
            if before is not None and not before.done():
                answer = await asyncio.shield(before)
                if isinstance(answer, Stored):
                    return Duplicate(place.digests.get(id, append.entry.digest))
                return await self.append(append)
            if len(place.under_way) >= WAITING_MAX or self._waiting_bytes > WAITING_BYTES_MAX:
                raise Overloaded(
                    f"{len(place.under_way)} puts of thread {append.thread.thread!r} and "
                    f"{self._waiting_bytes:,} bytes in all wait for Cassandra. Nothing was "
                    f"written. Try again when it answers."
                )
            size = _bytes(append)
            self._waiting_bytes += size
            mine = self._round_of(place).ask(append, size)
            place.under_way[id] = mine
            place.users += 1
            mine.add_done_callback(lambda _: self._answered(place, id, size, mine))
            return await asyncio.shield(mine)

    def _round_of(self, place: Place) -> Gather[Append, Appended]:
        rounds = self._rounds.get(place.thread)
        if rounds is None:
            rounds = self._rounds[place.thread] = Gather(
                lambda appends: self._write(place, appends),
                most=TOGETHER_MAX,
                size_max=limits.GROUP_BYTES_MAX,
            )
        return rounds

    def _answered(
        self, place: Place, id: EventId, size: int, answer: asyncio.Future[Appended]
    ) -> None:
        place.users -= 1
        self._waiting_bytes -= size
        if place.under_way.get(id) is answer:
            del place.under_way[id]
        if not place.under_way:
            self._rounds.pop(place.thread, None)

    async def put_blobs(self, thread: ThreadKey, gen: int, blobs: Sequence[NewBlob]) -> bool:
        """See `Storage.put_blobs`."""
        with self._threads.use(thread) as place:
            await self._threads.load(place)
            if place.state.live != gen:
                await self._threads.refresh(place)
            if place.state.live != gen:
                return False
            since, plan = place.state, Plan(place.growing, self._writers)
            await self._learn(place, gen, blobs)
            for blob in blobs:
                await values.write(self._session, self._value(thread, gen, blob, plan.place(blob)))
            if await self._is_as_before(place, since):
                place.values.update(b.hash for b in blobs)
                plan.keep()
            return place.state.live == gen

    # A round ---------------------------------------------------------------------------------

    async def _write(self, place: Place, appends: Sequence[Append]) -> list[Appended]:
        if not place.loaded:
            await self._threads.load(place)
        if any(a.gen != place.state.live or not place.has(a) for a in appends):
            await self._threads.refresh(place)
            await self._threads.load(place)
        since, gen = place.state, place.state.live
        answers = await self._refusals(place, appends)
        chosen = await self._chosen(place, [a for a in appends if a.entry.id not in answers])
        listed = await self._send(place, gen, chosen) if chosen else []
        others = list(answers)
        as_before = await self._until_known(lambda: self._is_as_before(place, since))
        if listed:
            await self._until_known(lambda: self._listings.confirm(listed))
        if as_before:
            for one in chosen:
                answers[one.append.entry.id] = Stored(one.row.dot)
        else:
            for one, answer in zip(chosen, await self._after_all(place, gen, chosen), strict=True):
                answers[one.append.entry.id] = answer
            # What was known of the others was known before.
            again = [a for a in appends if a.entry.id in others]
            written = await self._write(place, again) if again else []
            answers.update((a.entry.id, w) for a, w in zip(again, written, strict=True))
        return [answers[a.entry.id] for a in appends]

    async def _refusals(self, place: Place, appends: Sequence[Append]) -> dict[object, Appended]:
        """Answers for those that are not to be written."""
        sent = {a.entry.id: {b.hash for b in a.blobs} for a in appends}
        wanted = {h for a in appends for h in a.names}.difference(place.values, *sent.values())
        if wanted:
            of = (self._session, place.thread, place.state.live)
            place.values |= wanted.difference(await values.missing(*of, sorted(wanted)))
        answers: dict[object, Appended] = {}
        coming: set[bytes] = set()
        """Values of those before it that are written, in the same batch."""
        for a in appends:
            there = (place.values, sent[a.entry.id], coming)
            lacks = tuple(h for h in a.names if not any(h in some for some in there))
            if a.gen != place.state.live:
                answers[a.entry.id] = OtherGeneration(place.state.live)
            elif a.entry.id in place.digests:
                answers[a.entry.id] = Duplicate(place.digests[a.entry.id])
            elif not place.has(a):
                answers[a.entry.id] = MissingEvents()
            elif lacks:
                answers[a.entry.id] = MissingBlobs(lacks)
            else:
                coming |= sent[a.entry.id]
        return answers

    async def _chosen(self, place: Place, appends: Sequence[Append]) -> list[Chosen]:
        counter = (place.thread, place.state.live)
        async with self._drawing:
            if counter not in self._counters and len(self._counters) >= limits.COUNTERS_MAX:
                await self.open()
            last, pos = self._counters.setdefault(counter, (0, 0))
            # Claimed at once: the actor must not be closed under it.
            first, pos = last + 1, max(pos, place.pos)
        return [
            Chosen(
                append,
                Logged(
                    dot=Dot(self.actor, n),
                    pos=pos + 1 + n - first,
                    first=first,
                    entry=append.entry,
                    news=tuple(b.hash for b in append.blobs),
                ),
            )
            for n, append in enumerate(appends, first)
        ]

    async def _send(self, place: Place, gen: int, chosen: Sequence[Chosen]) -> Written:
        """Writes them, for good or not at all, and their rows in the lists."""
        plan = Plan(place.growing, self._writers)
        await self._learn(place, gen, [blob for one in chosen for blob in one.append.blobs])
        thread, final = place.thread, chosen[-1].row
        actor, last, hint = final.dot.actor, final.dot.n, place.hint
        of = (thread.tenant, thread.thread, gen)
        batch: list[Change] = []
        for one in chosen:
            append, row = one.append, one.row
            record = seal_record(append.packed)
            key = values.key_of(append.entry.id)
            parts = [(len(record), values.pieces(thread, gen, RECORD, key, actor, "", record))]
            placed = {b.hash: plan.place(b) for b in append.blobs}
            parts += [
                (len(b.value.data), self._value(thread, gen, b, placed[b.hash]))
                for b in append.blobs
            ]
            hint = _hinted(hint, place, append, placed)
            for size, rows in parts:
                # Of a large value that grew only little may be new.
                if size > AHEAD_BYTES and values.bytes_of(rows) > AHEAD_BYTES:
                    await values.write(self._session, rows)
                else:
                    batch += rows
            entry = seal_envelope(pack_entry(append.entry))
            log = (*of, actor_key(actor), row.dot.n, entry, row.pos, row.first)
            batch.append((Name.PUT_LOG, (*log, *_news(placed), ROW)))
        batch.insert(0, (Name.PUT_COUNT, (final.pos, actor, last, hint.pack(), *of)))
        entries = [one.append.entry for one in chosen]
        sent = asyncio.ensure_future(self._session.together(batch))
        listed = await self._until_known(
            lambda: self._listings.write(place, entries, next(self._writers))
        )
        await self._until_known(lambda: self._session.together(batch), sent)
        if actor == self.actor:
            self._counters[thread, gen] = last, final.pos
        if place.state.live == gen:
            place.hint = hint
            place.acknowledged[actor] = last
            place.know(one.row for one in chosen)
            plan.keep()
        return listed

    def _value(
        self, thread: ThreadKey, gen: int, blob: NewBlob, placed: Placed | None
    ) -> list[Change]:
        writer = next(self._writers)
        if placed is not None:
            return values.grown(thread, gen, blob, writer, placed)
        tag, data = blob.value.tag, blob.value.data
        return values.pieces(thread, gen, BLOB, blob.hash, writer, tag, data)

    async def _learn(self, place: Place, gen: int, blobs: Sequence[NewBlob]) -> None:
        """Reads the values that these continue, as far as none of them is remembered: a router
        that takes over a thread does so once."""
        known, sent = place.growing, {b.hash for b in blobs}
        wanted = {b.continues for b in blobs if worth_a_log(b)} - sent - {None}
        unknown = sorted(h for h in wanted if h is not None and h not in known)
        if unknown:
            of = (self._session, place.thread, gen)
            known.keep(await self._until_known(lambda: values.bases(*of, unknown)))

    async def _until_known(
        self, work: Callable[[], Awaitable[T]], begun: Awaitable[T] | None = None
    ) -> T:
        """What it returns, after as many tries as it takes: each has the effect of one."""
        while True:
            try:
                return await (work() if begun is None else begun)
            except Unavailable:
                if self._closing:
                    raise
            begun = None
            await asyncio.sleep(_AGAIN_SECONDS)

    async def _is_as_before(self, place: Place, since: State) -> bool:
        """Whether nobody deleted or pruned the thread since it was seen in that state, as of
        after this was called. If somebody did, the place knows nothing older afterwards."""
        version = await self._fences.read()
        # A read may have seen the removal before, and loaded the place anew.
        as_then = place.loaded and place.state == since
        if as_then and not self._fences.concerns(place.thread, place.version):
            place.version = version
            return True
        state = await self._removal.settled(place.thread)
        if place.loaded and state == place.state == since:
            place.version = version
            return True
        place.begin(state)
        return False

    async def _after_all(self, place: Place, gen: int, chosen: Sequence[Chosen]) -> list[Appended]:
        """What became of puts that were written while the thread was deleted or pruned."""
        if place.state.live != gen:
            return [OtherGeneration(place.state.live)] * len(chosen)
        of = (self._session, place.thread, gen)
        names = sorted({h for one in chosen for h in one.append.names})
        absent = set(await self._until_known(lambda: values.missing(*of, names)))
        entries = [one.append.entry for one in chosen]
        # Its row in the list of threads may have gone with the events before it.
        await self._until_known(lambda: self._list(place, entries))
        answers: list[Appended] = []
        for one in chosen:
            lacks = tuple(h for h in one.append.names if h in absent)
            if lacks:
                await self._void(place, gen, one.row.dot)
                place.forget()
            answers.append(MissingBlobs(lacks) if lacks else Stored(one.row.dot))
        return answers

    async def _list(self, place: Place, entries: Sequence[Entry]) -> None:
        listed = await self._listings.write(place, entries, next(self._writers))
        await self._fences.read()
        await self._listings.confirm(listed)

    async def _void(self, place: Place, gen: int, dot: Dot) -> None:
        """What stands there in the log counts for nothing; a repeat is written anew."""
        mark = (place.thread.tenant, place.thread.thread, gen, VOID, actor_key(dot.actor), dot.n)
        await self._until_known(lambda: self._session.write(Name.PUT_MARK, *mark, ROW))


def _bytes(append: Append) -> int:
    size = len(append.packed)
    for blob in append.blobs:
        size += len(blob.value.data)
    return size


def _news(placed: Mapping[bytes, Placed | None]) -> tuple[bytes, bytes]:
    """Of a log row: the values that came with it, those that grew first; and where what these
    appended stands."""
    grown = {hash: how for hash, how in placed.items() if how is not None}
    whole = [hash for hash in placed if hash not in grown]
    spans = [
        span for how in grown.values() for span in (Span(how.path[-1].log, how.start), how.path[-1])
    ]
    return b"".join((*grown, *whole)), pack_path(tuple(spans))


def _hinted(
    hint: Hint, place: Place, append: Append, placed: Mapping[bytes, Placed | None]
) -> Hint:
    """The hint after this event."""
    entry = append.entry
    newest = entry.kind is Kind.CHECKPOINT and not entry.ns
    sizes = {b.hash: len(b.value.data) for b in append.blobs}
    known = {}
    for hash in append.names if newest else sizes:
        how, base = placed.get(hash), place.growing.get(hash)
        path = how.path if how is not None else base.path if base is not None else ()
        size = sizes.get(hash, 0 if base is None else len(base.head) + base.keep)
        known[hash] = size, path
    return hint.with_event(values.key_of(entry.id), known, anew=newest)
