"""The table of unanswered calls: what is sent, sent again, cancelled and forgotten, without I/O."""

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from checkpoint_router.client.calls import WINDOW_MIN, CallTable, Prepared, packed_cancels
from checkpoint_router.core import limits
from checkpoint_router.core.errors import LimitExceeded
from checkpoint_router.v1 import checkpoint_service_pb2 as v1
from checkpoint_router.wire.frames import varint

REQUEST_NAMES = [each.name for each in v1.Call.DESCRIPTOR.oneofs_by_name["request"].fields]


def call(call_id: int, size: int = 0) -> bytes:
    return bytes(v1.Call(call_id=call_id, traceparent="x" * size).SerializeToString())


def parsed(frame: bytes | None) -> v1.ConnectRequest:
    return v1.ConnectRequest.FromString(frame or b"")


def ids(frame: bytes | None) -> list[int]:
    return [each.call_id for each in parsed(frame).calls]


def table_of(*sizes: int, first: int = 1) -> CallTable[str]:
    table: CallTable[str] = CallTable()
    for call_id, size in enumerate(sizes, first):
        table.admit(call_id, call(call_id, size), f"w{call_id}")
    return table


# The bytes ----------------------------------------------------------------------------------------


@given(
    name=st.sampled_from(REQUEST_NAMES),
    tenant=st.text(max_size=300).filter(lambda text: text.isprintable()),
    call_id=st.integers(1, 2**64 - 1),
    seconds=st.floats(0, 10**9),
    traceparent=st.sampled_from(["", "00-" + "a" * 32 + "-" + "b" * 16 + "-01"]),
)
def test_a_call_is_the_bytes_that_protobuf_would_write(
    name: str, tenant: str, call_id: int, seconds: float, traceparent: str
) -> None:
    request: Any = getattr(v1.Call(), name)
    request.tenant = tenant
    data = Prepared.of(name, request, traceparent).encoded(call_id, seconds)
    wanted = v1.Call(
        call_id=call_id,
        timeout_ms=max(1, min(int(seconds * 1000), 2**32 - 1)),
        traceparent=traceparent,
        **{name: request},
    )
    assert v1.Call.FromString(data) == wanted
    assert v1.Call.FromString(data).WhichOneof("request") == name


@given(st.integers(0, 2**64 - 1))
def test_a_varint_is_the_one_of_protobuf(number: int) -> None:
    assert varint(number) == v1.Call(call_id=number).SerializeToString()[1:] or number == 0


@given(st.lists(st.integers(1, 2**64 - 1), max_size=20))
def test_cancelled_ids_are_the_bytes_that_protobuf_would_write(call_ids: list[int]) -> None:
    assert packed_cancels(call_ids) == v1.ConnectRequest(cancelled=call_ids).SerializeToString()


def test_a_request_of_another_call_is_a_mistake() -> None:
    with pytest.raises(TypeError, match=r"put takes a checkpoint_router\.v1\.PutRequest"):
        Prepared.of("put", v1.GetTupleRequest())
    with pytest.raises(TypeError, match="there is no call 'putt'"):
        Prepared.of("putt", v1.PutRequest())


def test_a_request_that_no_message_can_carry_is_refused_before_it_is_sent() -> None:
    request = v1.PutRequest(tenant="t")
    request.blobs.add().value.data = b"x" * limits.MESSAGE_BYTES_MAX
    with pytest.raises(LimitExceeded, match="Nothing was sent"):
        Prepared.of("put", request)


def test_the_largest_request_that_is_taken_fits_in_a_message_with_all_around_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    most = 4096
    monkeypatch.setattr(limits, "MESSAGE_BYTES_MAX", most)
    traceparent = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    taken = []
    for size in range(most):
        request = v1.PutRequest(tenant="t" * size)
        try:
            taken.append(Prepared.of("put", request, traceparent))
        except LimitExceeded:
            break
    table: CallTable[str] = CallTable()
    table.admit(2**63, taken[-1].encoded(2**63, 10**9), "w")
    frame = table.next_frame(table.open())
    assert frame is not None
    assert most - 150 < len(frame) <= most


# Frames -------------------------------------------------------------------------------------------


def test_calls_that_wait_together_ride_in_one_frame() -> None:
    table = table_of(0, 0, 0)
    stream = table.open()
    assert ids(table.next_frame(stream)) == [1, 2, 3]
    assert table.next_frame(stream) is None


def test_a_frame_has_no_more_calls_than_allowed() -> None:
    table = table_of(*[0] * (limits.FRAME_CALLS_MAX + 1))
    stream = table.open()
    assert len(ids(table.next_frame(stream))) == limits.FRAME_CALLS_MAX
    assert ids(table.next_frame(stream)) == [limits.FRAME_CALLS_MAX + 1]


def test_a_call_larger_than_a_frame_rides_alone() -> None:
    table = table_of(10, limits.FRAME_BYTES_MAX + 1, 10)
    stream = table.open()
    assert [ids(table.next_frame(stream)) for _ in range(3)] == [[1], [2], [3]]


def test_a_frame_is_closed_before_it_is_larger_than_allowed() -> None:
    half = limits.FRAME_BYTES_MAX // 2
    table = table_of(half - 100, half - 100, 1000)
    stream = table.open()
    frames = [table.next_frame(stream) for _ in range(2)]
    assert [ids(each) for each in frames] == [[1, 2], [3]]
    assert all(len(each or b"") <= limits.FRAME_BYTES_MAX for each in frames)


def test_more_calls_than_a_stream_may_carry_wait_until_some_are_answered() -> None:
    table = table_of(*[0] * (limits.CALLS_PER_STREAM_MAX + 2))
    stream = table.open()
    while table.next_frame(stream):
        pass
    assert table.under_way(stream) == limits.CALLS_PER_STREAM_MAX
    assert not table.sendable(stream)
    assert table.answered(stream, 7) == "w7"
    assert ids(table.next_frame(stream)) == [limits.CALLS_PER_STREAM_MAX + 1]


def test_after_a_refusal_less_is_sent_at_once_and_answers_bring_it_back() -> None:
    table = table_of(*[0] * 60)
    stream = table.open()
    assert len(ids(table.next_frame(stream))) == 60
    for call_id in range(1, 21):
        assert table.answered(stream, call_id, full=True) == f"w{call_id}"
    # 40 are under way, and three quarters of them are believed to be welcome.
    for call_id in range(61, 101):
        table.admit(call_id, call(call_id), f"w{call_id}")
    for call_id in range(21, 31):
        assert not table.sendable(stream)
        table.answered(stream, call_id)
    for call_id in range(31, 61):
        table.answered(stream, call_id)
        table.next_frame(stream)
    assert table.under_way(stream) == 32  # one more after thirty answers, and another
    table.broken(stream)
    stream = table.open()
    assert len(ids(table.next_frame(stream))) == 40  # it is not known to be full


def test_a_call_that_was_refused_goes_first_however_full_the_router_is() -> None:
    table = table_of(*[0] * 20)
    stream = table.open()
    table.next_frame(stream)
    table.answered(stream, 1, full=True)
    table.admit(21, call(21), "w21")
    table.admit(22, call(22), "w22", again=True)
    assert ids(table.next_frame(stream)) == [22]
    assert not table.sendable(stream)


def test_a_router_that_is_full_is_still_asked_for_a_few_calls() -> None:
    table = table_of(0, 0)
    stream = table.open()
    table.next_frame(stream)
    assert not table.silence
    for call_id in (1, 2):
        table.answered(stream, call_id, full=True)
    assert "refused calls" in table.silence
    for call_id in range(3, 13):
        table.admit(call_id, call(call_id), f"w{call_id}")
    assert len(ids(table.next_frame(stream))) == WINDOW_MIN


# What becomes of calls ----------------------------------------------------------------------------


def test_answers_may_come_in_any_order_and_only_once() -> None:
    table = table_of(0, 0)
    stream = table.open()
    table.next_frame(stream)
    assert table.answered(stream, 2) == "w2"
    assert table.answered(stream, 1) == "w1"
    assert table.answered(stream, 1) is None
    assert table.unanswered == 0


def test_an_answer_to_a_call_that_was_never_sent_is_dropped() -> None:
    table = table_of(0)
    stream = table.open()
    assert table.answered(stream, 1) is None
    assert table.answered(stream, 99) is None
    assert ids(table.next_frame(stream)) == [1]


def test_a_broken_stream_sends_everything_unanswered_again_as_the_same_bytes_and_first() -> None:
    table = table_of(0, 5, 0)
    first = table.open()
    before = parsed(table.next_frame(first)).calls
    table.answered(first, 1)
    table.admit(4, call(4), "w4")
    assert table.broken(first) == 2
    second = table.open()
    frame = table.next_frame(second)
    assert ids(frame) == [2, 3, 4]
    assert [each.SerializeToString() for each in parsed(frame).calls[:2]] == [
        each.SerializeToString() for each in before[1:]
    ]
    assert table.answered(first, 2) is None  # the old stream is over; this cannot be its answer
    assert table.answered(second, 2) == "w2"


def test_calls_whose_time_is_over_are_found_and_the_time_of_the_next_one() -> None:
    table: CallTable[str] = CallTable()
    for call_id, ends_at in enumerate((9.0, 3.0, 5.0), 1):
        table.admit(call_id, call(call_id), f"w{call_id}", ends_at)
    assert table.ended(2.9) == ([], 3.0)
    assert table.ended(5.0) == (["w2", "w3"], 9.0)
    table.give_up(1)
    assert table.ended(1.0)[1] == 3.0
    table.abandon_all()
    assert table.ended(99.0) == ([], math.inf)


def test_the_router_is_told_of_a_call_that_was_given_up_after_it_was_sent() -> None:
    table = table_of(0, 0)
    stream = table.open()
    table.next_frame(stream)
    assert table.give_up(1) == stream
    assert table.sendable(stream)
    assert list(parsed(table.next_frame(stream)).cancelled) == [1]
    assert not table.sendable(stream)
    assert table.next_frame(stream) is None
    assert table.answered(stream, 1) is None
    assert table.give_up(1) == 0


def test_a_call_that_was_given_up_before_it_was_sent_is_never_sent() -> None:
    table = table_of(0, 0)
    assert table.give_up(1) == 0
    frame = table.next_frame(table.open())
    assert ids(frame) == [2]
    assert not parsed(frame).cancelled


def test_a_call_that_was_given_up_after_its_stream_broke_is_not_sent_again() -> None:
    table = table_of(0, 0)
    table.next_frame(table.open())
    table.broken(1)
    assert table.give_up(1) == 0
    frame = table.next_frame(table.open())
    assert ids(frame) == [2]
    assert not parsed(frame).cancelled


def test_a_retired_stream_takes_no_calls_but_still_answers_and_cancels() -> None:
    table = table_of(0, 0)
    old = table.open()
    table.next_frame(old)
    table.retire(old)
    table.admit(3, call(3), "w3")
    assert table.next_frame(old) is None
    new = table.open()
    assert ids(table.next_frame(new)) == [3]
    assert table.answered(old, 1) == "w1"
    table.give_up(2)
    assert list(parsed(table.next_frame(old)).cancelled) == [2]
    assert table.under_way(old) == 0


def test_a_retired_stream_that_breaks_gives_its_calls_to_the_next() -> None:
    table = table_of(0)
    old = table.open()
    table.next_frame(old)
    new = table.open()
    assert table.broken(old) == 1
    assert table.current == new
    assert ids(table.next_frame(new)) == [1]


def test_abandoning_all_forgets_calls_on_every_stream() -> None:
    table = table_of(0, 0)
    old = table.open()
    table.next_frame(old)
    table.retire(old)
    table.admit(3, call(3), "w3")
    assert sorted(table.abandon_all()) == ["w1", "w2", "w3"]
    assert (table.unanswered, table.waiting, table.current) == (0, 0, 0)
    assert table.answered(old, 1) is None


# Any order of events ------------------------------------------------------------------------------


class Links(RuleBasedStateMachine):
    """A table beside a plain record of what each stream carried and what became of each call."""

    def __init__(self) -> None:
        super().__init__()
        self.table: CallTable[int] = CallTable()
        self.last = 0
        self.open_calls: dict[int, bytes] = {}
        self.sent: dict[int, dict[int, bytes]] = {}  # stream to what it carried, ever
        self.on: dict[int, int] = {}  # unanswered call to its stream
        self.owed: dict[int, set[int]] = {}  # stream to cancels that it was not told yet
        self.current = 0

    @rule(
        count=st.integers(1, 90),
        size=st.sampled_from([0, 100, 40_000, limits.FRAME_BYTES_MAX + 1]),
        again=st.booleans(),
    )
    def admit(self, count: int, size: int, again: bool) -> None:
        for _ in range(count if size < 1_000_000 else 1):
            self.last += 1
            self.open_calls[self.last] = call(self.last, size)
            self.table.admit(self.last, self.open_calls[self.last], self.last, again=again)

    @precondition(lambda self: len(self.sent) < 2)
    @rule()
    def open(self) -> None:
        self.current = self.table.open()
        self.sent[self.current] = {}
        self.owed[self.current] = set()

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def send(self, data: st.DataObject) -> None:
        stream = data.draw(st.sampled_from(sorted(self.sent)))
        could = self.table.sendable(stream)
        frame = self.table.next_frame(stream)
        assert could == (frame is not None)
        message = parsed(frame)
        assert len(message.calls) <= limits.FRAME_CALLS_MAX
        assert not message.calls or stream == self.current
        if len(message.calls) > 1:
            assert sum(each.ByteSize() for each in message.calls) <= limits.FRAME_BYTES_MAX
        for each in message.calls:
            assert each.call_id not in self.sent[stream], "sent twice on one stream"
            assert each.call_id not in self.on, "sent while another stream has it"
            assert each.SerializeToString() == self.open_calls[each.call_id]
            self.sent[stream][each.call_id] = self.open_calls[each.call_id]
            self.on[each.call_id] = stream
        assert set(message.cancelled) <= self.owed[stream]
        self.owed[stream] -= set(message.cancelled)

    @precondition(lambda self: self.last)
    @rule(data=st.data(), full=st.booleans())
    def answer(self, data: st.DataObject, full: bool) -> None:
        call_id = data.draw(st.integers(1, self.last))
        stream = data.draw(st.integers(0, max(self.sent, default=0)))
        expected = call_id if self.on.get(call_id) == stream and stream else None
        assert self.table.answered(stream, call_id, full=full) == expected
        if expected:
            del self.on[call_id], self.open_calls[call_id]

    @precondition(lambda self: self.last)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        call_id = data.draw(st.integers(1, self.last))
        stream = self.on.pop(call_id, 0)
        assert self.table.give_up(call_id) == stream
        if stream:
            self.owed[stream].add(call_id)
        self.open_calls.pop(call_id, None)

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def end_a_stream(self, data: st.DataObject) -> None:
        stream = data.draw(st.sampled_from(sorted(self.sent)))
        lost = [each for each, on in self.on.items() if on == stream]
        assert self.table.broken(stream) == len(lost)
        for call_id in lost:
            del self.on[call_id]
        del self.sent[stream], self.owed[stream]
        self.current = 0 if self.current == stream else self.current

    @rule()
    def retire(self) -> None:
        self.table.retire(self.current)
        self.current = 0

    @invariant()
    def nothing_is_lost(self) -> None:
        assert self.table.current == self.current
        assert self.table.unanswered == len(self.open_calls)
        assert self.table.waiting == len(self.open_calls) - len(self.on)
        for stream in self.sent:
            carried = [each for each, on in self.on.items() if on == stream]
            assert self.table.under_way(stream) == len(carried)
            assert len(carried) <= limits.CALLS_PER_STREAM_MAX

    def teardown(self) -> None:
        # Whatever happened: one good stream ends it all.
        for stream in list(self.sent):
            self.table.broken(stream)
        stream = self.table.open()
        left = set(self.open_calls)
        while frame := self.table.next_frame(stream):
            for each in parsed(frame).calls:
                assert each.SerializeToString() == self.open_calls[each.call_id]
                assert self.table.answered(stream, each.call_id) == each.call_id
                left.discard(each.call_id)
        assert not left
        assert self.table.unanswered == 0


TestLinks = Links.TestCase
TestLinks.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
