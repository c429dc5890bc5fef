"""The read part of a causal token: what a read saw, in bytes that only a router can make.

A token carries a MAC under a key that all routers of a system share (they keep it in their
storages), so a client can neither claim to have seen what it has not, nor use another thread's.
Routers never decide base, seen, generation or stamps of an event: they take them from here.
"""

import hmac
from hashlib import blake2b
from typing import Final

import msgspec

from checkpoint_router.core import limits
from checkpoint_router.core.clock import Frontier, checked_frontier
from checkpoint_router.core.errors import TokenInvalid
from checkpoint_router.core.ids import EventId, SegmentId, checked_segment

VERSION: Final = 1
MAC_BYTES: Final = 16
KEY_BYTES: Final = 32


class Cut(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Leaves out what stands in a namespace after an event; all of it, if there is none."""

    ns: str
    last: EventId | None
    late: tuple[EventId, ...] | None = None
    """What stands after it and belongs to it all the same. None: every write set on a checkpoint
    that is not left out, since a run stores a step's writes while it stores the checkpoint after
    it, in whichever order."""


class Base(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """What a segment continues."""

    segment: SegmentId
    """The winner when the run read, or for a read by id the segment whose lineage has it."""
    cuts: tuple[Cut, ...] = ()
    """For a read by id: where that lineage is cut, in the namespace that was read. A journey into
    one namespace's past leaves the others where they are: an id says nothing of them."""
    by_id: bool = False
    """The read named a checkpoint that is not the newest. Whether a run goes on from there shows
    when it puts one (`core.history.Segment.note`)."""


class ReadToken(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """What a region showed when a run read."""

    thread: bytes
    """`digests.thread_hash` of the thread."""
    gen: int
    base: Base | None
    """None where the thread was empty."""
    seen: Frontier
    hlc: int
    """Above every event of the thread at that time."""
    term: int
    epoch: int
    """Of the slot table that the router used."""


_ENCODER: Final = msgspec.msgpack.Encoder()
_VERSIONED: Final = msgspec.msgpack.Decoder(tuple[int, msgspec.Raw])
_TOKENS: Final = msgspec.msgpack.Decoder(ReadToken)


def seal(token: ReadToken, key: bytes) -> bytes:
    """`token` as bytes with their MAC."""
    packed = _ENCODER.encode((VERSION, token))
    return _mac(packed, key) + packed


def unseal(sealed: bytes, key: bytes) -> ReadToken:
    """The token in `sealed`. Raises TokenInvalid if no router of this system made it."""
    if len(sealed) > limits.TOKEN_BYTES_MAX:
        raise TokenInvalid(
            f"the causal token has {len(sealed)} bytes; the limit is {limits.TOKEN_BYTES_MAX}. "
            f"Read the thread again."
        )
    mac, packed = sealed[:MAC_BYTES], sealed[MAC_BYTES:]
    if not hmac.compare_digest(mac, _mac(packed, key)):
        raise TokenInvalid(
            "the causal token was not made by this system: the router that answers now has "
            "another storage than the one that gave it, or the token was changed on its way. "
            "Nothing was written. Check that all addresses of the saver are routers of one "
            "storage; then start the run again from a fresh read."
        )
    return parse(sealed)


def parse(sealed: bytes) -> ReadToken:
    """The token in `sealed`, unverified: for bytes that come from our own storage."""
    try:
        version, packed = _VERSIONED.decode(sealed[MAC_BYTES:])
        if version != VERSION:
            raise TokenInvalid(
                f"the causal token has version {version}; this router knows {VERSION}. "
                f"Upgrade the older side, then start the run again."
            )
        token = _TOKENS.decode(packed)
        checked_frontier(token.seen)
        if token.base is not None:
            checked_segment(token.base.segment)
            for cut in token.base.cuts:
                for event in (cut.last, *(cut.late or ())):
                    if event is not None:
                        checked_segment(event.segment)
        return token
    except ValueError as e:
        raise TokenInvalid(f"the causal token cannot be read: {e}") from None


def _mac(packed: bytes, key: bytes) -> bytes:
    return blake2b(packed, key=key, digest_size=MAC_BYTES).digest()
