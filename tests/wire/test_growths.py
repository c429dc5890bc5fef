"""Values that are not sent whole, as a client in any language would write them."""

from collections.abc import Callable
from typing import Any

import pytest

from checkpoint_router.core import limits
from checkpoint_router.core.errors import InvalidArgument, LimitExceeded, RouterError
from checkpoint_router.core.ids import ThreadKey
from checkpoint_router.testing import RunningRouter
from checkpoint_router.v1 import checkpoint_service_pb2 as calls
from checkpoint_router.v1 import types_pb2 as pb

from .raw import ask_on_stream, ask_unary, blob, first_event, put_request, read

Ask = Callable[[str, str, Any], Any]

BODY = b"m" * 2000
OLDER = blob(b"\x91" + BODY)
NEWER = blob(b"\x92" + BODY + b"n" * 100)


@pytest.fixture(params=[ask_unary, ask_on_stream], ids=["unary", "stream"])
def ask(request: pytest.FixtureRequest) -> Ask:
    """Both ways in: the same call, the same answer."""
    chosen: Ask = request.param
    return chosen


def growth(**changed: Any) -> pb.Blob:
    """NEWER as what it has beyond OLDER."""
    said: dict[str, Any] = {
        "hash": NEWER.hash,
        "value": pb.Value(type="msgpack", data=b"n" * 100),
        "continues": OLDER.hash,
        "keep": 2000,
        "head": b"\x92",
    }
    return pb.Blob(**{**said, **changed})


def put_of(
    address: str, thread: ThreadKey, segment: bytes, *blobs: pb.Blob, names: bytes = NEWER.hash
) -> calls.PutRequest:
    """A put of a checkpoint that names a value, with these blobs."""
    request = put_request(thread, first_event(read(address, thread), segment, names))
    request.blobs.extend(blobs)
    return request


def whole(one: Any = OLDER) -> pb.Blob:
    """A blob with all of its bytes."""
    return pb.Blob(hash=one.hash, value=pb.Value(type=one.value.tag, data=one.value.data))


def store(address: str, thread: ThreadKey, *blobs: pb.Blob) -> None:
    """Stores blobs ahead of a put."""
    request = calls.PutBlobsRequest(
        tenant=thread.tenant, thread_id=thread.thread, generation=1, blobs=blobs
    )
    ask_unary(address, "put_blobs", request)


def test_a_growth_is_stored_whole(
    router: RunningRouter, ask: Ask, thread: ThreadKey, segment: bytes
) -> None:
    store(router.address, thread, whole())
    put = put_of(router.address, thread, segment, growth())
    assert not ask(router.address, "put", put).missing
    assert read(router.address, thread).blobs == ((NEWER.hash, NEWER.value),)


@pytest.mark.parametrize(
    "wrong",
    [
        growth(continues=NEWER.hash),
        growth(head=b"\x93"),
        growth(head=b""),
        growth(keep=1999),
        growth(keep=2001),
        growth(value=pb.Value(type="msgpack", data=b"o" * 100)),
        growth(value=pb.Value(type="json", data=b"n" * 100)),
    ],
)
def test_a_growth_that_does_not_make_its_name_is_missing(
    router: RunningRouter, ask: Ask, thread: ThreadKey, segment: bytes, wrong: pb.Blob
) -> None:
    store(router.address, thread, whole())
    put = put_of(router.address, thread, segment, wrong)
    assert list(ask(router.address, "put", put).missing) == [NEWER.hash]
    assert read(router.address, thread).tuple is None
    del put.blobs[:]
    put.blobs.append(whole(NEWER))
    assert not ask(router.address, "put", put).missing


def test_a_value_of_another_thread_is_no_base(
    router: RunningRouter, ask: Ask, thread: ThreadKey, segment: bytes
) -> None:
    store(router.address, ThreadKey(thread.tenant, thread.thread + "-other"), whole())
    store(router.address, ThreadKey(thread.tenant + "-other", thread.thread), whole())
    put = put_of(router.address, thread, segment, growth())
    assert list(ask(router.address, "put", put).missing) == [NEWER.hash]


@pytest.mark.parametrize(
    ("bad", "error", "says"),
    [
        (growth(continues=b""), InvalidArgument, "blobs.continues has 0"),
        (growth(hash=b"1"), InvalidArgument, "blobs.hash has 1"),
        (growth(head=bytes(6)), InvalidArgument, "blobs.head has 6"),
        (growth(keep=limits.BLOB_BYTES_MAX), LimitExceeded, "blobs.value has"),
        (growth(keep=2**64 - 1), LimitExceeded, "blobs.value has"),
    ],
)
def test_a_bad_growth_gets_an_error_that_names_what_is_wrong(
    router: RunningRouter,
    ask: Ask,
    thread: ThreadKey,
    segment: bytes,
    bad: pb.Blob,
    error: type[RouterError],
    says: str,
) -> None:
    with pytest.raises(error, match=says):
        ask(router.address, "put", put_of(router.address, thread, segment, bad))
    with pytest.raises(InvalidArgument, match=r"blobs\.keep is set"):
        store(router.address, thread, bad)


def test_a_reader_gets_what_it_does_not_have(
    router: RunningRouter, ask: Ask, thread: ThreadKey, segment: bytes
) -> None:
    put = put_of(router.address, thread, segment, whole(NEWER))
    ask(router.address, "put", put)
    of_older: dict[str, Any] = {"hash": OLDER.hash, "channel": "c0", "head": b"\x91", "keep": 2000}
    cases: dict[str, tuple[pb.HeldBlob, list[pb.Blob]]] = {
        "has it": (pb.HeldBlob(hash=NEWER.hash), []),
        "has its older self": (pb.HeldBlob(**of_older), [growth()]),
        "of another channel": (pb.HeldBlob(**{**of_older, "channel": "c1"}), [whole(NEWER)]),
        "of another length": (pb.HeldBlob(**{**of_older, "keep": 1999}), [whole(NEWER)]),
        "of another head": (pb.HeldBlob(**{**of_older, "head": b"\x90"}), [whole(NEWER)]),
        "of no length": (pb.HeldBlob(**{**of_older, "keep": 2**64 - 1}), [whole(NEWER)]),
        "without a name": (pb.HeldBlob(), [whole(NEWER)]),
    }
    for case, (held, expected) in cases.items():
        question = calls.GetTupleRequest(tenant=thread.tenant, thread_id=thread.thread, held=[held])
        assert list(ask(router.address, "get_tuple", question).blobs) == expected, case
    listing = calls.ListTuplesRequest(
        tenant=thread.tenant, thread_id=thread.thread, held=[NEWER.hash]
    )
    page = ask(router.address, "list_tuples", listing)
    assert len(page.tuples) == 1
    assert not page.blobs


def test_what_a_reader_says_beyond_the_limit_is_not_looked_at(
    router: RunningRouter, ask: Ask, thread: ThreadKey, segment: bytes
) -> None:
    ask(router.address, "put", put_of(router.address, thread, segment, whole(NEWER)))
    others = [pb.HeldBlob(hash=bytes([n]) * 32) for n in range(256)]
    question = calls.GetTupleRequest(
        tenant=thread.tenant,
        thread_id=thread.thread,
        held=[*others, pb.HeldBlob(hash=NEWER.hash)],
    )
    assert list(ask(router.address, "get_tuple", question).blobs) == [whole(NEWER)]
