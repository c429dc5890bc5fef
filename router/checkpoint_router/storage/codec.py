"""The envelope around every record that a backend keeps: version, flags, checksum, body.

The checksum finds bytes that changed on disk; it keeps nobody from forging a record. Flags are
for what a later version may do to a body (compression); this one sets and knows none.
"""

import struct
from typing import Final

import xxhash

from checkpoint_router.core.errors import DataLoss
from checkpoint_router.core.ids import ThreadKey

ENVELOPE_VERSION: Final = 1

_HEAD: Final = struct.Struct(">BBQ")
"""Version, flags, xxh3-64 of the body seeded with both."""

ENVELOPE_BYTES: Final = _HEAD.size
"""What an envelope adds to its body."""


def seal_envelope(body: bytes) -> bytes:
    """`body` with all that is needed to see later that it is whole."""
    checksum = xxhash.xxh3_64_intdigest(body, seed=ENVELOPE_VERSION << 8)
    return _HEAD.pack(ENVELOPE_VERSION, 0, checksum) + body


def open_envelope(sealed: bytes, thread: ThreadKey, record: object) -> bytes:
    """The body. Raises DataLoss naming `thread` and `record` if it is not what was sealed."""
    if len(sealed) < ENVELOPE_BYTES:
        raise lost(thread, record, f"it has {len(sealed)} bytes, fewer than its envelope")
    version, flags, checksum = _HEAD.unpack_from(sealed)
    body = sealed[ENVELOPE_BYTES:]
    if xxhash.xxh3_64_intdigest(body, seed=version << 8 | flags) != checksum:
        raise lost(thread, record, "it fails its checksum")
    if version != ENVELOPE_VERSION or flags:
        raise lost(
            thread, record, f"its envelope (version {version}, flags {flags}) is of a newer release"
        )
    return body


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
