"""Envelopes: what comes back is what was sealed, or an error that says why it is not."""

import struct

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from checkpoint_router.core.errors import DataLoss
from checkpoint_router.core.records import pack_event
from checkpoint_router.storage import words
from checkpoint_router.storage.codec import open_envelope, seal_envelope, seal_record
from tests import builders as b


def sealed(body: bytes, version: int, flags: int) -> bytes:
    """An envelope whose checksum is right."""
    checksum = xxhash.xxh3_64_intdigest(body, seed=version << 8 | flags)
    return struct.pack(">BBQ", version, flags, checksum) + body


usual = st.lists(
    st.binary(max_size=40) | st.integers(0, len(words.RECORDS)).map(lambda n: words.RECORDS[n:]),
    max_size=6,
).map(b"".join)


@given(usual)
def test_a_record_comes_back_and_is_never_larger_than_it_was(record: bytes) -> None:
    assert open_envelope(seal_envelope(record), b.THREAD, "it") == record
    packed = seal_record(record)
    assert open_envelope(packed, b.THREAD, "it") == record
    assert len(packed) <= len(seal_envelope(record))


def test_an_ordinary_record_is_packed() -> None:
    record = pack_event(
        b.checkpoint_event(body=b"versions_seen __input__ __start__ branch:to:agent")
    )
    assert len(seal_record(record)) < 0.8 * len(seal_envelope(record))


@pytest.mark.parametrize(
    ("envelope", "why"),
    [
        (sealed(b"x", 2, 0), "newer release"),
        (sealed(b"x", 1, 2), "newer release"),
        (sealed(b"x", 1, 1), "cannot be unpacked"),
        (sealed(b"\xff\xff\xff\x7fx", 1, 1), "cannot be unpacked"),
        (seal_record(b"a" * 99)[:-1], "checksum"),
        (b"\x01\x01", "fewer than its envelope"),
    ],
)
def test_what_cannot_be_opened_is_named_with_the_reason(envelope: bytes, why: str) -> None:
    with pytest.raises(DataLoss, match=f"it of thread 't1'.*{why}"):
        open_envelope(envelope, b.THREAD, "it")
