"""Values that grow, shrink, fork and are edited are read back byte for byte, and cost their growth.

SQLite carries the append logs here; what is stored where is decided by `storage.logs`.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ormsgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checkpoint_router.backends.sqlite import schema, values
from checkpoint_router.backends.sqlite.storing import Storing
from checkpoint_router.core import limits
from checkpoint_router.core.answers import NewBlob
from checkpoint_router.core.digests import blob_hash, head_length
from checkpoint_router.core.growing import (
    KEEP_BYTES_MIN,
    growth_from,
    growth_of,
    held,
    named,
    rebuilt,
)
from checkpoint_router.core.growing import new_blob as sent_as
from checkpoint_router.core.ids import ThreadKey
from checkpoint_router.core.records import Typed
from checkpoint_router.storage.logs import (
    WHOLE,
    Branch,
    Extend,
    Log,
    SegmentRow,
    Start,
    Version,
    merge,
    place,
)
from tests import builders as b

T = 1
THREAD = ThreadKey("acme", "t1")


@contextmanager
def database() -> Iterator[tuple[sqlite3.Connection, Storing]]:
    """The tables, in memory, and who writes to them."""
    conn = sqlite3.connect(":memory:", isolation_level=None)
    schema.prepare(conn, Path(":memory:"))
    try:
        yield conn, Storing(conn)
    finally:
        conn.close()


def store(storing: Storing, blobs: list[NewBlob]) -> None:
    """In one transaction."""
    storing.store(T, blobs)
    storing.flush()


def rows(conn: sqlite3.Connection, table: str) -> int:
    """How many rows a table has."""
    return int(conn.execute(f"SELECT count(*) FROM {table}").fetchone()[0])  # noqa: S608 (ours)


def stored_bytes(conn: sqlite3.Connection) -> int:
    """Bytes of all values and logs."""
    (whole,) = conn.execute("SELECT coalesce(sum(length(data)), 0) FROM blob").fetchone()
    (logs,) = conn.execute("SELECT coalesce(sum(length(body)), 0) FROM segment").fetchone()
    return int(whole + logs)


def check(conn: sqlite3.Connection, blobs: list[NewBlob]) -> None:
    """Every value is there, whole; nothing is kept that no value needs."""
    for blob in blobs:
        assert values.load(conn, T, blob.hash, THREAD) == blob.value
        assert values.size(conn, T, blob.hash) == len(blob.value.data)
    lengths = conn.execute(
        "SELECT l.length, l.parent_keep + coalesce((SELECT sum(length(s.body)) FROM segment s"
        " WHERE s.id >> 24 = l.id), 0) FROM log l"
    )
    assert all(length == found for length, found in lengths)


edits = st.one_of(
    st.tuples(st.just("grow"), st.integers(0, 400)),
    st.tuples(st.just("grow"), st.integers(0, 3000)),
    st.tuples(st.just("items"), st.integers(1, 40)),
    st.tuples(st.just("shrink"), st.integers(0, 500)),
    st.tuples(st.just("flip"), st.integers(0, 5000)),
    st.tuples(st.just("small"), st.integers(0, 10)),
    st.tuples(st.just("other"), st.integers(0, 3000)),
    st.tuples(st.just("erase"), st.integers(0, 30)),
)
sequences = st.lists(
    st.tuples(edits, st.integers(0, 30), st.integers(-1, 30), st.binary(min_size=1, max_size=9)),
    min_size=1,
    max_size=40,
)


def edited(data: bytes, kind: str, size: int, noise: bytes) -> bytes:
    """`data` after one edit."""
    pad = (noise * (size // len(noise) + 1))[:size]
    cut = head_length("msgpack", data)
    match kind:
        case "grow":
            return data + pad
        case "items":
            return b"\xdd" + size.to_bytes(4, "big") + data[cut:] + noise * size
        case "shrink":
            return data[: max(0, len(data) - size)]
        case "flip" if data:
            at = size % len(data)
            return data[:at] + bytes([data[at] ^ 0x41]) + data[at + 1 :]
        case "small":
            return pad
        case _:
            return b"\x91" + pad


@settings(max_examples=150, deadline=None)
@given(sequences)
def test_any_sequence_of_values_is_read_back_byte_for_byte(
    sequence: list[tuple[tuple[str, int], int, int, bytes]],
) -> None:
    with database() as (conn, storing):
        live = [b.new_blob(b"\x90" + b"begin" * 300)]
        store(storing, live)
        for (kind, size), source, hint, noise in sequence:
            if kind == "erase" and len(live) > 1:
                gone = live.pop(size % len(live))
                storing.erase(T, [gone.hash])
                assert values.load(conn, T, gone.hash, THREAD) is None
            else:
                base = live[source % len(live)]
                data = edited(base.value.data, kind, size, noise)
                # Mostly a true hint, sometimes one to any other value, or to none.
                believed = base if hint >= 0 else live[-1]
                new = b.new_blob(data, continues=None if hint == 30 else believed)
                store(storing, [new])
                if source % 3 == 0:  # as after a restart
                    storing.forget()
                live = [x for x in live if x.hash != new.hash] + [new]
            check(conn, live)
        storing.erase(T, [x.hash for x in live])
        assert rows(conn, "blob") == rows(conn, "log") == rows(conn, "segment") == 0


def test_a_conversation_of_500_turns_costs_its_text_and_few_rows() -> None:
    with database() as (conn, storing):
        messages: list[str] = []
        before = None
        ages = []
        for turn in range(1000):
            messages.append(f"{turn:06d} " + "x" * 505)
            age = b.new_blob(ormsgpack.packb(messages), continues=before)
            store(storing, [age])
            ages.append(age)
            before = age
        text = len(ages[-1].value.data)
        assert stored_bytes(conn) < 1.02 * text
        # 15 rows a tier, and then rows that would be too large if they were merged.
        assert rows(conn, "segment") < 50
        check(conn, ages[::97])


def test_a_fork_shares_what_it_has_in_common_and_nothing_is_walked_too_deep() -> None:
    with database() as (conn, storing):
        trunk = b.new_blob(b"\x91" + b"t" * 20_000)
        longer = b.new_blob(trunk.value.data + b"u" * 5_000, continues=trunk)
        store(storing, [trunk, longer])
        base, forks = trunk, []
        for depth in range(8):
            fork = b.new_blob(base.value.data + bytes([depth]) * 1_000, continues=base)
            taller = b.new_blob(fork.value.data + b"z" * 10, continues=fork)
            store(storing, [fork, taller])
            forks += [fork, taller]
            base = fork
        (deepest,) = conn.execute("SELECT max(depth) FROM log").fetchone()
        assert deepest == limits.LOG_DEPTH_MAX
        assert stored_bytes(conn) < 60_000
        check(conn, [trunk, longer, *forks])


def test_a_log_is_cut_behind_the_longest_value_that_is_left() -> None:
    with database() as (conn, storing):
        ages = [b.new_blob(b"\x91" + b"a" * 2_000)]
        for length in range(3_000, 40_000, 1_000):
            ages.append(b.new_blob(b"\x91" + b"a" * length, continues=ages[-1]))
        store(storing, ages)
        fork = b.new_blob(ages[9].value.data + b"b" * 1_500, continues=ages[9])
        store(storing, [fork])
        storing.erase(T, [x.hash for x in ages[5:]])
        assert stored_bytes(conn) == len(ages[9].value.data) - 1 + 1_500
        storing.erase(T, [fork.hash])
        assert stored_bytes(conn) == len(ages[4].value.data) - 1
        check(conn, ages[:5])
        again = b.new_blob(ages[4].value.data + b"c" * 1_000, continues=ages[4])
        store(storing, [again])
        assert stored_bytes(conn) == len(again.value.data) - 1
        check(conn, [*ages[:5], again])


def version(data: bytes, log: Log | None = None, tag: str = "msgpack") -> Version:
    """The stored version of a value."""
    cut = head_length(tag, data)
    blob = b.new_blob(data, tag)
    return Version(hash=blob.hash, tag=tag, head=data[:cut], keep=len(data) - cut, log=log)


BASE = b"\x91" + b"a" * 2000
GROWN = b"\x92" + b"a" * 2000 + b"bc"


def log(length: int, depth: int = 0) -> Log:
    """A log of that length."""
    return Log(id=7, depth=depth, length=length, appends=1)


@pytest.mark.parametrize(
    ("data", "base", "expected"),
    [
        (GROWN, version(BASE), Start(b"\x92", b"bc")),
        (GROWN, version(BASE, log(2000)), Extend(log(2000), b"\x92", b"bc")),
        (GROWN, version(BASE, log(2500)), Branch(log(2500), 2000, b"\x92", b"bc")),
        (GROWN, version(BASE, log(2500, 4)), WHOLE),
        (GROWN, None, WHOLE),
        (b"\x92" + b"a" * 2000, version(BASE), Start(b"\x92", b"")),
        (b"\x92" + b"a" * 1999, version(BASE), WHOLE),
        (b"\x92" + b"a" * 1999 + b"bcd", version(BASE), WHOLE),
        (GROWN, version(BASE[:1000]), WHOLE),
        (GROWN, version(BASE, tag="json"), WHOLE),
    ],
)
def test_where_a_value_goes(data: bytes, base: Version | None, expected: object) -> None:
    blob = b.new_blob(data, continues=b.new_blob(BASE))
    assert place(blob, base) == expected


def test_a_small_value_is_stored_whole_whatever_it_continues() -> None:
    base = version(b"\x91" + b"a" * 600)
    small = b.new_blob(b"\x91" + b"a" * 601, continues=b.new_blob(b"\x91" + b"a" * 600))
    assert place(small, base) == WHOLE


def test_sixteen_rows_of_a_tier_become_one_of_the_next() -> None:
    newest = [SegmentRow(offset, 0, 10) for offset in range(200, 40, -10)]
    assert merge(newest) == SegmentRow(50, 1, 160)
    assert merge(newest[:15]) is None
    assert merge([*newest[:15], SegmentRow(50, 1, 10)]) is None
    large = limits.LOG_SEGMENT_BYTES_MAX // 16 + 1
    assert merge([SegmentRow(i * large, 0, large) for i in range(16, 0, -1)]) is None


# ---- what is not sent whole --------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(
    st.integers(0, 200_000),
    edits,
    st.binary(min_size=1, max_size=9),
    st.sampled_from(("msgpack", "bytes")),
    st.booleans(),
)
def test_a_value_is_rebuilt_from_what_it_shares_with_its_older_self(
    size: int, edit: tuple[str, int], noise: bytes, tag: str, same_tag: bool
) -> None:
    kind, by = edit
    base = named(Typed(tag, edited(b"\x91" + b"begin", "grow", size, noise)))
    changed = edited(base.value.data, kind, by, noise)
    value = Typed(tag if same_tag else "other", changed)
    blob, new = sent_as(value, base, base.hash)
    assert new.hash == blob.hash == blob_hash(value.tag, value.data)
    if blob.kept:
        made = rebuilt(growth_of(blob), base)
        assert made is not None
        assert made.value == value
        assert made.hasher.digest() == named(value).hasher.digest()
    grows = kind == "grow" or (kind == "items" and tag == "msgpack")
    if grows and same_tag and base.keep >= KEEP_BYTES_MIN:
        assert blob.kept == base.keep
    growth = growth_from(held("c", base), new.hash, value)
    if growth is not None:
        answered = rebuilt(growth, base)
        assert answered is not None
        assert answered.value == value
    assert (growth is not None) is (blob.kept == base.keep > 0)


def test_a_growth_of_another_value_makes_nothing() -> None:
    base, other = named(Typed("msgpack", BASE)), named(Typed("msgpack", BASE[:-1] + b"?"))
    blob, _ = sent_as(Typed("msgpack", GROWN), base, base.hash)
    assert blob.kept == base.keep
    assert rebuilt(growth_of(blob), other) is None
    assert rebuilt(growth_of(blob), named(Typed("msgpack", BASE[:-1]))) is None
    assert rebuilt(growth_of(blob), named(Typed("json", BASE))) is None
