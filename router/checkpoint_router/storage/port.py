"""The storage port: what the engine asks of any engine below it, with each verb's promise.

Owner of the truth: the storage. Whatever a router keeps in memory is a copy, except the dot
counters of its own actor. "Durable" means what `Facts.promise` says of this storage; nothing is
acknowledged before its verb returned. Verbs raise `Unavailable` where the outcome is unknown or
nothing happened for a passing cause (full disk, lost connection), `DataLoss` naming thread and
record where stored bytes are gone or fail their checksum, and touch no other thread by failing.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from checkpoint_router.core.answers import NewBlob
from checkpoint_router.core.clock import Ranges
from checkpoint_router.core.ids import Dot, EventId, SegmentId, ThreadKey
from checkpoint_router.core.records import Entry, Typed, unpack_event


@dataclass(frozen=True, slots=True)
class Known:
    """What a router knows of a thread: all that an earlier image told it."""

    gen: int
    erasures: int
    counts: Mapping[int, int]
    """Actor to n: its events 1 to n of this generation are known."""

    def after(self, gen: int, dot: Dot) -> "Known":
        """With one event more, if it is the next one of its actor."""
        if gen != self.gen or dot.n != self.counts.get(dot.actor, 0) + 1:
            return self
        return Known(self.gen, self.erasures, {**self.counts, dot.actor: dot.n})


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadImage:
    """One thread's index as the storage has it."""

    gen: int
    """The live generation: 1 for a thread that was never deleted, also if nothing is stored."""
    entries: tuple[Entry, ...]
    """Of the live generation, in the order in which they were stored; on a storage whose writers
    do not see each other, in any order that keeps each actor's own."""
    erasures: int = field(default=0, compare=False)
    """Grows whenever an entry of this generation is marked as erased."""
    counts: Mapping[int, int] = field(default_factory=dict, compare=False)
    """Actor to n: what a router knows that has folded this in. Empty if not shared."""
    partial: bool = False
    """Only what the caller did not know yet is in `entries`."""

    @property
    def known(self) -> Known:
        """To be handed in when the thread is looked at again."""
        return Known(self.gen, self.erasures, self.counts)


class Append(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One event with all that must become durable in the same transaction."""

    thread: ThreadKey
    gen: int
    entry: Entry
    packed: bytes
    """Canonical bytes (`records.pack_event`)."""
    needs: tuple[tuple[SegmentId, Ranges], ...]
    """Events that must be stored before this one may be."""
    names: tuple[bytes, ...]
    """Every blob that the event names."""
    blobs: tuple[NewBlob, ...]
    """Those that were sent with it, hashes verified."""


class Stored(msgspec.Struct, frozen=True, gc=False):
    """Durable. `dot` is the place in this actor's log of the thread."""

    dot: Dot


class Duplicate(msgspec.Struct, frozen=True, gc=False):
    """The event is stored already, with this digest. Nothing was written."""

    digest: bytes


class MissingBlobs(msgspec.Struct, frozen=True, gc=False):
    """Blobs that the event names are neither stored nor sent. Nothing was written."""

    hashes: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class MissingEvents:
    """Events that it needs are not stored. Nothing was written."""


class OtherGeneration(msgspec.Struct, frozen=True, gc=False):
    """The thread is at another generation. Nothing was written."""

    current: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Blobs:
    """Values that were read."""

    found: Mapping[bytes, Typed]
    rest: tuple[bytes, ...]
    """Asked for and stored, but beyond the budget. What is neither here nor found is absent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    """Events that were read, with the values that they name."""

    events: Mapping[EventId, bytes]
    blobs: Blobs


Appended = Stored | Duplicate | MissingBlobs | MissingEvents | OtherGeneration


@dataclass(frozen=True, slots=True, kw_only=True)
class Erase:
    """Removes exactly these events of one generation, by identity, once."""

    thread: ThreadKey
    gen: int
    operation: bytes
    """16 bytes (`digests.operation_id`): a repeat finds it and changes nothing."""
    events: tuple[EventId, ...]
    blobs: tuple[bytes, ...]
    """Blobs that no remaining event names, as far as the caller saw."""
    stored: int
    """Events of the generation that the caller saw. With more than these stored now, nothing is
    erased: a put may have come to name one of the blobs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What an operator should know."""

    url: str
    """Without credentials."""
    promise: str
    """One sentence: what an acknowledged write survives."""
    alarms: tuple[str, ...] = ()
    """What is wrong, if anything, and what to do about it."""
    details: Mapping[str, str] = field(default_factory=dict)


def named(events: Iterable[bytes]) -> tuple[bytes, ...]:
    """Hashes of the values that these events name, each once, in order."""
    return tuple(dict.fromkeys(h for packed in events for h in unpack_event(packed).blobs()))


class Storage(Protocol):
    """One shard."""

    async def open(self) -> None:
        """Takes the storage, migrates an older schema, draws a new actor.

        Raises StorageInUse if another process holds it, Refused for a newer schema.
        """

    async def close(self) -> None:
        """Ends what is under way, durably, and releases the storage. Idempotent."""

    def check(self) -> None:
        """Raises Unavailable where it is known already that nothing may rest on this storage, not
        even a copy in memory: its files were taken away. Costs nothing."""

    @property
    def actor(self) -> int:
        """63 random bits of this process, recorded in the storage, never used again."""

    @property
    def shared(self) -> bool:
        """Whether other routers may write to it while this one does. Fixed from the start."""

    async def facts(self) -> Facts:
        """Read from the engine itself, not from settings."""

    async def system_key(self) -> bytes:
        """32 random bytes shared by all routers of the system; made at the first start. Durable."""

    async def image(self, thread: ThreadKey, known: Known | None = None) -> ThreadImage:
        """The thread's index: every event acknowledged before the call, by whichever router, in
        one snapshot.

        If generation and erasures are still those of `known`, only entries that it does not cover
        come back, and the image says that it is partial. A storage that is not shared, or that
        has less than `known` says, answers with the full one.
        """

    async def append(self, append: Append) -> Appended:
        """Stores one event, its blobs and its log row in one transaction, all or nothing.

        In that transaction: the generation is current, the event is new, `needs` and `names` are
        stored or sent, and the dot is the actor's next in this thread and generation. Durable on
        `Stored`. After Unavailable the outcome is unknown and the same append may be repeated:
        it never makes a second event or a second dot. (Where writers do not see each other, two
        routers that were both given one event may give it a dot each; readers fold them.)
        """

    async def put_blobs(self, thread: ThreadKey, gen: int, blobs: Sequence[NewBlob]) -> bool:
        """Stores blobs without an event. Durable on True; False: another generation, nothing
        written."""

    async def missing_blobs(
        self, thread: ThreadKey, gen: int, hashes: Sequence[bytes]
    ) -> tuple[bytes, ...]:
        """Those of `hashes` that are not stored, in their order."""

    async def events(
        self, thread: ThreadKey, gen: int, ids: Sequence[EventId]
    ) -> Mapping[EventId, bytes]:
        """Canonical bytes by id, checksums verified. An id that was erased, or whose generation
        has ended, is absent; one whose bytes are broken raises DataLoss."""

    async def blobs(
        self, thread: ThreadKey, gen: int, hashes: Sequence[bytes], budget_bytes: int
    ) -> Blobs:
        """Values by hash, rebuilt and verified against their hash, in the order asked until
        `budget_bytes` are used up (the first one always). A broken one raises DataLoss."""

    async def records(
        self, thread: ThreadKey, gen: int, ids: Sequence[EventId], budget_bytes: int
    ) -> Records:
        """As `events`, then as `blobs` for what they name, in one snapshot and one journey."""

    async def blob_sizes(
        self, thread: ThreadKey, gen: int, hashes: Sequence[bytes]
    ) -> Mapping[bytes, int]:
        """Bytes of each value, without reading it."""

    async def delete(self, thread: ThreadKey, gen: int | None, operation: bytes = b"") -> int:
        """Ends generation `gen` (None: the live one): the live one becomes at least `gen + 1`,
        and everything of earlier ones is erased. Returns the live generation. Durable; later
        appends of ended generations find `OtherGeneration`. Works on unknown threads too.

        `operation` is empty or 16 bytes (`digests.operation_id`) that are stored in the same
        transaction: a repeat finds them and ends nothing more."""

    async def erase(self, erase: Erase) -> bool:
        """Prunes. False: the thread changed since the caller looked; nothing was done. True: done,
        now or by an earlier call with the same operation. The entries stay, marked as erased."""

    async def erased(self, thread: ThreadKey, operation: bytes) -> bool:
        """Whether that operation was done. Durable answer."""

    async def threads(self, tenant: str, after: str, limit: int) -> Sequence[str]:
        """Ids greater than `after` of threads with an event that is not erased, in text order."""

    async def slot_threads(
        self, slot: int, after: tuple[int, str, str] | None, limit: int
    ) -> Sequence[tuple[int, ThreadKey]]:
        """(leaf, thread) of a slot by (leaf, tenant, thread), after a cursor of that shape, which
        stays valid over restarts. Names every thread with an acknowledged event; may name empty
        ones."""

    async def newest(
        self, tenant: str, before: tuple[str, str] | None, limit: int
    ) -> Sequence[tuple[str, str]]:
        """(checkpoint id, thread id) of stored checkpoints over all threads of a tenant, greatest
        first, below `before`, duplicates folded. Erased ones are not named."""

    async def threads_of_runs(self, tenant: str, runs: Sequence[str]) -> Sequence[str]:
        """Ids of threads with a checkpoint, not erased, whose metadata names one of the runs."""
