"""Values that continue others: what has to be sent of them, and their names for the cost of that.

A value is its head (the msgpack array header, whose count changes as a list grows) and its body
(`digests.head_length`). One whose body begins as another's does is sent as a `Growth`: the other's
name, how much of its body is kept, and the rest.

Rules: a growth is believed by nobody. Whoever rebuilds a value names it by its bytes; what does
not get the name that was promised is as good as not sent, and is asked for whole.
"""

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Final

import msgspec

from checkpoint_router.core.answers import CheckpointTuple, Growth, Held, NewBlob
from checkpoint_router.core.digests import blob_name, body_hasher, head_length
from checkpoint_router.core.limits import KIB
from checkpoint_router.core.records import Blob, Typed

KEEP_BYTES_MIN: Final = 512
"""A value that shares less with its older self is sent whole: the other's name has a price too."""

_BLOCK: Final = 64 * KIB
"""Bytes that are compared at once. Larger: each comparison waits for fresh memory."""

_BLOCK_MIN: Final = 1 * KIB
"""Bytes within which the end of what two values share is not looked for."""


class Named(msgspec.Struct, frozen=True, gc=False):
    """A value whose name was made from its bytes, here."""

    hash: bytes
    value: Typed
    cut: int
    """Bytes of its head."""
    hasher: blake2b
    """Of its tag and body: a longer value's name goes on from it."""

    @property
    def keep(self) -> int:
        """Bytes of its body."""
        return len(self.value.data) - self.cut


def named(value: Typed, base: Named | None = None) -> Named:
    """Names a value. Its body begins with that of `base`, if one is given: only the rest is
    hashed."""
    cut = head_length(value.tag, value.data)
    body = memoryview(value.data)[cut:]
    if base is None:
        hasher = body_hasher(value.tag, body)
    else:
        hasher = base.hasher.copy()
        hasher.update(body[base.keep :])
    name = blob_name(hasher.copy(), value.data[:cut])
    return Named(name, value, cut, hasher)


def begin_alike(older: Typed, value: Typed) -> bool:
    """Whether `value` may be sent as a growth of `older`, by the first bytes of both bodies."""
    if older.tag != value.tag:
        return False
    at = head_length(older.tag, older.data)
    first = older.data[at : at + KEEP_BYTES_MIN]
    if len(first) < KEEP_BYTES_MIN:
        return False
    return value.data.startswith(first, head_length(value.tag, value.data))


def shared(base: Named, value: Typed) -> int:
    """Bytes with which both bodies begin: all of the base's, or about as many as they have in
    common, or 0 if that is little."""
    ours, theirs = value.data, base.value.data
    if not begin_alike(base.value, value):
        return 0
    cut = head_length(value.tag, ours)
    end = min(base.keep, len(ours) - cut)
    at, size = 0, _BLOCK
    while at < end and size >= _BLOCK_MIN:
        block = theirs[base.cut + at : base.cut + min(at + size, end)]
        if ours.startswith(block, cut + at):
            at += len(block)
        else:
            size //= 4
    return at if at >= KEEP_BYTES_MIN else 0


def new_blob(value: Typed, base: Named | None, continues: bytes | None) -> tuple[NewBlob, Named]:
    """A value on its way to storage, seen beside `base`, which it may continue. Without that one
    here, nobody can tell yet, and the storage looks; a base of which nothing is kept is no hint."""
    kept = 0 if base is None else shared(base, value)
    new = named(value, base if base is not None and kept == base.keep > 0 else None)
    hint = continues if kept or base is None else None
    return NewBlob(hash=new.hash, value=value, continues=hint, kept=kept), new


def growth_of(blob: NewBlob) -> Growth:
    """What is sent of a blob of which something is kept."""
    tag, data = blob.value.tag, blob.value.data
    assert blob.continues is not None
    cut = head_length(tag, data)
    return Growth(
        hash=blob.hash,
        tag=tag,
        base=blob.continues,
        keep=blob.kept,
        head=data[:cut],
        tail=data[cut + blob.kept :],
    )


def growth_from(base: Held, hash: bytes, value: Typed) -> Growth | None:
    """What `value` has beyond one that a reader holds; None if it does not continue that. It need
    not be read for that: that the bytes up to its length make its name shows that they are its."""
    tag, data = value.tag, value.data
    cut = head_length(tag, data)
    end = cut + base.keep
    if base.keep < KEEP_BYTES_MIN or end > len(data):
        return None
    if blob_name(body_hasher(tag, memoryview(data)[cut:end]), base.head) != base.hash:
        return None
    return Growth(
        hash=hash, tag=tag, base=base.hash, keep=base.keep, head=data[:cut], tail=data[end:]
    )


def growths(
    found: CheckpointTuple, blobs: Mapping[bytes, Typed], held: Sequence[Held]
) -> tuple[tuple[Growth, ...], dict[bytes, Typed]]:
    """Those of `blobs` that grew from what the reader has in their channel, and the others."""
    bases = {h.channel: h for h in held if h.keep}
    whole, grown = dict(blobs), []
    for entry in found.checkpoint.manifest:
        base = bases.get(entry.channel)
        if base is None or not isinstance(entry.content, Blob):
            continue
        hash = entry.content.hash
        growth = growth_from(base, hash, whole[hash]) if hash in whole else None
        if growth is not None:
            del whole[hash]
            grown.append(growth)
    return tuple(grown), whole


def held(channel: str, named: Named) -> Held:
    """What a reader says of a value that it has."""
    head = named.value.data[: named.cut]
    return Held(hash=named.hash, channel=channel, head=head, keep=named.keep)


def rebuilt(growth: Growth, base: Named) -> Named | None:
    """The value that was meant; None if `base` does not make it."""
    if growth.keep > base.keep or growth.tag != base.value.tag:
        return None
    body = memoryview(base.value.data)[base.cut : base.cut + growth.keep]
    value = Typed(growth.tag, b"".join((growth.head, body, growth.tail)))
    if head_length(growth.tag, value.data) != len(growth.head):
        return None
    made = named(value, base if growth.keep == base.keep else None)
    return made if made.hash == growth.hash else None
