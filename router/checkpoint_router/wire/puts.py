"""The bytes of a put, written by hand: those that protobuf would write.

A put is most of what a saver sends, and a handful of fields of which nearly all are bytes already.
As a message it would be set field by field, with each value copied once to get in and once to get
out; that took as long as all else of a put's way between its record and its frame.
"""

from collections.abc import Iterable
from typing import Final

from checkpoint_router.core.answers import NewBlob
from checkpoint_router.core.growing import growth_of
from checkpoint_router.core.ids import ThreadKey
from checkpoint_router.wire.frames import varint

# Field number and wire type: of PutRequest and PutWritesRequest, which are alike,
_TENANT: Final = b"\x0a"
_THREAD: Final = b"\x12"
_EVENT: Final = b"\x1a"
_BLOBS: Final = b"\x22"
# of Event,
_DIGEST: Final = b"\x6a"
_PACKED: Final = b"\x72"
# of Blob,
_HASH: Final = b"\x0a"
_VALUE: Final = b"\x12"
_CONTINUES: Final = b"\x1a"
_KEEP: Final = b"\x20"
_HEAD: Final = b"\x2a"
# and of Value.
_TYPE: Final = b"\x0a"
_DATA: Final = b"\x12"


def put_bytes(thread: ThreadKey, packed: bytes, digest: bytes, blobs: Iterable[NewBlob]) -> bytes:
    """A PutRequest, or for a write set a PutWritesRequest, with a packed event and its digest. Of
    the blobs it has the bytes that were not kept."""
    event = _field(_DIGEST, digest) + _field(_PACKED, packed)
    parts = [
        _field(_TENANT, thread.tenant.encode()),
        _field(_THREAD, thread.thread.encode()),
        _field(_EVENT, event),
    ]
    for blob in blobs:
        tag, data, after = blob.value.tag, blob.value.data, b""
        if blob.kept:
            growth = growth_of(blob)
            data = growth.tail
            after = _KEEP + varint(growth.keep) + _field(_HEAD, growth.head)
        if blob.continues is not None:
            after = _field(_CONTINUES, blob.continues) + after
        # The value's own bytes are copied once, when all is joined.
        value = _field(_TYPE, tag.encode()) + _DATA + varint(len(data))
        named = _field(_HASH, blob.hash) + _VALUE + varint(len(value) + len(data)) + value
        size = len(named) + len(data) + len(after)
        parts += (_BLOBS, varint(size), named, data, after)
    return b"".join(parts)


def _field(key: bytes, data: bytes) -> bytes:
    return key + varint(len(data)) + data
