"""The envelope around every record that a backend keeps: version, flags, checksum, body.

The checksum finds bytes that changed on disk; it keeps nobody from forging a record. A flag says
how a body was packed, if it was; those that are not known here are of a later version.
"""

import struct
from typing import Final

import xxhash
from lz4 import block

from checkpoint_router.core.errors import DataLoss
from checkpoint_router.core.ids import ThreadKey
from checkpoint_router.storage import words

ENVELOPE_VERSION: Final = 1

_HEAD: Final = struct.Struct(">BBQ")
"""Version, flags, xxh3-64 of the body seeded with both."""

ENVELOPE_BYTES: Final = _HEAD.size
"""What an envelope adds to its body."""


_PACKED: Final = 1
"""The body went through LZ4, which had `words.RECORDS` before it."""


def seal_envelope(body: bytes) -> bytes:
    """`body` with all that is needed to see later that it is whole."""
    return _sealed(body, 0)


def seal_record(record: bytes) -> bytes:
    """As `seal_envelope`, of a record that is read now and then: most of one are the words and ids
    of every other, and it is packed where that makes it smaller."""
    packed = block.compress(record, dict=words.RECORDS)
    return _sealed(packed, _PACKED) if len(packed) < len(record) else _sealed(record, 0)


def _sealed(body: bytes, flags: int) -> bytes:
    checksum = xxhash.xxh3_64_intdigest(body, seed=ENVELOPE_VERSION << 8 | flags)
    return _HEAD.pack(ENVELOPE_VERSION, flags, checksum) + body


def open_envelope(sealed: bytes, thread: ThreadKey, record: object) -> bytes:
    """The body. Raises DataLoss naming `thread` and `record` if it is not what was sealed."""
    if len(sealed) < ENVELOPE_BYTES:
        raise lost(thread, record, f"it has {len(sealed)} bytes, fewer than its envelope")
    version, flags, checksum = _HEAD.unpack_from(sealed)
    body = sealed[ENVELOPE_BYTES:]
    if xxhash.xxh3_64_intdigest(body, seed=version << 8 | flags) != checksum:
        raise lost(thread, record, "it fails its checksum")
    if version != ENVELOPE_VERSION or flags & ~_PACKED:
        raise lost(
            thread, record, f"its envelope (version {version}, flags {flags}) is of a newer release"
        )
    if not flags:
        return body
    try:
        return bytes(block.decompress(body, dict=words.RECORDS))
    except (block.LZ4BlockError, ValueError) as e:
        raise lost(thread, record, f"it cannot be unpacked: {e}") from None


def lost(thread: ThreadKey, record: object, why: str) -> DataLoss:
    """The error for a stored record that cannot be given back."""
    return DataLoss(
        f"{record} of thread {thread.thread!r} (tenant {thread.tenant!r}) cannot be read: {why}. "
        f"Other records and threads are not touched by this. Restore the storage from a backup, "
        f"or delete the thread.",
        tenant=thread.tenant,
        thread=thread.thread,
        record=str(record),
        why=why,
    )
