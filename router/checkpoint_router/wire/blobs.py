"""Values in rows of their own: sent whole or as a growth, and those that a reader has already."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from checkpoint_router.core import limits
from checkpoint_router.core.answers import Growth, Held, NewBlob, Values
from checkpoint_router.core.growing import growth_of
from checkpoint_router.core.ids import HASH_BYTES
from checkpoint_router.core.records import Typed
from checkpoint_router.v1 import types_pb2 as pb
from checkpoint_router.wire.checks import checked_hash, checked_size, invalid
from checkpoint_router.wire.events import fill_value

if TYPE_CHECKING:
    from google.protobuf.internal.containers import RepeatedCompositeFieldContainer as Repeated

_HEAD_BYTES_MAX: Final = 5
"""Of a msgpack array header."""


def blobs_of(messages: Sequence[pb.Blob]) -> tuple[NewBlob | Growth, ...]:
    """The blobs that ride in a request. Whether a hash is that of its value is not asked here."""
    checked_size("blobs", len(messages), limits.BLOBS_PER_CALL_MAX, "blobs")
    return tuple([_growth_of(m) if m.keep else _whole_of(m) for m in messages])


def whole_blobs_of(messages: Sequence[pb.Blob]) -> tuple[NewBlob, ...]:
    """As `blobs_of`, in a call that takes no growth."""
    checked_size("blobs", len(messages), limits.BLOBS_PER_CALL_MAX, "blobs")
    for message in messages:
        if message.keep:
            raise invalid("blobs.keep", "is set; this call takes only values that are whole.")
    return tuple(map(_whole_of, messages))


def fill_blobs(messages: "Repeated[pb.Blob]", blobs: Iterable[NewBlob]) -> None:
    """Writes `blobs` into the repeated field `messages`, without the bytes that they kept."""
    for blob in blobs:
        if blob.kept:
            _fill_growth(messages.add(), growth_of(blob))
            continue
        message = messages.add(hash=blob.hash)
        fill_value(message.value, blob.value)
        if blob.continues is not None:
            message.continues = blob.continues


def values_of(messages: Sequence[pb.Blob]) -> Values:
    """The blobs beside an answer that are whole."""
    return tuple(
        (checked_hash("blobs.hash", m.hash), Typed(m.value.type, m.value.data))
        for m in messages
        if not m.keep
    )


def grown_of(messages: Sequence[pb.Blob]) -> tuple[Growth, ...]:
    """The blobs beside an answer that are not whole."""
    return tuple(_growth_of(m) for m in messages if m.keep)


def fill_values(
    messages: "Repeated[pb.Blob]", values: Values, grown: Iterable[Growth] = ()
) -> None:
    """Writes the values of an answer into the repeated field `messages`."""
    for name, value in values:
        fill_value(messages.add(hash=name).value, value)
    for growth in grown:
        _fill_growth(messages.add(), growth)


def held_of(messages: Sequence[pb.HeldBlob]) -> tuple[Held, ...]:
    """What a reader says it has: the first ones, should it say too much."""
    return tuple(
        Held(hash=m.hash, channel=m.channel, head=m.head, keep=m.keep)
        for m in messages[: limits.HELD_MAX]
    )


def fill_held(messages: "Repeated[pb.HeldBlob]", held: Iterable[Held]) -> None:
    """Writes `held` into the repeated field `messages`."""
    for one in held:
        messages.add(hash=one.hash, channel=one.channel, head=one.head, keep=one.keep)


def _whole_of(message: pb.Blob) -> NewBlob:
    # Each field is taken once: every look at one copies it.
    value, hash, continues = message.value, message.hash, message.continues
    tag, data = value.type, value.data
    if len(data) > limits.BLOB_BYTES_MAX:
        checked_size("blobs.value", len(data), limits.BLOB_BYTES_MAX)
    if len(tag) > limits.TYPE_BYTES_MAX:
        checked_size("blobs.value.type", len(tag), limits.TYPE_BYTES_MAX)
    if len(hash) != HASH_BYTES:
        checked_hash("blobs.hash", hash)
    return NewBlob(
        hash=hash,
        value=Typed(tag, data),
        continues=checked_hash("blobs.continues", continues) if continues else None,
    )


def _growth_of(message: pb.Blob) -> Growth:
    value, head, keep = message.value, message.head, message.keep
    tag, tail = value.type, value.data
    checked_size("blobs.value", len(head) + keep + len(tail), limits.BLOB_BYTES_MAX)
    checked_size("blobs.value.type", len(tag), limits.TYPE_BYTES_MAX)
    if len(head) > _HEAD_BYTES_MAX:
        raise invalid("blobs.head", f"has {len(head)} bytes; a head has up to {_HEAD_BYTES_MAX}.")
    return Growth(
        hash=checked_hash("blobs.hash", message.hash),
        tag=tag,
        base=checked_hash("blobs.continues", message.continues),
        keep=keep,
        head=head,
        tail=tail,
    )


def _fill_growth(message: pb.Blob, growth: Growth) -> None:
    message.hash = growth.hash
    fill_value(message.value, Typed(growth.tag, growth.tail))
    message.continues = growth.base
    message.keep = growth.keep
    message.head = growth.head
