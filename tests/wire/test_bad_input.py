"""What strangers send gets a clear, typed error; nothing is written, and the router goes on."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from msgspec import structs

from checkpoint_router.core import limits
from checkpoint_router.core.answers import Session
from checkpoint_router.core.errors import (
    InvalidArgument,
    LimitExceeded,
    RouterError,
    TokenInvalid,
)
from checkpoint_router.core.ids import EventId, SegmentId, ThreadKey
from checkpoint_router.core.records import (
    EMPTY,
    Blob,
    ChannelEntry,
    Content,
    Event,
    Header,
    MetadataEntry,
    TaskWrites,
    Typed,
    WriteSet,
    pack_event,
)
from checkpoint_router.testing import RunningRouter
from checkpoint_router.v1 import checkpoint_service_pb2 as calls
from checkpoint_router.v1 import types_pb2 as pb
from checkpoint_router.wire import requests
from checkpoint_router.wire.frames import frame_of

from .raw import (
    Stream,
    ask_on_stream,
    ask_raw,
    ask_unary,
    blob,
    call_of,
    first_event,
    put_request,
    read,
)

Ask = Callable[[str, str, Any], Any]


@pytest.fixture(params=[ask_unary, ask_on_stream], ids=["unary", "stream"])
def ask(request: pytest.FixtureRequest) -> Ask:
    """Both ways in: the same call, the same answer."""
    chosen: Ask = request.param
    return chosen


@pytest.fixture
def bystander(router: RunningRouter) -> Iterator[Stream]:
    """Another client, whose stream is open before the harm and must serve after it."""
    with Stream(router.address) as stream:
        yield stream
        stream.call(call_of("get_tuple", calls.GetTupleRequest(tenant="b", thread_id="b"), 7))
        assert stream.next().get_tuple.token


def get(**fields: Any) -> tuple[str, Any]:
    return "get_tuple", calls.GetTupleRequest(**{"tenant": "acme", "thread_id": "t", **fields})


def listed(**fields: Any) -> tuple[str, Any]:
    return "list_tuples", calls.ListTuplesRequest(**{"tenant": "acme", **fields})


def session(**fields: Any) -> pb.Session:
    return pb.Session(**{"token": b"x", **fields})


MANY = limits.MANIFEST_ENTRIES_MAX + 1
HASH = bytes(32)

BAD_READS: dict[str, tuple[tuple[str, Any], type[RouterError], str]] = {
    "no tenant": (get(tenant=""), InvalidArgument, "tenant is empty"),
    "no thread": (get(thread_id=""), InvalidArgument, "thread_id is empty"),
    "NUL in a tenant": (get(tenant="a\0"), InvalidArgument, "tenant contains a NUL"),
    "NUL in a thread": (get(thread_id="a\0b"), InvalidArgument, "thread_id contains a NUL"),
    "NUL in a namespace": (get(checkpoint_ns="\0"), InvalidArgument, "checkpoint_ns"),
    "NUL in a checkpoint": (get(checkpoint_id="\0"), InvalidArgument, "checkpoint_id"),
    "a long tenant": (get(tenant="t" * 129), LimitExceeded, "tenant"),
    "a long thread": (get(thread_id="t" * 1025), LimitExceeded, "thread_id has 1025 bytes"),
    "a long thread in bytes": (get(thread_id="é" * 513), LimitExceeded, "thread_id has 1026"),
    "a thread of 1 MB": (get(thread_id="t" * 1_000_000), LimitExceeded, "thread_id has 1000000"),
    "a thread of 10 MB": (get(thread_id="t" * 10_000_000), LimitExceeded, "above the limit"),
    "a forged token": (get(session=session()), TokenInvalid, "token"),
    "a token of 1 MB": (get(session=session(token=b"x" * 10**6)), LimitExceeded, "session.token"),
    "a short segment": (get(session=session(segment=b"x")), InvalidArgument, "16 bytes"),
    "ranges that overlap": (
        get(session=session(acknowledged=[{"first": 1, "last": 5}, {"first": 3, "last": 9}])),
        InvalidArgument,
        "index range",
    ),
    "an index of 0": (
        get(session=session(acknowledged=[{"first": 0, "last": 5}])),
        InvalidArgument,
        "index range",
    ),
    "too many ranges": (
        get(session=session(acknowledged=[{"first": n, "last": n} for n in range(1, 200, 2)])),
        LimitExceeded,
        "index ranges",
    ),
    "a filter that is no JSON": (
        listed(filters=[{"key": "a", "json": "{"}]),
        InvalidArgument,
        "not JSON",
    ),
    "a filter as deep as the sea": (
        listed(filters=[{"key": "a", "json": "[" * 100_000}]),
        InvalidArgument,
        "not JSON",
    ),
    "too many filters": (
        listed(filters=[{"key": "a", "json": "1"}] * 300),
        LimitExceeded,
        "filters has 300",
    ),
    "a session without a thread": (listed(session=session()), InvalidArgument, "session"),
    "a cursor that is none": (listed(cursor=b"\xff\xfe"), InvalidArgument, "cursor"),
    "a large cursor": (listed(cursor=b"x" * 10_000), LimitExceeded, "cursor"),
    "too many hashes": (
        ("get_blobs", calls.GetBlobsRequest(tenant="a", thread_id="t", hashes=[HASH] * 20_001)),
        LimitExceeded,
        "hashes has 20001",
    ),
    "a hash of 31 bytes": (
        ("get_blobs", calls.GetBlobsRequest(tenant="a", thread_id="t", hashes=[bytes(31)])),
        InvalidArgument,
        "hashes has 31 bytes",
    ),
}


@pytest.mark.parametrize("case", BAD_READS)
def test_a_bad_read_gets_an_error_that_names_what_is_wrong(
    router: RunningRouter, ask: Ask, case: str
) -> None:
    (name, request), expected, says = BAD_READS[case]
    with pytest.raises(expected, match=says) as caught:
        ask(router.address, name, request)
    assert type(caught.value) is expected


BAD_MUTATIONS: dict[str, tuple[tuple[str, Any], type[RouterError], str]] = {
    "a delete without an id of its own": (
        ("delete_thread", calls.DeleteThreadRequest(tenant="a", thread_id="t")),
        InvalidArgument,
        "request_id is empty",
    ),
    "a delete of a generation beyond all": (
        (
            "delete_thread",
            calls.DeleteThreadRequest(
                tenant="a", thread_id="t", generation=2**64 - 1, request_id=b"r"
            ),
        ),
        InvalidArgument,
        "generation",
    ),
    "a prune by no strategy": (
        ("prune", calls.PruneRequest(tenant="a", request_id=b"r")),
        InvalidArgument,
        "strategy",
    ),
    "a prune by an unheard-of strategy": (
        ("prune", calls.PruneRequest(tenant="a", request_id=b"r", strategy=99)),  # type: ignore[arg-type]  # that is the point
        InvalidArgument,
        "strategy",
    ),
    "a prune of too many": (
        (
            "prune",
            calls.PruneRequest(
                tenant="a",
                request_id=b"r",
                strategy=calls.PRUNE_STRATEGY_DELETE,
                thread_ids=["t"] * MANY,
            ),
        ),
        LimitExceeded,
        "thread_ids has 10001",
    ),
    "a copy onto nothing": (
        ("copy_thread", calls.CopyThreadRequest(tenant="a", source_thread_id="t")),
        InvalidArgument,
        "target_thread_id is empty",
    ),
    "a long request id": (
        ("delete_for_runs", calls.DeleteForRunsRequest(tenant="a", request_id=bytes(65))),
        LimitExceeded,
        "request_id has 65",
    ),
    "blobs for no generation": (
        ("put_blobs", calls.PutBlobsRequest(tenant="a", thread_id="t")),
        InvalidArgument,
        "generation",
    ),
    "a blob under a false name": (
        (
            "put_blobs",
            calls.PutBlobsRequest(
                tenant="a",
                thread_id="t",
                generation=1,
                blobs=[pb.Blob(hash=HASH, value=pb.Value(type="msgpack", data=b"x"))],
            ),
        ),
        InvalidArgument,
        "hash",
    ),
}


@pytest.mark.parametrize("case", BAD_MUTATIONS)
def test_a_bad_mutation_gets_an_error_that_names_what_is_wrong(
    router: RunningRouter, ask: Ask, case: str
) -> None:
    (name, request), expected, says = BAD_MUTATIONS[case]
    with pytest.raises(expected, match=says) as caught:
        ask(router.address, name, request)
    assert type(caught.value) is expected


def _many_channels(event: pb.Event) -> None:
    for n in range(MANY):
        event.checkpoint.manifest.add(channel=f"c{n}").content.empty = True


def _two_of_one_channel(event: pb.Event) -> None:
    for _ in range(2):
        event.checkpoint.manifest.add(channel="same").content.empty = True


def _large_inline(event: pb.Event) -> None:
    entry = event.checkpoint.manifest.add(channel="c")
    entry.content.inline.data = bytes(limits.INLINE_BYTES_MAX + 1)


def _metadata(event: pb.Event, text: str) -> None:
    event.checkpoint.metadata.add(key="run_id", json=text)


BAD_EVENTS: dict[str, tuple[Callable[[pb.Event], object], type[RouterError], str]] = {
    "nothing in it": (lambda e: e.ClearField("content"), InvalidArgument, "event.content"),
    "a write set in a put": (
        lambda e: e.write_set.tasks.add(task_id="t"),
        InvalidArgument,
        "is not a checkpoint",
    ),
    "no checkpoint id": (lambda e: setattr(e, "checkpoint_id", ""), InvalidArgument, "is empty"),
    "an index of 0": (lambda e: setattr(e.id, "index", 0), InvalidArgument, "event.id.index"),
    "an index beyond all": (
        lambda e: setattr(e.id, "index", 2**63),
        InvalidArgument,
        "event.id.index",
    ),
    "a short segment": (lambda e: setattr(e.id, "segment", b"s"), InvalidArgument, "16 bytes"),
    "generation 0": (lambda e: setattr(e, "generation", 0), InvalidArgument, "event.generation"),
    "a stamp beyond all": (lambda e: setattr(e, "hlc", 2**64 - 1), InvalidArgument, "event.hlc"),
    "a stamp of 0": (lambda e: setattr(e, "hlc", 0), InvalidArgument, "stamped 0"),
    "a term beyond all": (lambda e: setattr(e, "term", 2**64 - 1), InvalidArgument, "event.term"),
    "a digest of 5 bytes": (lambda e: setattr(e, "digest", b"12345"), InvalidArgument, "digest"),
    "another digest": (lambda e: setattr(e, "digest", bytes(32)), InvalidArgument, "digest"),
    "a forged token": (lambda e: setattr(e.header, "token", b"x" * 50), TokenInvalid, "token"),
    "too many channels": (_many_channels, LimitExceeded, "manifest has 10001"),
    "a channel twice": (_two_of_one_channel, InvalidArgument, "twice"),
    "a channel of no kind": (
        lambda e: e.checkpoint.manifest.add(channel="c"),
        InvalidArgument,
        "manifest.content",
    ),
    "a channel of 10 MB": (
        lambda e: e.checkpoint.manifest.add(
            channel="c" * 10_000_000, content=pb.Content(empty=True)
        ),
        LimitExceeded,
        "manifest.channel has 10000000",
    ),
    "a large value in its place": (_large_inline, LimitExceeded, "manifest.inline"),
    "a large body": (
        lambda e: setattr(e.checkpoint.body, "data", bytes(limits.BODY_BYTES_MAX + 1)),
        LimitExceeded,
        "checkpoint.body",
    ),
    "metadata that is no JSON": (lambda e: _metadata(e, "{"), InvalidArgument, "not JSON"),
    "metadata as deep as the sea": (
        lambda e: _metadata(e, "[" * 200_000),
        InvalidArgument,
        "not JSON",
    ),
    "a metadata number without end": (
        lambda e: _metadata(e, "1" * 10_000),
        InvalidArgument,
        "not JSON",
    ),
    "too much metadata": (
        lambda e: _metadata(e, '"' + "x" * limits.METADATA_BYTES_MAX + '"'),
        LimitExceeded,
        "metadata has",
    ),
}


@pytest.mark.parametrize("case", BAD_EVENTS)
def test_a_bad_event_gets_an_error_that_names_what_is_wrong_and_is_not_written(
    router: RunningRouter, ask: Ask, thread: ThreadKey, segment: bytes, case: str
) -> None:
    spoil, expected, says = BAD_EVENTS[case]
    request = put_request(thread, first_event(read(router.address, thread), segment))
    spoil(request.event)
    with pytest.raises(expected, match=says) as caught:
        ask(router.address, "put", request)
    assert type(caught.value) is expected
    assert read(router.address, thread).tuple is None


def _of(event: Event, **changed: Any) -> bytes:
    return pack_event(structs.replace(event, **changed))


def _content(event: Event, **changed: Any) -> bytes:
    return _of(event, content=structs.replace(event.content, **changed))


def _line(content: Content, channel: str = "c") -> tuple[ChannelEntry, ...]:
    return (ChannelEntry(channel, "1", content),)


NAME = b"\x00" * 15 + b"\x07"
BAD_PACKED: dict[str, tuple[Callable[[Event], bytes], type[RouterError], str]] = {
    "no msgpack": (lambda e: b"\xc1", InvalidArgument, "event.packed is no event"),
    "cut off": (lambda e: pack_event(e)[:-1], InvalidArgument, "event.packed is no event"),
    "a byte too many": (lambda e: pack_event(e) + b"\0", InvalidArgument, "is no event"),
    "a field too few": (lambda e: b"\x98" + pack_event(e)[1:], InvalidArgument, "is no event"),
    "a field too many": (
        lambda e: b"\x9a" + pack_event(e)[1:] + b"\xc0",
        InvalidArgument,
        "not the canonical form",
    ),
    "an integer that could be shorter": (
        lambda e: _of(e, id=EventId(SegmentId(NAME), 7)).replace(
            NAME + b"\x07", NAME + b"\xcc\x07"
        ),
        InvalidArgument,
        "not the canonical form",
    ),
    "text where a number belongs": (lambda e: _of(e, gen="1"), InvalidArgument, "is no event"),
    "no UTF-8": (
        lambda e: _of(e, checkpoint_id="abc").replace(b"abc", b"a\xed\xa0"),
        InvalidArgument,
        "is no event",
    ),
    "an index of 0": (
        lambda e: _of(e, id=EventId(e.id.segment, 0)),
        InvalidArgument,
        "event.id.index",
    ),
    "a short segment": (
        lambda e: _of(e, id=EventId(SegmentId(b"s"), 1)),
        InvalidArgument,
        "16 bytes",
    ),
    "no checkpoint id": (lambda e: _of(e, checkpoint_id=""), InvalidArgument, "checkpoint_id"),
    "NUL in a namespace": (lambda e: _of(e, ns="\0"), InvalidArgument, "checkpoint_ns"),
    "generation 0": (lambda e: _of(e, gen=0), InvalidArgument, "event.generation is 0"),
    "a generation below 0": (lambda e: _of(e, gen=-1), InvalidArgument, "event.generation is -1"),
    "a stamp beyond all": (lambda e: _of(e, hlc=2**64 - 1), InvalidArgument, "event.hlc"),
    "ranges that overlap": (
        lambda e: _of(e, after=((1, 5), (3, 9))),
        InvalidArgument,
        "index range",
    ),
    "a large token": (
        lambda e: _of(e, header=Header(token=bytes(limits.TOKEN_BYTES_MAX + 1))),
        LimitExceeded,
        "event.header.token",
    ),
    "a large body": (
        lambda e: _content(e, body=Typed("msgpack", bytes(limits.BODY_BYTES_MAX + 1))),
        LimitExceeded,
        "checkpoint.body",
    ),
    "too many channels": (
        lambda e: _content(e, manifest=tuple(_line(EMPTY, f"c{n}")[0] for n in range(MANY))),
        LimitExceeded,
        "manifest has 10001",
    ),
    "a channel twice": (
        lambda e: _content(e, manifest=_line(EMPTY) + _line(EMPTY)),
        InvalidArgument,
        "twice",
    ),
    "a short hash": (
        lambda e: _content(e, manifest=_line(Blob(b"x"))),
        InvalidArgument,
        "manifest.blob has 1",
    ),
    "a large value in its place": (
        lambda e: _content(e, manifest=_line(Typed("b", bytes(limits.INLINE_BYTES_MAX + 1)))),
        LimitExceeded,
        "manifest.inline",
    ),
    "a version beyond all": (
        lambda e: _content(e, manifest=(ChannelEntry("c", 2**64 - 1, EMPTY),)),
        InvalidArgument,
        "manifest.version",
    ),
    "metadata that is no JSON": (
        lambda e: _content(e, metadata=(MetadataEntry("k", "{"),)),
        InvalidArgument,
        "not JSON",
    ),
    "a metadata key twice": (
        lambda e: _content(e, metadata=(MetadataEntry("k", "1"), MetadataEntry("k", "2"))),
        InvalidArgument,
        "twice",
    ),
    "a write set in a put": (
        lambda e: _of(e, content=WriteSet(tasks=(TaskWrites(task_id="", task_path="", rows=()),))),
        InvalidArgument,
        "is not a checkpoint",
    ),
}


@pytest.mark.parametrize("case", BAD_PACKED)
def test_a_bad_packed_event_gets_an_error_that_names_what_is_wrong_and_is_not_written(
    router: RunningRouter, ask: Ask, thread: ThreadKey, segment: bytes, case: str
) -> None:
    packed, expected, says = BAD_PACKED[case]
    request = calls.PutRequest(tenant=thread.tenant, thread_id=thread.thread)
    request.event.packed = packed(first_event(read(router.address, thread), segment))
    with pytest.raises(expected, match=says) as caught:
        ask(router.address, "put", request)
    assert type(caught.value) is expected
    assert read(router.address, thread).tuple is None


def test_a_token_of_another_thread_is_refused(
    router: RunningRouter, ask: Ask, thread: ThreadKey, segment: bytes
) -> None:
    elsewhere = read(router.address, ThreadKey(thread.tenant, "another"))
    with pytest.raises(TokenInvalid, match="another thread"):
        ask(router.address, "put", put_request(thread, first_event(elsewhere, segment)))
    question = calls.GetTupleRequest()
    token = Session(token=elsewhere.token, segment=SegmentId(segment))
    requests.fill_get_tuple(question, thread, "", None, token)
    with pytest.raises(TokenInvalid):
        ask(router.address, "get_tuple", question)


def test_a_manifest_that_names_blobs_never_sent_is_not_written_and_names_them(
    router: RunningRouter, ask: Ask, thread: ThreadKey, segment: bytes
) -> None:
    sent, never = blob(b"sent"), blob(b"never")
    event = first_event(read(router.address, thread), segment, sent.hash, never.hash)
    answer = ask(router.address, "put", put_request(thread, event, sent))
    assert list(answer.missing) == [never.hash]
    assert read(router.address, thread).tuple is None
    answer = ask(router.address, "put", put_request(thread, event, sent, never))
    assert not answer.missing
    shown = read(router.address, thread)
    assert {name for name, _ in shown.blobs} == {sent.hash, never.hash}


def test_a_blob_of_the_greatest_size_goes_and_comes_whole_and_one_more_byte_is_refused(
    router: RunningRouter, ask: Ask, thread: ThreadKey
) -> None:
    largest = blob(bytes(limits.BLOB_BYTES_MAX))
    request = calls.PutBlobsRequest()
    requests.fill_put_blobs(request, thread, 1, [largest])
    assert ask(router.address, "put_blobs", request).clock.generation == 1
    request.blobs[0].value.data += b"x"
    with pytest.raises(LimitExceeded, match=r"blobs\.value has 16777217"):
        ask(router.address, "put_blobs", request)


def test_a_message_over_the_limit_is_refused_by_the_transport(
    router: RunningRouter, ask: Ask, bystander: Stream
) -> None:
    request = calls.GetTupleRequest(tenant="t", thread_id="x" * (limits.MESSAGE_BYTES_MAX + 1))
    with pytest.raises(LimitExceeded, match="larger than max"):
        ask(router.address, "get_tuple", request)


def test_unknown_fields_of_a_newer_client_are_ignored(router: RunningRouter) -> None:
    unknown = b"\xfa\x3f\x03new" + b"\xf8\x3f\x01"  # fields 1023 and 1023: text, number
    known = calls.GetTupleRequest(tenant="t", thread_id="t").SerializeToString()
    answer = calls.GetTupleResponse.FromString(
        ask_raw(router.address, "GetTuple", unknown + known + unknown)
    )
    assert answer.clock.generation == 1


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"\x0a\x05a\xed\xa0\x80b\x12\x01t", "GetTupleRequest"),  # a lone surrogate as bytes
        (b"\x0a\x02\xff\xfe\x12\x01t", "GetTupleRequest"),  # not UTF-8
        (b"\x0a\xff", "GetTupleRequest"),  # cut off
        (b"\x08\x07\x12\x01t", "tenant is empty"),  # a number where the tenant should be
    ],
)
def test_bytes_of_another_type_are_refused_on_both_ways(
    router: RunningRouter, bystander: Stream, raw: bytes, says: str
) -> None:
    with pytest.raises(InvalidArgument, match=says):
        ask_raw(router.address, "GetTuple", raw)
    call = b"\x08\x05" + b"\x42" + bytes([len(raw)]) + raw  # call 5, get_tuple
    with Stream(router.address) as stream:
        stream.send(frame_of([call]))
        result = stream.next()
        assert (result.call_id, result.error.reason) == (5, "INVALID_ARGUMENT")
        stream.call(call_of(*get(), call_id=6))
        assert stream.next().get_tuple.clock.generation == 1


def test_a_call_that_this_router_does_not_know_is_refused_alone(
    router: RunningRouter,
) -> None:
    with Stream(router.address) as stream:
        stream.call(calls.Call(call_id=1), call_of(*get(), call_id=2))
        results = {}
        for result in stream.results():
            results[result.call_id] = result
            if len(results) == 2:
                break
    assert "no request that this router knows" in results[1].error.message
    assert results[2].get_tuple.clock.generation == 1


@pytest.mark.parametrize(
    ("frame", "expected", "says"),
    [
        (b"\xff\xff\xff\xff", InvalidArgument, "no ConnectRequest"),
        (b"\x0a\x05\x08", InvalidArgument, "no ConnectRequest"),
        (b"\x0a\x01\xff", InvalidArgument, "no Call"),
        (b"\x0a\x02\x08\x01" * 2, InvalidArgument, "call 1 is under way already"),
        (b"\x0a\x00" * 10_000, LimitExceeded, "calls"),
        (b"\x10\x01" * 10_000, LimitExceeded, "cancelled"),
        (b"GET / HTTP/1.1\r\n\r\n", InvalidArgument, "no ConnectRequest"),
    ],
    ids=["rubbish", "cut off", "no call", "one id twice", "calls", "cancellations", "web"],
)
def test_a_frame_that_cannot_be_understood_ends_its_own_stream_with_the_reason(
    router: RunningRouter,
    bystander: Stream,
    frame: bytes,
    expected: type[RouterError],
    says: str,
) -> None:
    with Stream(router.address) as stream:
        stream.call(call_of(*get(), call_id=9))
        assert stream.next().get_tuple.token
        stream.send(frame)
        with pytest.raises(expected, match=says):
            list(stream.results())
