"""Where a growing value goes: append logs, as decisions without any storage.

A value is split into its head (the msgpack array header, whose count changes as a list grows) and
its body. A log is a run of bytes; a version is (log, head, keep) and reads as head + log[:keep].
A value that continues the newest version of a log adds its tail to it; one that continues an
older version starts a child log, whose first `keep` bytes are its parent's. Offsets and lengths
count from the start of the body, through all parents.

Rules: that a value continues another is proved by the other's content hash, or was seen when it
was rebuilt from the other (`NewBlob.kept`); it is never believed, and a wrong hint costs the saving
and nothing else. What was appended is never changed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from checkpoint_router.core import limits
from checkpoint_router.core.answers import NewBlob
from checkpoint_router.core.digests import blob_hash, head_length


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """A log as it is stored."""

    id: int
    depth: int
    """Parents above it."""
    length: int
    appends: int
    """Pieces that were added to it, merged or not."""

    def merge_due(self) -> bool:
        """Whether one more piece may be one too many."""
        return (self.appends + 1) % limits.LOG_SEGMENTS_MAX == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """A stored value without its bytes."""

    hash: bytes
    tag: str
    head: bytes
    keep: int
    """Bytes of its body."""
    log: Log | None
    """None: it is stored whole."""


@dataclass(frozen=True, slots=True)
class Whole:
    """Store all of its bytes in a row of its own."""


@dataclass(frozen=True, slots=True)
class Start:
    """Make a log of the base, which is stored whole, and append the tail to it."""

    head: bytes
    tail: bytes


@dataclass(frozen=True, slots=True)
class Extend:
    """Append the tail to the log that the base ends."""

    log: Log
    head: bytes
    tail: bytes


@dataclass(frozen=True, slots=True)
class Branch:
    """Make a child of the log, from the base's end, and append the tail to it."""

    parent: Log
    keep: int
    head: bytes
    tail: bytes


Placement = Whole | Start | Extend | Branch
WHOLE = Whole()


def place(blob: NewBlob, base: Version | None) -> Placement:
    """How to store `blob`, of which `base` is believed to be an older version."""
    data = blob.value.data
    if base is None or not worth_a_log(blob) or base.tag != blob.value.tag:
        return WHOLE
    if len(base.head) + base.keep < limits.LOG_BYTES_MIN:
        return WHOLE
    cut = head_length(blob.value.tag, data)
    if not cut <= cut + base.keep <= len(data) <= limits.LOG_BYTES_MAX:
        return WHOLE
    seen = blob.continues == base.hash and blob.kept >= base.keep
    if not seen and blob_hash(base.tag, base.head + data[cut : cut + base.keep]) != base.hash:
        return WHOLE
    head, tail = data[:cut], data[cut + base.keep :]
    if base.log is None:
        return Start(head, tail)
    if base.log.length == base.keep:
        return Extend(base.log, head, tail)
    if base.log.depth < limits.LOG_DEPTH_MAX:
        return Branch(base.log, base.keep, head, tail)
    return WHOLE


def worth_a_log(blob: NewBlob) -> bool:
    """Whether it pays to look for the value that `blob` continues."""
    return blob.continues is not None and len(blob.value.data) >= limits.LOG_BYTES_MIN


@dataclass(frozen=True, slots=True)
class SegmentRow:
    """A stored piece of a log, without its bytes."""

    offset: int
    tier: int
    """How often its bytes were merged."""
    size: int


def merge(newest: Sequence[SegmentRow]) -> SegmentRow | None:
    """The row that replaces the newest rows of a log (given newest first), or None.

    16 of one tier become one of the next, so a log of n appends has at most 15 rows a tier, and
    each byte is rewritten once a tier.
    """
    group = newest[: limits.LOG_SEGMENTS_MAX]
    if len(group) < limits.LOG_SEGMENTS_MAX or len({row.tier for row in group}) > 1:
        return None
    size = sum(row.size for row in group)
    if size > limits.LOG_SEGMENT_BYTES_MAX:
        return None
    return SegmentRow(group[-1].offset, group[-1].tier + 1, size)
