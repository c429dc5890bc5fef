"""Reads all that a storage has, says what of it is not whole, and mends what can be made again.

Owner of nothing: records are the truth, and an index (lists, tables of places, columns beside a
record) is what can be made from them. Rules: a record or value is never written or removed; what
is broken is said once, with its thread, and the rest is read on; it may run beside routers, so a
thread that does not look whole is looked at once more, and only what both looks found is said; what
was read of a storage is said page by page, and of the page that was cut off nothing.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from typing import Any, Final, Protocol, TypeVar

from checkpoint_router.core import limits
from checkpoint_router.core.digests import event_digest
from checkpoint_router.core.errors import DataLoss, InvalidArgument, Unavailable
from checkpoint_router.core.history import History
from checkpoint_router.core.ids import EventId, ThreadKey
from checkpoint_router.core.records import Entry, entry_of, unpack_event
from checkpoint_router.storage.port import Blobs, ThreadImage

K = TypeVar("K")
T = TypeVar("T")

_PAUSES_SECONDS: Final = (1.0, 5.0)
"""Between tries of what a server did not answer."""

_THREADS_AT_ONCE: Final = 8
"""Threads that are read beside each other. More: more memory, and more load on a live storage."""

_KEYS_AT_ONCE: Final = 64
"""Records or values of one thread that are asked for together."""

_BYTES_AT_ONCE: Final = 4 * limits.MIB
"""Of values that are asked for together."""


class Kind(StrEnum):
    """What is wrong, as one line of the summary."""

    INDEX = "index"
    """A row that leads to records is missing, wrong, or leads to nothing: it can be made again."""
    LOG = "log"
    """The thread's log cannot be read, or lacks rows."""
    RECORD = "record"
    """An event is not there, fails its checksum or digest, or differs from its index entry."""
    VALUE = "value"
    """The same of a value that an event names."""
    CLOSURE = "closure"
    """An event rests on events that are not there."""
    NOTE = "note"
    """No damage, or none that can be known for one: somebody may want to know it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that is not as it should be."""

    kind: Kind
    thread: ThreadKey | None
    """None: it belongs to no thread."""
    record: str
    """The event, value or row."""
    text: str
    mended: bool = False


@dataclass(slots=True, kw_only=True)
class Report:
    """What a look through a storage found."""

    threads: int = 0
    events: int = 0
    values: int = 0
    faults: list[Fault] = field(default_factory=list)
    begun: str = ""
    """The cursor from which it went on; empty: from the beginning."""
    cursor: str = ""
    """From which to go on; empty: it went to the end."""
    stopped: str = ""
    """Why it did not."""

    @property
    def whole(self) -> bool:
        """Whether nothing is broken, or nothing is any more, of what was read."""
        return all(f.mended or f.kind is Kind.NOTE for f in self.faults)


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Threads that are looked at together."""

    threads: Sequence[ThreadKey]
    cursor: str
    """What comes after them: `ENGINE:NUMBER`, good for ever."""
    left: int
    """Threads that are still to be read, these too, as far as is known."""
    faults: Sequence[Fault] = ()
    """What was found in looking for them, and belongs to none."""


class Reads(Protocol):
    """What is asked of the storage port."""

    async def image(self, thread: ThreadKey) -> ThreadImage:
        """See `Storage.image`."""

    async def events(
        self, thread: ThreadKey, gen: int, ids: Sequence[EventId]
    ) -> Mapping[EventId, bytes]:
        """See `Storage.events`."""

    async def blobs(
        self, thread: ThreadKey, gen: int, hashes: Sequence[bytes], budget_bytes: int
    ) -> Blobs:
        """See `Storage.blobs`."""


class Shard(Protocol):
    """An engine's part: what the port does not show."""

    @property
    def storage(self) -> Reads:
        """Opened by somebody else, for reading only."""

    @property
    def grace_seconds(self) -> float:
        """How long a put may be visible before all of its index rows are. 0: never."""

    async def whole(self, *, repair: bool) -> list[Fault]:
        """What belongs to no thread. Asked first, for `page` may rest on it, and not if a look goes
        on from a cursor."""

    async def page(self, cursor: str, *, repair: bool) -> Page | None:
        """Threads that a record or an index row names, each once over all pages. Empty cursor: the
        first ones; None: there are no more. Raises InvalidArgument for a cursor of another engine.
        """

    async def index(self, thread: ThreadKey, image: ThreadImage, *, repair: bool) -> list[Fault]:
        """What the thread's index and log lack, or have too much. `repair` mends the index, and
        then the answer is as without it. Safe beside writers: what was stored since `image` was
        read is left alone. Raises DataLoss."""


async def scrub(
    shard: Shard,
    *,
    begin: str = "",
    repair: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """All of a storage from the cursor `begin` on. `progress` gets how many threads of how many
    were read. Where the engine goes away, or this task is cancelled, after the first page: the
    report is a part and has a cursor. Before it: raises Unavailable or CancelledError. What was
    mended by then stays mended."""
    report = Report(begun=begin)
    if not begin:
        report.faults += await _patiently(lambda: shard.whole(repair=repair))
    try:
        while page := await _patiently(partial(shard.page, report.cursor or begin, repair=repair)):
            read = await _read(shard, page, report.threads, repair=repair, progress=progress)
            report.threads += read.threads
            report.events += read.events
            report.values += read.values
            report.faults += [*page.faults, *read.faults]
            report.cursor = page.cursor
    except (Unavailable, asyncio.CancelledError) as e:
        if not report.cursor:
            raise
        report.stopped = e.message if isinstance(e, Unavailable) else "it was interrupted."
        return report
    report.cursor = ""
    return report


def place(cursor: str, engine: str) -> int:
    """The number in a cursor of that engine; 0 for an empty one. Raises InvalidArgument."""
    if not cursor:
        return 0
    name, _, number = cursor.partition(":")
    if name != engine or not number.isdecimal() or int(number) > limits.INTEGER_MAX:
        raise InvalidArgument(
            f"{cursor!r} is no cursor of a look through {engine}: it would be {engine}:NUMBER, as "
            f"the part before has printed it. Leave it out to read all.",
            field="from",
        )
    return int(number)


async def _read(
    shard: Shard,
    page: Page,
    done: int,
    *,
    repair: bool,
    progress: Callable[[int, int], None] | None,
) -> Report:
    """One page, after `done` threads."""
    report = Report(threads=len(page.threads))
    suspects: list[tuple[ThreadKey, list[Fault]]] = []
    for at in range(0, len(page.threads), _THREADS_AT_ONCE):
        some = page.threads[at : at + _THREADS_AT_ONCE]
        looks = await asyncio.gather(*(_look(shard, thread) for thread in some))
        suspects += [(t, look.found) for t, look in zip(some, looks, strict=True) if look.found]
        report.events += sum(look.events for look in looks)
        report.values += sum(look.values for look in looks)
        if progress is not None:
            progress(done + at + len(some), done + page.left)
    if suspects:
        await asyncio.sleep(shard.grace_seconds)
    for thread, before in suspects:
        again = (await _look(shard, thread)).found
        twice = [fault for fault in before if fault in again]
        if repair and any(fault.kind is Kind.INDEX for fault in twice):
            left = (await _look(shard, thread, repair=True)).found
            twice = [replace(fault, mended=fault not in left) for fault in twice]
        report.faults += twice
    return report


async def _look(shard: Shard, thread: ThreadKey, *, repair: bool = False) -> "_Look":
    """One look at a thread, whose index is mended before if asked for."""

    async def work() -> _Look:
        if repair:
            with suppress(DataLoss):  # which the look says
                await shard.index(thread, await shard.storage.image(thread), repair=True)
        look = _Look(shard, thread)
        await look.all()
        return look

    return await _patiently(work)


async def _patiently(work: Callable[[], Awaitable[T]]) -> T:
    """What it returns, after a few tries: a busy server is no reason to begin anew."""
    for seconds in _PAUSES_SECONDS:
        try:
            return await work()
        except Unavailable:
            await asyncio.sleep(seconds)
    return await work()


class _Look:
    """One look at one thread."""

    def __init__(self, shard: Shard, thread: ThreadKey) -> None:
        self._shard = shard
        self._thread = thread
        self.found: list[Fault] = []
        self.events = self.values = 0

    async def all(self) -> None:
        """Fills `found`, each once."""
        try:
            image = await self._shard.storage.image(self._thread)
            held = History(self._thread, image.gen).fold(image.entries)
        except DataLoss as e:
            self._lost(Kind.LOG, e)
            return
        for entry in held:
            self._say(Kind.CLOSURE, f"event {entry.id}", "what it rests on is not there")
        await self._events(image)
        try:
            self.found += await self._shard.index(self._thread, image, repair=False)
        except DataLoss as e:
            self._lost(Kind.LOG, e)
        self.found = list(dict.fromkeys(self.found))

    async def _events(self, image: ThreadImage) -> None:
        storage, thread, gen = self._shard.storage, self._thread, image.gen
        shown = {e.id: e for e in image.entries if not e.erased}
        named: dict[bytes, EventId] = {}

        async def events(ids: Sequence[EventId]) -> tuple[Mapping[EventId, bytes], Any]:
            return await storage.events(thread, gen, ids), ()

        async def values(hashes: Sequence[bytes]) -> tuple[Mapping[bytes, Any], Any]:
            read = await storage.blobs(thread, gen, hashes, _BYTES_AT_ONCE)
            return read.found, read.rest

        self.events = len(shown)
        async for id, packed in self._each(Kind.RECORD, shown, events):
            if packed is not None:  # else it was pruned or deleted since: a lost one is an error
                named |= dict.fromkeys(self._agrees(shown[id], packed), id)
        self.values = len(named)
        async for hash, value in self._each(Kind.VALUE, named, values):
            if value is None and await storage.events(thread, gen, [named[hash]]):
                text = f"event {named[hash]} names it, and it is not there"
                self._say(Kind.VALUE, f"value {hash.hex()[:16]}", text)

    def _agrees(self, entry: Entry, packed: bytes) -> tuple[bytes, ...]:
        """Says whether a record is what its index entry says; the values that it names."""
        record, digest = f"event {entry.id}", event_digest(packed)
        if digest != entry.digest:
            self._say(Kind.RECORD, record, "it does not have the digest in its index entry")
            return ()
        try:
            event = unpack_event(packed)
        except DataLoss as e:
            self._say(Kind.RECORD, record, e.message)
            return ()
        if entry_of(event, digest) != entry:
            self._say(Kind.RECORD, record, "its index entry says other things than it does")
        return event.blobs()

    async def _each(
        self,
        kind: Kind,
        keys: Iterable[K],
        ask: Callable[[Sequence[K]], Awaitable[tuple[Mapping[K, Any], Sequence[K]]]],
    ) -> AsyncIterator[tuple[K, Any]]:
        """Each key with what was read for it, or None; without those that are broken, which are
        said. From the first of those on, one at a time."""
        todo, at_once = list(keys), _KEYS_AT_ONCE
        while todo:
            some, todo = todo[:at_once], todo[at_once:]
            try:
                found, rest = await ask(some)
            except DataLoss as e:
                if at_once > 1:
                    todo, at_once = some + todo, 1
                else:
                    self._lost(kind, e)
                continue
            todo = [*rest, *todo]
            for key in some:
                if key not in rest:
                    yield key, found.get(key)

    def _lost(self, kind: Kind, error: DataLoss) -> None:
        said = error.attributes
        self._say(kind, said.get("record", "its log"), said.get("why", error.message))

    def _say(self, kind: Kind, record: str, text: str) -> None:
        self.found.append(Fault(kind=kind, thread=self._thread, record=record, text=text))
