"""Names of things: checked where they enter, never normalised, so that two ids never alias."""

import re
from typing import Final, NewType

import msgspec
import xxhash

from checkpoint_router.core import limits
from checkpoint_router.core.errors import InvalidArgument, LimitExceeded

SegmentId = NewType("SegmentId", bytes)
"""16 random bytes: the events that one process writes from one read."""

SEGMENT_BYTES: Final = 16
HASH_BYTES: Final = 32

_TAG = re.compile(r"[^{]*\{([^}]+)\}")


class EventId(msgspec.Struct, frozen=True, order=True, array_like=True, gc=False, cache_hash=True):
    """Names one event for ever, however many copies of it exist.

    The client fixes it before its first try, so a retry through any router is the same event.
    """

    segment: SegmentId
    index: int
    """Counts from 1 in the order in which the run made its calls, not in which they arrived."""

    def __str__(self) -> str:
        return f"{self.segment.hex()[:8]}/{self.index}"


class ThreadKey(msgspec.Struct, frozen=True, order=True, gc=False, cache_hash=True):
    """A tenant's thread: the unit of placement, causality, conflict, ordering and deletion."""

    tenant: str
    thread: str

    @classmethod
    def of(cls, tenant: str, thread: str) -> "ThreadKey":
        """Checks both names. Raises InvalidArgument or LimitExceeded."""
        return cls(checked_tenant(tenant), checked_id("thread_id", thread))


class Dot(msgspec.Struct, frozen=True, order=True, gc=False):
    """The place of one copy of an event in one router process' log of the thread."""

    actor: int
    """63 random bits that a router process draws at its start and nobody uses again."""
    n: int


def checked_id(what: str, value: str, *, empty: bool = False) -> str:
    """`value` if it may be used as an id called `what`; says what is wrong with it if not."""
    usual = type(value) is str and value.isascii() and 0 < len(value) <= limits.ID_BYTES_MAX
    if usual and "\x00" not in value:
        return value
    if type(value) is not str:
        if not isinstance(value, str):
            raise InvalidArgument(f"{what} must be text, not {type(value).__name__}.", field=what)
        value = str(value)
    if not value and not empty:
        raise InvalidArgument(f"{what} is empty. Give it a non-empty text.", field=what)
    if len(value) > limits.ID_BYTES_MAX:
        raise _too_long(what, len(value))
    if "\x00" in value:
        raise InvalidArgument(f"{what} contains a NUL character, which no id may.", field=what)
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise InvalidArgument(
            f"{what} contains a lone surrogate, which has no UTF-8 form. Use valid text.",
            field=what,
        ) from None
    if size > limits.ID_BYTES_MAX:
        raise _too_long(what, size)
    return value


def checked_tenant(value: str) -> str:
    """`value` if it may name a tenant."""
    usual = type(value) is str and 0 < len(value) <= limits.TENANT_BYTES_MAX and value.isascii()
    if usual and "\x00" not in value:
        return value
    if checked_id("tenant", value) and len(value.encode()) > limits.TENANT_BYTES_MAX:
        raise LimitExceeded(
            f"tenant is longer than {limits.TENANT_BYTES_MAX} bytes. Use a shorter name.",
            field="tenant",
        )
    return value


def _too_long(what: str, size: int) -> LimitExceeded:
    return LimitExceeded(
        f"{what} has {size} bytes; the limit is {limits.ID_BYTES_MAX}. Use a shorter id.",
        field=what,
    )


def checked_segment(value: bytes) -> SegmentId:
    """`value` as a segment id, if it has the size of one."""
    if len(value) != SEGMENT_BYTES:
        raise InvalidArgument(
            f"a segment id has {SEGMENT_BYTES} bytes, not {len(value)}.", field="segment"
        )
    return SegmentId(value)


def slot_of(name: str) -> int:
    """The slot of a thread or user id: a pure function of the text.

    The text between the first `{` and the next `}` decides if there is any, else the whole id, so
    that `{user-7}:session-3` lives with `user-7` (the rule of Redis Cluster's hash tags).
    """
    tag = _TAG.match(name)
    return xxhash.xxh3_64_intdigest((tag.group(1) if tag else name).encode()) % limits.SLOTS


def leaf_of(name: str) -> int:
    """The first 16 bits of the thread id's hash: its place in digest trees, whatever its shard."""
    return xxhash.xxh3_64_intdigest(name.encode(), seed=1) >> 48
