"""Tokens, records and hashes: bytes that all sides must make and read alike."""

from __future__ import annotations

import contextlib
import re
from hashlib import blake2b
from pathlib import Path

import ormsgpack
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec import structs

from checkpoint_router.core import limits
from checkpoint_router.core.clock import (
    Ranges,
    ranges_of,
)
from checkpoint_router.core.digests import (
    blob_hash,
    conflict_id,
    copied,
    event_digest,
    head_length,
    operation_id,
    thread_hash,
)
from checkpoint_router.core.errors import (
    DataLoss,
    LimitExceeded,
    TokenInvalid,
)
from checkpoint_router.core.ids import EventId, SegmentId, ThreadKey
from checkpoint_router.core.records import (
    BY_VERSION,
    EMPTY,
    Blob,
    ChannelEntry,
    Checkpoint,
    Content,
    Event,
    Header,
    MetadataEntry,
    TaskWrites,
    Typed,
    WriteRow,
    WriteSet,
    entry_of,
    pack_entry,
    pack_event,
    unpack_entry,
    unpack_event,
)
from checkpoint_router.core.token import Base, Cut, ReadToken, seal, unseal

KEY = bytes(range(32))

bounded = settings(max_examples=150, deadline=None, derandomize=True, database=None)

segments = st.binary(min_size=16, max_size=16).map(SegmentId)
event_ids = st.builds(EventId, segments, st.integers(1, limits.INDEX_MAX))
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
some_ranges = st.sets(st.integers(1, 60), max_size=12).map(ranges_of)
frontiers = st.dictionaries(segments, some_ranges, max_size=5).map(lambda d: tuple(d.items()))
typed = st.builds(Typed, texts, st.binary(max_size=20))
contents: st.SearchStrategy[Content] = st.one_of(
    typed,
    st.builds(Blob, st.binary(min_size=32, max_size=32)),
    st.just(EMPTY),
    st.just(BY_VERSION),
)
versions = st.one_of(st.none(), texts, st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False))
checkpoints = st.builds(
    Checkpoint,
    parent_id=st.none() | texts,
    body=typed,
    manifest=st.lists(st.builds(ChannelEntry, texts, versions, contents), max_size=4).map(tuple),
    metadata=st.lists(
        st.builds(MetadataEntry, texts.map(lambda t: "k" + t), texts | typed), max_size=3
    ).map(tuple),
)
task_writes = st.builds(
    TaskWrites,
    task_id=texts,
    task_path=texts,
    rows=st.lists(
        st.builds(WriteRow, st.integers(-5, 10_000), texts | st.just("__resume__"), contents),
        max_size=4,
    ).map(tuple),
)
write_sets = st.builds(WriteSet, tasks=st.lists(task_writes, max_size=3).map(tuple))
headers = st.builds(
    Header, token=st.binary(max_size=40), gives_up=st.lists(event_ids, max_size=3).map(tuple)
)
stamps = st.integers(0, limits.INTEGER_MAX)
events = st.builds(
    Event,
    id=event_ids,
    ns=texts,
    checkpoint_id=texts,
    gen=stamps,
    term=stamps,
    hlc=stamps,
    after=some_ranges,
    header=st.none() | headers,
    content=checkpoints | write_sets,
)
tokens = st.builds(
    ReadToken,
    thread=st.binary(min_size=16, max_size=16),
    gen=stamps,
    base=st.none()
    | st.builds(
        Base,
        segment=segments,
        cuts=st.lists(st.builds(Cut, texts, st.none() | event_ids), max_size=3).map(tuple),
    ),
    seen=frontiers,
    hlc=stamps,
    term=stamps,
    epoch=stamps,
)


# Tokens ------------------------------------------------------------------------------------------


@bounded
@given(tokens)
def test_a_sealed_token_is_read_back_as_it_was(token: ReadToken) -> None:
    assert unseal(seal(token, KEY), KEY) == token


@bounded
@given(tokens, st.data())
def test_a_token_with_any_byte_changed_is_refused(token: ReadToken, data: st.DataObject) -> None:
    sealed = bytearray(seal(token, KEY))
    at = data.draw(st.integers(0, len(sealed) - 1))
    sealed[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(TokenInvalid):
        unseal(bytes(sealed), KEY)


@bounded
@given(tokens, st.data())
def test_a_token_cut_short_or_made_longer_is_refused(token: ReadToken, data: st.DataObject) -> None:
    sealed = seal(token, KEY)
    cut = data.draw(st.integers(0, len(sealed) - 1))
    for forged in (sealed[:cut], sealed + data.draw(st.binary(min_size=1, max_size=4))):
        with pytest.raises(TokenInvalid):
            unseal(forged, KEY)


def token_of(seen: tuple[tuple[SegmentId, Ranges], ...]) -> ReadToken:
    return ReadToken(thread=bytes(16), gen=1, base=None, seen=seen, hlc=0, term=0, epoch=0)


def test_a_token_of_another_system_is_refused() -> None:
    with pytest.raises(TokenInvalid):
        unseal(seal(token_of(()), KEY), bytes(32))


def test_a_token_of_another_version_says_so() -> None:
    packed = ormsgpack.packb((99, (bytes(16), 1, None, (), 0, 0, 0)))
    sealed = blake2b(packed, key=KEY, digest_size=16).digest() + packed
    with pytest.raises(TokenInvalid, match="version 99"):
        unseal(sealed, KEY)


def test_a_token_that_names_too_much_is_over_the_limit() -> None:
    many = tuple(
        (SegmentId(n.to_bytes(16, "big")), ((1, 1),))
        for n in range(limits.FRONTIER_ENTRIES_MAX + 1)
    )
    assert unseal(seal(token_of(many[:-1]), KEY), KEY).seen == many[:-1]
    with pytest.raises(LimitExceeded):
        unseal(seal(token_of(many), KEY), KEY)
    holes = tuple((2 * n, 2 * n) for n in range(1, limits.SEEN_RANGES_MAX + 2))
    segment = SegmentId(bytes(16))
    assert unseal(seal(token_of(((segment, holes[:-1]),)), KEY), KEY).seen[0][1] == holes[:-1]
    with pytest.raises(LimitExceeded):
        unseal(seal(token_of(((segment, holes),)), KEY), KEY)


def test_a_token_larger_than_the_limit_is_refused_before_it_is_read() -> None:
    with pytest.raises(TokenInvalid, match="limit"):
        unseal(bytes(limits.TOKEN_BYTES_MAX + 1), KEY)


# Records -----------------------------------------------------------------------------------------


@bounded
@given(events)
def test_an_event_is_read_back_from_its_bytes_and_has_one_form(event: Event) -> None:
    packed = pack_event(event)
    again = unpack_event(packed)
    assert again == event
    assert pack_event(again) == packed


@bounded
@given(events, events)
def test_two_events_share_a_digest_only_if_they_are_equal(one: Event, two: Event) -> None:
    changed = structs.replace(one, hlc=one.hlc ^ 1)
    digests = {event_digest(pack_event(e)) for e in (one, two, changed)}
    # repr tells 1 from 1.0, which are equal in Python and two versions of a channel.
    assert len(digests) == len({repr(one), repr(two), repr(changed)})


@bounded
@given(events, st.booleans())
def test_an_index_entry_is_read_back_from_its_bytes(event: Event, erased: bool) -> None:
    packed = pack_event(event)
    entry = structs.replace(entry_of(event, event_digest(packed)), erased=erased)
    assert unpack_entry(pack_entry(entry)) == entry


@bounded
@given(events, st.data())
def test_bytes_that_are_no_record_are_a_loss_and_never_a_crash(
    event: Event, data: st.DataObject
) -> None:
    packed = bytearray(pack_event(event))
    at = data.draw(st.integers(0, len(packed) - 1))
    packed[at] ^= data.draw(st.integers(1, 255))
    for broken in (bytes(packed), bytes(packed[:at])):
        for unpack in (unpack_event, unpack_entry):
            with contextlib.suppress(DataLoss):  # anything else is raised
                unpack(broken)


REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "encoding.md"


def test_an_event_has_the_bytes_and_the_digest_of_the_reference() -> None:
    """What another language makes from docs/reference/encoding.md. A change of these bytes would
    make stored threads unreadable."""
    event = Event(
        id=EventId(SegmentId(bytes(range(16))), 2),
        ns="",
        checkpoint_id="c2",
        gen=1,
        term=0,
        hlc=65536,
        after=((1, 1),),
        header=None,
        content=Checkpoint(
            parent_id="c1",
            body=Typed("msgpack", b"\x80"),
            manifest=(
                ChannelEntry("messages", "2", Blob(bytes(32))),
                ChannelEntry("step", 7, EMPTY),
            ),
            metadata=(MetadataEntry("source", '"loop"'),),
        ),
    )
    text = REFERENCE.read_text()
    example = text[text.index("```\n99") + 4 :].split("```")[0]
    columns = (re.split(" {3,}", line.strip())[0] for line in example.splitlines())
    spelled = "".join(columns).replace("00 × 32", "00" * 32)
    assert pack_event(event).hex() == spelled.replace(" ", "")
    assert event_digest(pack_event(event)).hex() == (
        "2c9c8ea2b2ef60685cdfcd819c4d48bcc48d6b5db3856279323757f6300fafc7"
    )
    assert event_digest(pack_event(event)).hex() in text


@pytest.mark.parametrize(
    ("tag", "value", "expected"),
    [
        (
            "msgpack",
            b"\x92\x01\x02",
            "3173effb307c5962515881067aeb01167f3ec95aff216e4727a914057c8517aa",
        ),
        ("json", b"{}", "902348ffeeadf5546eed13ed882f603baf4372001e6703fa5d7a2c721954d640"),
    ],
)
def test_a_value_has_the_hash_of_the_reference(tag: str, value: bytes, expected: str) -> None:
    assert blob_hash(tag, value).hex() == expected
    assert f"| `{tag}` | `{value.hex(' ')}` | `{expected}` |" in REFERENCE.read_text()


# Hashes ------------------------------------------------------------------------------------------


def test_a_value_is_told_from_every_other_way_to_cut_the_same_bytes() -> None:
    head16, head32 = b"\xdc\x00\x01", b"\xdd\x00\x00\x00\x01"
    values = [
        b"\x91" + b"\x01",
        b"\x01" + b"\x91",  # body before head: the same stream, were the cut not hashed
        b"\x01\x91\x01",
        b"\x91\x01\x01",
        head16 + b"\x01",
        b"\x01" + head16,
        b"\x01" + head16 + b"\x03",
        head32 + b"\x01",
        b"\x01" + head32,
        head16,
        head32,
        b"",
        b"\x00",
        b"\x01\x91\x01\x00",
    ]
    hashes = {blob_hash("msgpack", v) for v in values}
    hashes |= {blob_hash("msgpack+x", v) for v in values}  # no head is cut here
    hashes |= {blob_hash("json", v) for v in values}
    assert len(hashes) == 3 * len(values)


@bounded
@given(texts, st.binary(max_size=12), texts, st.binary(max_size=12))
@example("msgpack", b"\x91\x01", "msgpack", b"\x01\x91")
@example("a", b"b\x01", "ab", b"\x01")
def test_equal_hashes_mean_equal_type_and_bytes(
    tag: str, value: bytes, other_tag: str, other: bytes
) -> None:
    same = (tag, value) == (other_tag, other)
    assert (blob_hash(tag, value) == blob_hash(other_tag, other)) is same


def test_a_list_that_grows_keeps_its_body_in_front() -> None:
    assert [head_length("msgpack", ormsgpack.packb([1] * n)) for n in (0, 15, 16, 70_000)] == [
        1,
        1,
        3,
        5,
    ]
    assert head_length("json", b"\x91") == head_length("msgpack", b"\xdc\x00") == 0


def test_names_by_content_tell_tenant_thread_and_generation_apart() -> None:
    keys = [ThreadKey("a", "bc"), ThreadKey("ab", "c"), ThreadKey("a", "b"), ThreadKey("abc", "d")]
    assert len({thread_hash(key) for key in keys}) == len(keys)
    one, two = SegmentId(bytes(16)), SegmentId(b"\x01" * 16)
    named = {conflict_id(key, gen, one, two) for key in keys for gen in (1, 2)}
    assert len(named) == 2 * len(keys)
    assert conflict_id(keys[0], 1, one, two) == conflict_id(keys[0], 1, two, one)
    assert len({operation_id(b"r", key) for key in keys}) == len(keys)
    copies = {copied(call, EventId(s, 3)) for call in (b"x", b"y") for s in (one, two)}
    assert len({c.segment for c in copies}) == 4
    assert {c.index for c in copies} == {3}
