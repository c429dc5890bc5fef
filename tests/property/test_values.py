"""Ranges, stamps, ids, limits and errors: small values that everything else is made of."""

from __future__ import annotations

import itertools
import pickle

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from checkpoint_router.core import errors, limits
from checkpoint_router.core.clock import (
    checked_frontier,
    checked_ranges,
    hlc_at,
    indices,
    ranges_of,
    unix_ms_of,
    with_index,
)
from checkpoint_router.core.errors import (
    InvalidArgument,
    LimitExceeded,
    RouterError,
)
from checkpoint_router.core.ids import ThreadKey, checked_id, slot_of

bounded = settings(max_examples=150, deadline=None, derandomize=True, database=None)

# Clock and ranges --------------------------------------------------------------------------------

few = st.sets(st.integers(1, 40), max_size=20)


@bounded
@given(few, few)
def test_ranges_hold_exactly_their_indices_in_one_form(some: set[int], more: set[int]) -> None:
    ranges = ranges_of(some)
    assert list(indices(ranges)) == sorted(some)
    assert all(b[0] > a[1] + 1 for a, b in itertools.pairwise(ranges))
    assert (ranges_of(more) == ranges) is (some == more)
    assert checked_ranges(ranges, what="after") == ranges


@bounded
@given(few, st.integers(1, 41))
def test_an_index_is_added_wherever_it_belongs(some: set[int], index: int) -> None:
    assert with_index(ranges_of(some), index) == ranges_of(some | {index})


@pytest.mark.parametrize(
    "pairs",
    [[(0, 1)], [(2, 1)], [(1, 2), (3, 4)], [(5, 6), (1, 2)], [(1, limits.INDEX_MAX + 1)]],
)
def test_malformed_ranges_are_refused(pairs: list[tuple[int, int]]) -> None:
    with pytest.raises(InvalidArgument):
        checked_ranges(pairs, what="after")
    with pytest.raises(InvalidArgument):
        checked_frontier([(bytes(16), pairs)])


def test_a_frontier_names_segments_of_16_bytes() -> None:
    with pytest.raises(InvalidArgument):
        checked_frontier([(bytes(15), [(1, 1)])])


@bounded
@given(st.integers(0, 2**47 - 1), st.integers(0, 2**16 - 1))
def test_a_stamp_is_its_millisecond_and_a_counter(ms: int, counter: int) -> None:
    assert unix_ms_of(hlc_at(ms) + counter) == ms
    assert hlc_at(ms) + counter < hlc_at(ms + 1)


# Ids ---------------------------------------------------------------------------------------------


@bounded
@given(st.text(max_size=8), st.text(max_size=8))
@example("\u00e9", "e\u0301")
@example("A", "a")
@example("a", "a ")
@example("\u212b", "\u00c5")
def test_two_ids_never_become_one(one: str, other: str) -> None:
    def kept(value: str) -> str | None:
        try:
            return checked_id("thread_id", value)
        except InvalidArgument:
            return None

    assert kept(one) in (one, None)
    if kept(one) is not None and kept(other) is not None:
        same = ThreadKey.of("t", one) == ThreadKey.of("t", other)
        assert same is (one == other)


@pytest.mark.parametrize("value", ["", "a\x00b", "\ud800", "x\udfff"])
def test_ids_that_no_storage_could_keep_are_refused(value: str) -> None:
    with pytest.raises(InvalidArgument):
        checked_id("thread_id", value)


def test_an_id_is_measured_in_bytes() -> None:
    assert checked_id("thread_id", "x" * limits.ID_BYTES_MAX)
    for value in ("x" * (limits.ID_BYTES_MAX + 1), "\u00e9" * (limits.ID_BYTES_MAX // 2 + 1)):
        with pytest.raises(LimitExceeded):
            checked_id("thread_id", value)
    with pytest.raises(LimitExceeded):
        ThreadKey.of("x" * (limits.TENANT_BYTES_MAX + 1), "t")


def tag_by_hand(name: str) -> str:
    start = name.find("{")
    end = name.find("}", start + 1) if start >= 0 else -1
    return name[start + 1 : end] if end > start + 1 else name


@settings(bounded, max_examples=500)
@given(st.text(st.sampled_from("{}ab\n"), max_size=8))
@example("{user-7}:session-3")
@example("{}{a}")
@example("}{a}")
@example("{{a}}")
def test_the_slot_of_an_id_is_that_of_its_tag(name: str) -> None:
    # An id in which nothing looks like a tag is placed by the whole of it.
    tag = tag_by_hand(name)
    assert slot_of(name) == slot_of(tag) if "{" not in tag else slot_of(name) in range(4096)
    assert 0 <= slot_of(name) < limits.SLOTS


def test_slots_never_change() -> None:
    """Threads are stored under these numbers."""
    names = ("a", "thread-1", "{user-7}:session-3", "user-7")
    assert [slot_of(name) for name in names] == [3615, 2486, 1342, 1342]


# Limits and errors -------------------------------------------------------------------------------


def test_limits_fit_into_each_other() -> None:
    entry = 16 + 4 + limits.RANGES_MAX * 12
    assert limits.FRONTIER_ENTRIES_MAX * entry < limits.TOKEN_BYTES_MAX
    assert limits.TOKEN_BYTES_MAX + limits.GIVEN_UP_MAX * 32 < limits.MESSAGE_BYTES_MAX
    assert limits.INLINE_BYTES_MAX < limits.INLINE_BLOBS_BYTES_MAX < limits.MESSAGE_BYTES_MAX
    assert limits.BLOB_BYTES_MAX < limits.BYTES_IN_FLIGHT_MAX
    assert limits.GROUP_BYTES_MAX <= limits.FRAME_BYTES_MAX <= limits.MESSAGE_BYTES_MAX
    assert limits.TENANT_BYTES_MAX <= limits.ID_BYTES_MAX < 2**16
    assert limits.STALE_WAIT_SECONDS_MAX < limits.DEADLINE_SECONDS_DEFAULT
    assert limits.DEADLINE_SECONDS_DEFAULT <= limits.DEADLINE_SECONDS_MAX
    assert hlc_at(limits.HLC_DRIFT_MS_MAX) < limits.INTEGER_MAX
    assert limits.INDEX_MAX < limits.INTEGER_MAX


def all_errors() -> list[type[RouterError]]:
    found, new = [RouterError], [RouterError]
    while new:
        new = [sub for cls in new for sub in cls.__subclasses__()]
        found += [cls for cls in new if cls not in found]
    return [cls for cls in found if cls.__module__ == errors.__name__]


@pytest.mark.parametrize("cls", all_errors(), ids=lambda cls: cls.__name__)
def test_an_error_survives_pickling_whole(cls: type[RouterError]) -> None:
    error = cls("what, why, what next", thread="t1", field="seen")
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert type(again) is cls
    assert str(again) == str(error) == "what, why, what next"
    assert again.attributes == {"thread": "t1", "field": "seen"}
    assert (again.reason, again.retryable) == (cls.reason, cls.retryable)


def test_each_error_has_a_reason_of_its_own() -> None:
    reasons = [cls.reason for cls in all_errors()]
    # The table also has the errors of other floors that happen to be imported.
    assert len(set(reasons)) == len(reasons)
    assert set(reasons) <= set(errors.by_reason())
    assert all(reason.isupper() for reason in reasons)
    assert {errors.by_reason()[reason] for reason in reasons} == set(all_errors())
