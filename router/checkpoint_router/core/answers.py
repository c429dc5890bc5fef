"""Questions and answers between the engine and whoever asks it: values without any transport."""

from dataclasses import dataclass
from enum import Enum

import msgspec

from checkpoint_router.core.clock import Ranges
from checkpoint_router.core.conflicts import Conflict
from checkpoint_router.core.ids import EventId, SegmentId, ThreadKey
from checkpoint_router.core.records import (
    Checkpoint,
    Content,
    MetadataEntry,
    Typed,
)

Values = tuple[tuple[bytes, Typed], ...]
"""Values with their hashes, each once."""


class NewBlob(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A value on its way to storage."""

    hash: bytes
    value: Typed
    continues: bytes | None = None
    """The value that this one is believed to continue: a hint."""
    kept: int = 0
    """Bytes of that value's body that were seen, byte by byte, to be the first of its own."""


class Growth(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A value that was not sent whole: see `core.growing`."""

    hash: bytes
    tag: str
    base: bytes
    """The value that it continues."""
    keep: int
    """Bytes of the base's body with which its own begins."""
    head: bytes
    tail: bytes


class Held(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A value that a reader has."""

    hash: bytes
    channel: str = ""
    """What held it when it was last seen; of what it grew into since, the rest is enough."""
    head: bytes = b""
    keep: int = 0
    """Bytes of its body."""


class ThreadClock(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Where a thread stands."""

    gen: int
    """The live generation, counting from 1."""
    hlc: int
    term: int
    epoch: int


class Session(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a call of a run knows."""

    token: bytes
    segment: SegmentId | None = None
    acknowledged: Ranges = ()
    inside: bool = True
    """True: the call is inside that run and is answered from its own lineage. False: the answer
    is the winner's, but must rest on all that the token names."""


class PutAnswer(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Stored and durable, or (missing is not empty) nothing was written."""

    missing: tuple[bytes, ...]
    clock: ThreadClock


class PendingWrite(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One row of the folded pending writes of a checkpoint."""

    task_id: str
    task_path: str
    idx: int
    channel: str
    content: Content


class CheckpointTuple(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A checkpoint with everything resolved but its blobs."""

    ns: str
    checkpoint_id: str
    checkpoint: Checkpoint
    pending_writes: tuple[PendingWrite, ...]
    token: bytes
    hlc: int
    event: EventId


class ReadAnswer(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One read."""

    blobs: Values
    """Of the tuple, each once, less those that the reader has, as far as they fit beside it."""
    grown: tuple[Growth, ...] = ()
    """Values of which the rest is enough, the reader having what they continue."""
    clock: ThreadClock
    token: bytes
    """Of the read, also where there was nothing to show."""
    tuple: CheckpointTuple | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MetadataFilter:
    """The key is present and its JSON value matches."""

    key: str
    json: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ListQuery:
    """What to list."""

    tenant: str
    thread: str | None
    ns: str | None
    checkpoint_id: str | None
    before: str | None
    filters: tuple[MetadataFilter, ...] = ()
    limit: int | None = None
    cursor: bytes = b""
    session: Session | None = None
    losers: bool = False
    with_blobs: bool = True
    held: tuple[bytes, ...] = ()
    """Values that the reader has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One listed checkpoint."""

    thread: str
    tuple: CheckpointTuple
    clock: ThreadClock


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A page of a listing; `cursor` is empty at the end."""

    listed: tuple[Listed, ...]
    blobs: Values
    cursor: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class DeltaHistory:
    """What one delta channel is rebuilt from."""

    channel: str
    writes: tuple[PendingWrite, ...]
    """Oldest first."""
    seed: Content | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeltaAnswer:
    """One history for each channel."""

    channels: tuple[DeltaHistory, ...]
    blobs: Values


class PruneStrategy(Enum):
    """What prune leaves."""

    KEEP_LATEST = "keep_latest"
    DELETE = "delete"


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """What a prune or a delete over many threads removed."""

    threads: int
    events: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadSummary:
    """One line of a list of threads."""

    thread: ThreadKey
    gen: int
    checkpoints: int
    events: int
    open_conflicts: int
    head: str | None
    updated_unix_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteSummary:
    """A pending write without its value."""

    task_id: str
    task_path: str
    channel: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One checkpoint of a thread's tree."""

    ns: str
    checkpoint_id: str
    parent_id: str | None
    metadata: tuple[MetadataEntry, ...]
    record_bytes: int
    value_bytes: int
    new_bytes: int
    writes: tuple[WriteSummary, ...]
    hlc: int
    head: bool
    on_winner: bool
    loser: bool
    segment: SegmentId


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """A thread as it can be drawn."""

    nodes: tuple[Node, ...]
    """By checkpoint id, ascending."""
    orphans: tuple[WriteSummary, ...]
    clock: ThreadClock
    open_conflicts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadConflicts:
    """A thread's conflict records."""

    conflicts: tuple[Conflict, ...]
    clock: ThreadClock


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterFacts:
    """What a router is and what its storage promises."""

    version: str
    actor: int
    storage: str
    promises: tuple[str, ...]
    alarms: tuple[str, ...]
    epoch: int
    facts: tuple[tuple[str, str], ...]
