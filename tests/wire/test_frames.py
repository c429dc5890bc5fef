"""Frames: put together without messages, taken apart without parsing, as protobuf would have it."""

import pytest
from google.protobuf.message import DecodeError
from hypothesis import example, given
from hypothesis import strategies as st

from checkpoint_router.core import limits
from checkpoint_router.core.errors import InvalidArgument, LimitExceeded, RouterError
from checkpoint_router.v1 import checkpoint_service_pb2 as calls
from checkpoint_router.wire.frames import GOING_AWAY, call_id_of, frame_of, parts_of

some_calls = st.builds(
    lambda call_id, timeout, path, thread: calls.Call(
        call_id=call_id,
        timeout_ms=timeout,
        traceparent=path,
        get_tuple=calls.GetTupleRequest(tenant="t", thread_id=thread),
    ),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**32 - 1),
    st.text(st.characters(codec="utf-8"), max_size=200),
    st.text(st.characters(codec="utf-8"), max_size=300),
)


@given(st.lists(some_calls, max_size=5), st.lists(st.integers(0, 2**64 - 1), max_size=5))
def test_a_frame_is_what_protobuf_would_have_made(
    each: list[calls.Call], cancelled: list[int]
) -> None:
    parts = [call.SerializeToString() for call in each]
    plain = calls.ConnectRequest(calls=each)
    assert frame_of(parts) == plain.SerializeToString()
    plain.cancelled.extend(cancelled)
    assert parts_of(plain.SerializeToString()) == (parts, cancelled)
    assert [call_id_of(part) for part in parts] == [call.call_id for call in each]


@given(st.binary(max_size=200))
@example(b"\x0a\x80")
@example(b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")
@example(b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")
@example(b"\x0c")
def test_bytes_that_protobuf_refuses_are_refused(raw: bytes) -> None:
    try:
        parts, cancelled = parts_of(raw)
        for part in parts:
            calls.Call.FromString(part)
    except (RouterError, DecodeError):
        return
    try:
        parsed = calls.ConnectRequest.FromString(raw)
    except DecodeError:
        # Protobuf looks into unknown groups and field numbers, which are nothing to us here.
        return
    assert [c.SerializeToString() for c in parsed.calls] == [
        calls.Call.FromString(part).SerializeToString() for part in parts
    ]
    assert list(parsed.cancelled) == cancelled


@given(st.binary(max_size=200))
def test_the_id_of_a_call_is_found_or_the_call_is_refused(raw: bytes) -> None:
    try:
        found = call_id_of(raw)
        parsed = calls.Call.FromString(raw)
    except (InvalidArgument, DecodeError):
        return
    first_only = raw.count(b"\x08") <= 1
    assert found == parsed.call_id or not first_only


def test_a_frame_of_empty_calls_is_refused_without_being_parsed() -> None:
    with pytest.raises(LimitExceeded, match="calls"):
        parts_of(b"\x0a\x00" * (limits.MIB))


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "one by one"])
def test_a_frame_of_cancellations_is_refused_without_being_parsed(packed: bool) -> None:
    raw = b"\x12\x80\x80\x40" + b"\x01" * limits.MIB if packed else b"\x10\x01" * limits.MIB
    with pytest.raises(LimitExceeded, match="cancelled"):
        parts_of(raw)


def test_as_many_calls_as_are_allowed_are_taken() -> None:
    parts = [calls.Call(call_id=n).SerializeToString() for n in range(limits.FRAME_CALLS_MAX)]
    assert parts_of(frame_of(parts)) == (parts, [])


def test_the_frame_that_says_go_carries_nothing_else() -> None:
    assert calls.ConnectResponse.FromString(GOING_AWAY) == calls.ConnectResponse(going_away=True)
