"""Frames and tokens of chance: whatever comes in, the router answers clearly and lives.

The fixture `router` checks at its end that the process is the same one and that its log has no
unforeseen error; here another client's call after each attack shows that nobody else is harmed.
"""

import contextlib
import uuid
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from checkpoint_router.core.answers import PruneStrategy, Session
from checkpoint_router.core.errors import InvalidArgument, LimitExceeded, RouterError
from checkpoint_router.core.ids import SegmentId, ThreadKey
from checkpoint_router.core.records import Event
from checkpoint_router.testing import RunningRouter
from checkpoint_router.v1 import checkpoint_service_pb2 as calls
from checkpoint_router.wire import requests
from checkpoint_router.wire.frames import frame_of

from . import strategies as some
from .raw import Stream, ask_raw, blob, call_of, first_event, put_request, read
from .structured import fill_event

CHANCE = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
def bystander(router: RunningRouter) -> Iterator[Stream]:
    """Another client, on one stream for all of the attacks."""
    with Stream(router.address) as stream:
        yield stream


def serves(stream: Stream) -> bool:
    """Whether the other client is served."""
    stream.call(call_of("get_tuple", calls.GetTupleRequest(tenant="other", thread_id="t"), 3))
    return bool(stream.next().get_tuple.token)


def attack(address: str, frames: list[bytes]) -> list[str]:
    """Sends these frames on a stream of their own; the reasons of all errors that come back."""
    with Stream(address) as stream:
        for frame in frames:
            stream.send(frame)
        stream.finish()
        try:
            return [r.error.reason for r in stream.results() if r.HasField("error")]
        except (InvalidArgument, LimitExceeded) as e:
            return [e.reason]


@CHANCE
@given(frames=st.lists(st.binary(max_size=300), min_size=1, max_size=4))
def test_frames_of_any_bytes(router: RunningRouter, bystander: Stream, frames: list[bytes]) -> None:
    assert "INTERNAL" not in attack(router.address, frames)
    assert serves(bystander)


def _valid_calls() -> list[bytes]:
    """One good call of each kind, with fields that refer to something."""
    thread = ThreadKey("fuzz", "t")
    session = Session(token=bytes(60), segment=SegmentId(bytes(16)), acknowledged=((1, 3),))
    each = [calls.Call(call_id=n, timeout_ms=200, traceparent="00-1-2-01") for n in range(11)]
    requests.fill_put_blobs(each[0].put_blobs, thread, 1, [blob(b"\x93\x01\x02\x03")])
    requests.fill_get_blobs(each[1].get_blobs, thread, [blob(b"x").hash])
    requests.fill_get_tuple(each[2].get_tuple, thread, "ns", "c", session)
    each[3].list_tuples.MergeFrom(
        calls.ListTuplesRequest(tenant="fuzz", thread_id="t", limit=3, before="z", losers=True)
    )
    each[3].list_tuples.filters.add(key="source", json='{"a": [1, null]}')
    requests.fill_delete_thread(each[4].delete_thread, thread, 1, b"r" * 16)
    requests.fill_delete_for_runs(each[5].delete_for_runs, "fuzz", ["run"], b"r" * 16)
    requests.fill_copy_thread(each[6].copy_thread, thread, ThreadKey("fuzz", "u"))
    requests.fill_prune(each[7].prune, "fuzz", ["t"], PruneStrategy.KEEP_LATEST, b"r" * 16)
    requests.fill_delta_history(each[8].get_delta_history, thread, "", None, ["c"], None, ())
    each[9].put.tenant, each[9].put.thread_id = "fuzz", "t"
    each[10].put_writes.tenant, each[10].put_writes.thread_id = "fuzz", "t"
    return [call.SerializeToString() for call in each]


VALID = _valid_calls()


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A good call with a few bytes turned, taken out, put in, or another call's tail."""
    raw = bytearray(draw(st.sampled_from(VALID)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(raw) - 1, 0)))
        match draw(st.sampled_from(["turn", "out", "in", "tail", "cut"])):
            case "turn" if raw:
                raw[at] ^= draw(st.integers(1, 255))
            case "out":
                del raw[at : at + draw(st.integers(1, 4))]
            case "in":
                raw[at:at] = draw(st.binary(min_size=1, max_size=8))
            case "tail":
                raw[at:] = draw(st.sampled_from(VALID))[at:]
            case _:
                del raw[at:]
    return bytes(raw)


@CHANCE
@given(parts=st.lists(mutated(), min_size=1, max_size=6))
def test_good_calls_with_a_few_bytes_changed(
    router: RunningRouter, bystander: Stream, parts: list[bytes]
) -> None:
    assert "INTERNAL" not in attack(router.address, [frame_of(parts)])
    assert serves(bystander)


@settings(CHANCE, max_examples=50)  # an event costs ten times what a call of bytes does
@given(event=some.events(), digest=st.none() | some.hashes, blobs=some.new_blobs)
def test_events_of_chance(
    router: RunningRouter, bystander: Stream, event: Event, digest: bytes | None, blobs: object
) -> None:
    call = calls.Call(call_id=1, timeout_ms=100)
    message = call.put if event.kind.name == "CHECKPOINT" else call.put_writes
    message.tenant, message.thread_id = "fuzz", "events"
    fill_event(message.event, event, digest)
    assert "INTERNAL" not in attack(router.address, [frame_of([call.SerializeToString()])])
    assert serves(bystander)


@CHANCE
@given(query=some.list_queries())
def test_queries_of_chance(router: RunningRouter, bystander: Stream, query: object) -> None:
    call = calls.Call(call_id=1)
    requests.fill_list_query(call.list_tuples, query)  # type: ignore[arg-type]  # by its strategy
    assert "INTERNAL" not in attack(router.address, [frame_of([call.SerializeToString()])])
    assert serves(bystander)


@CHANCE
@given(data=st.data())
def test_a_token_with_any_bit_changed_is_refused(
    router: RunningRouter, bystander: Stream, data: st.DataObject
) -> None:
    thread = ThreadKey("fuzz", "tokens")
    seen = read(router.address, thread)
    token = bytearray(seen.token)
    bit = data.draw(st.integers(0, len(token) * 8 - 1))
    token[bit // 8] ^= 1 << bit % 8
    request = put_request(thread, first_event(seen, uuid.uuid4().bytes))
    request.event.header.token = bytes(token)
    assert attack(router.address, [frame_of([call_of("put", request).SerializeToString()])]) == [
        "TOKEN_INVALID"
    ]
    assert read(router.address, thread).tuple is None


METHODS = tuple(
    method.name
    for method in calls.DESCRIPTOR.services_by_name["CheckpointService"].methods
    if not method.client_streaming
)


@CHANCE
@given(method=st.sampled_from(METHODS), raw=st.binary(max_size=200))
def test_unary_calls_of_any_bytes(
    router: RunningRouter, bystander: Stream, method: str, raw: bytes
) -> None:
    with contextlib.suppress(RouterError):
        ask_raw(router.address, method, raw)
    assert serves(bystander)
