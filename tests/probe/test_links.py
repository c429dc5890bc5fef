"""Links and a router that breaks in every way: no call is lost, none outlives its deadline."""

import socket
import threading
from collections.abc import Iterator

import pytest
from opentelemetry import trace

from checkpoint_router.client import links as client_links
from checkpoint_router.client.calls import WINDOW_MIN
from checkpoint_router.client.links import Links
from checkpoint_router.client.target import Target
from checkpoint_router.core import limits
from checkpoint_router.core.errors import (
    DeadlineExceeded,
    InvalidArgument,
    Overloaded,
    RouterError,
    SaverClosed,
    Stale,
    Unavailable,
)
from tests.probe.halves import Half, beside, half_of, request
from tests.probe.scripted_router import SECONDS_MAX, ScriptedRouter


@pytest.fixture
def router() -> Iterator[ScriptedRouter]:
    with ScriptedRouter() as router:
        yield router


@pytest.fixture
def other() -> Iterator[ScriptedRouter]:
    with ScriptedRouter() as other:
        yield other


@pytest.fixture(params=["sync", "async"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def half(kind: str, router: ScriptedRouter) -> Iterator[Half]:
    with half_of(kind, router.target) as half:
        yield half


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# Calls and answers --------------------------------------------------------------------------------


def test_making_links_does_nothing_yet() -> None:
    before = threading.enumerate()
    Links(Target.parse("router://no.such.host.invalid:1"))
    assert threading.enumerate() == before


def test_answers_come_back_to_their_callers_in_any_order(
    half: Half, router: ScriptedRouter
) -> None:
    slow = half.start("slow", "hold", "h")
    router.wait_for_call("slow")
    assert half.call("quick") == "quick"
    assert not slow.done()
    assert half.call("r", "release", "h") == "r"
    assert slow.result(SECONDS_MAX) == "slow"
    assert len(router.seen("stream")) == 1


def test_a_thousand_callers_at_once_share_one_stream(half: Half, router: ScriptedRouter) -> None:
    answers = [half.start(f"k{n}") for n in range(1000)]
    assert [each.result(SECONDS_MAX) for each in answers] == [f"k{n}" for n in range(1000)]
    assert len(router.seen("stream")) == 1
    assert len(router.seen("frame")) < 1000


def test_no_more_calls_are_under_way_than_a_stream_may_carry(
    kind: str, half: Half, router: ScriptedRouter
) -> None:
    most = limits.CALLS_PER_STREAM_MAX
    answers = [half.start(f"k{n}", "hold", "h") for n in range(most + 50)]
    router.wait_for(lambda: len(router.seen("call")) >= most, "a full stream")
    with half_of(kind, router.target) as other:
        assert other.call("r", "release", "h") == "r"
    assert {each.result(SECONDS_MAX) for each in answers} == {f"k{n}" for n in range(most + 50)}
    assert max(each["under_way"] for each in router.seen("call")) <= most


def test_an_answer_that_comes_twice_is_taken_once(half: Half) -> None:
    assert half.call("a", "twice") == "a"
    assert half.call("b") == "b"


def test_a_call_carries_its_time_and_its_span(half: Half, router: ScriptedRouter) -> None:
    assert half.call("plain", seconds=12.0) == "plain"
    (plain,) = router.seen("call", key="plain")
    assert 11_000 < plain["timeout_ms"] <= 12_000
    assert plain["traceparent"] == ""


def test_the_router_learns_the_callers_span(router: ScriptedRouter) -> None:
    span = trace.NonRecordingSpan(
        trace.SpanContext(0xABC, 0xDEF, is_remote=False, trace_flags=trace.TraceFlags(1))
    )
    links = Links(Target.parse(router.target))
    with trace.use_span(span):
        links.call("get_tuple", request("k"), timeout_seconds=SECONDS_MAX)
    links.close()
    (seen,) = router.seen("call", key="k")
    assert seen["traceparent"] == f"00-{0xABC:032x}-{0xDEF:016x}-01"


# Errors -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", ["OVERLOADED", "UNAVAILABLE"])
def test_a_router_that_says_not_now_is_asked_again(
    half: Half, router: ScriptedRouter, reason: str
) -> None:
    assert half.call("k", "refuse", f"{reason}:3") == "k"
    calls = router.seen("call", key="k")
    assert len(calls) == 4
    assert len({each["id"] for each in calls}) == 4


def test_what_is_done_meanwhile_is_done_once_and_when_the_call_was_sent(
    half: Half, router: ScriptedRouter
) -> None:
    half.call("the stream is open")
    seen: list[int] = []

    def meanwhile() -> None:
        router.wait_for_call("k")
        seen.append(len(router.seen("call", key="k")))

    assert half.call("k", "refuse", "UNAVAILABLE:1", meanwhile=meanwhile) == "k"
    assert seen == [1]
    assert len(router.seen("call", key="k")) == 2


def test_calls_that_were_refused_together_do_not_come_back_together() -> None:
    refusal = Overloaded("full", retry_after_ms="1000")
    pauses = {round(client_links._pause(refusal, 0), 2) for _ in range(100)}
    assert 1.0 <= min(pauses) <= max(pauses) <= 1.5
    assert len(pauses) > 10


def test_a_full_router_is_not_asked_for_more_than_it_takes(
    kind: str, half: Half, router: ScriptedRouter
) -> None:
    held = [half.start(f"held{n}", "hold", "h") for n in range(2 * WINDOW_MIN)]
    for n in range(len(held)):
        router.wait_for_call(f"held{n}")
    # The one that was refused is asked again all the same: others may wait for it there.
    assert half.call("refused", "refuse", "OVERLOADED:1") == "refused"
    later = half.start("later")
    with half_of(kind, router.target) as another:
        another.call("go", "release", "h")
    assert [each.result(SECONDS_MAX) for each in (*held, later)][-1] == "later"
    (seen,) = router.seen("call", key="later")
    assert seen["under_way"] <= WINDOW_MIN


def test_a_router_that_says_not_now_for_too_long_costs_the_deadline(half: Half) -> None:
    with pytest.raises(DeadlineExceeded, match="UNAVAILABLE: so it was asked") as caught:
        half.call("k", "refuse", "UNAVAILABLE:1000000", seconds=0.5)
    assert isinstance(caught.value.__cause__, Unavailable)


def test_a_deadline_that_ends_a_try_without_an_answer_tells_of_the_last_one(half: Half) -> None:
    with pytest.raises(DeadlineExceeded, match=r"last answer was UNAVAILABLE: so it was asked"):
        half.call("k", "never", "UNAVAILABLE:1", seconds=1.5)


@pytest.mark.parametrize(
    ("reason", "cls"), [("STALE", Stale), ("INVALID_ARGUMENT", InvalidArgument)]
)
def test_an_error_that_a_retry_cannot_mend_is_raised_at_once(
    half: Half, router: ScriptedRouter, reason: str, cls: type[RouterError]
) -> None:
    with pytest.raises(cls, match="so it was asked") as caught:
        half.call("k", "refuse", f"{reason}:1")
    assert caught.value.attributes == {"a": "b"}
    assert len(router.seen("call", key="k")) == 1


def test_an_answer_of_another_kind_is_an_error(half: Half) -> None:
    with pytest.raises(RouterError, match="answered get_tuple with 'put'"):
        half.call("k", "wrong")


def test_a_call_that_is_never_answered_ends_at_its_deadline_and_the_router_is_told(
    half: Half, router: ScriptedRouter
) -> None:
    with pytest.raises(DeadlineExceeded, match=r"get_tuple had no answer .* within 0.3 s"):
        half.call("k", "never", seconds=0.3)
    (call,) = router.seen("call", key="k")
    router.wait_for(lambda: router.seen("cancelled", ids=[call["id"]]), "the cancellation")
    assert half.call("next") == "next"
    assert len(router.seen("stream")) == 1


def test_each_of_several_calls_ends_at_its_own_deadline(half: Half) -> None:
    _, short, shorter = (
        half.start(key, "never", seconds=seconds)
        for key, seconds in (("long", 10 * SECONDS_MAX), ("short", 0.6), ("shorter", 0.3))
    )
    for call in (shorter, short):
        assert isinstance(call.exception(SECONDS_MAX), DeadlineExceeded)
    assert half.call("next") == "next"


def test_nobody_at_the_address_is_said_when_the_time_is_over(kind: str) -> None:
    port = unused_port()
    with half_of(kind, f"router://127.0.0.1:{port}") as half:
        with pytest.raises(DeadlineExceeded) as caught:
            half.call("k", seconds=0.5)
        assert f"127.0.0.1:{port}: UNAVAILABLE" in str(caught.value)
        assert "Check that a router runs there" in str(caught.value)


def test_something_that_is_no_router_is_said_at_once(half: Half) -> None:
    with pytest.raises(InvalidArgument, match="is not a checkpoint router"):
        half.call("k", "break", "UNIMPLEMENTED:99")


def test_something_that_does_not_speak_grpc_costs_the_deadline(kind: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def babble() -> str:
            while True:
                peer, _ = server.accept()
                with peer:
                    peer.sendall(b"220 mail.example.org ESMTP\r\n" * 4)

        beside(babble)
        with half_of(kind, f"router://127.0.0.1:{server.getsockname()[1]}") as half:
            with pytest.raises(DeadlineExceeded):
                half.call("k", seconds=0.5)
            server.shutdown(socket.SHUT_RDWR)


# Broken streams -----------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["UNAVAILABLE", "INTERNAL", "UNKNOWN", "RESOURCE_EXHAUSTED"])
def test_a_broken_stream_costs_no_call(half: Half, router: ScriptedRouter, code: str) -> None:
    held = half.start("held", "hold", "h")
    router.wait_for_call("held")
    assert half.call("k", "break", f"{code}:2") == "k"
    assert half.call("r", "release", "h") == "r"
    assert held.result(SECONDS_MAX) == "held"
    assert len(router.seen("stream")) == 3


def test_calls_of_a_killed_router_are_sent_to_the_next_as_the_very_same_bytes(
    half: Half, router: ScriptedRouter
) -> None:
    answers = [half.start(f"k{n}", "hold", "h") for n in range(20)]
    for n in range(20):
        router.wait_for_call(f"k{n}")
    router.kill()
    router.start()
    for n in range(20):
        router.wait_for_call(f"k{n}", times=2)
    assert half.call("r", "release", "h") == "r"
    assert [each.result(SECONDS_MAX) for each in answers] == [f"k{n}" for n in range(20)]
    for n in range(20):
        first, second = router.seen("call", key=f"k{n}")
        assert (first["id"], first["digest"]) == (second["id"], second["digest"])


def test_a_call_waits_for_a_router_that_is_not_there_yet(kind: str) -> None:
    port = unused_port()
    with half_of(kind, f"router://127.0.0.1:{port}") as half:
        answer = half.start("k")
        with ScriptedRouter(port):
            assert answer.result(SECONDS_MAX) == "k"


def test_a_link_that_broke_while_nothing_was_called_is_opened_by_the_next_call(
    half: Half, router: ScriptedRouter
) -> None:
    assert half.call("before") == "before"
    router.kill()
    router.start()
    assert half.call("after") == "after"


def test_a_stalled_router_costs_the_deadline_and_its_late_answer_is_dropped(
    half: Half, router: ScriptedRouter
) -> None:
    assert half.call("before") == "before"
    router.pause()
    with pytest.raises(DeadlineExceeded):
        half.call("stalled", seconds=0.3)
    router.resume()
    assert half.call("after") == "after"
    (call,) = router.seen("call", key="stalled")
    router.wait_for(lambda: router.seen("cancelled", ids=[call["id"]]), "the cancellation")


def test_a_router_that_goes_away_answers_what_it_has_while_new_calls_go_elsewhere(
    kind: str, router: ScriptedRouter, other: ScriptedRouter
) -> None:
    target = f"{router.target},127.0.0.1:{other.port}"
    with half_of(kind, target) as half:
        old = half.start("old", "hold", "h")
        router.wait_for_call("old")
        assert half.call("away", "away") == "away"
        assert half.call("new") == "new"
        assert other.seen("call", key="new")
        assert not old.done()
        with half_of(kind, router.target) as releaser:
            releaser.call("r", "release", "h")
        assert old.result(SECONDS_MAX) == "old"
        router.wait_for(lambda: router.seen("end", stream=1, under_way=0), "the old stream's end")
        assert not router.seen("call", key="new")


def test_a_router_that_goes_away_and_dies_gives_its_calls_to_the_next(
    kind: str, router: ScriptedRouter, other: ScriptedRouter
) -> None:
    with half_of(kind, f"{router.target},127.0.0.1:{other.port}") as half:
        old = half.start("old", "hold", "h")
        router.wait_for_call("old")
        assert half.call("away", "away") == "away"
        router.kill()
        other.wait_for_call("old")
        assert half.call("r", "release", "h") == "r"
        assert old.result(SECONDS_MAX) == "old"


def test_the_next_router_of_the_address_is_asked_when_one_is_killed(
    kind: str, router: ScriptedRouter, other: ScriptedRouter
) -> None:
    dead = unused_port()
    target = f"router://127.0.0.1:{dead},127.0.0.1:{router.port},127.0.0.1:{other.port}"
    with half_of(kind, target) as half:
        assert half.call("first") == "first"
        assert router.seen("call", key="first")
        held = half.start("held", "hold", "h")
        router.wait_for_call("held")
        router.kill()
        other.wait_for_call("held")
        assert half.call("r", "release", "h") == "r"
        assert held.result(SECONDS_MAX) == "held"


# The end ------------------------------------------------------------------------------------------


def test_closing_ends_calls_under_way_and_refuses_later_ones(
    half: Half, router: ScriptedRouter
) -> None:
    held = half.start("held", "never")
    router.wait_for_call("held")
    half.close()
    with pytest.raises(SaverClosed, match="was closed"):
        held.result(SECONDS_MAX)
    with pytest.raises(SaverClosed, match="Make a new RouterSaver"):
        half.call("k")
    half.close()
    router.wait_for(lambda: router.seen("end"), "the stream's end")


def test_closing_before_the_first_call_is_final_too(kind: str) -> None:
    with half_of(kind, "router://127.0.0.1:1") as half:
        half.close()
        with pytest.raises(SaverClosed):
            half.call("k")


def test_closing_ends_calls_that_wait_for_a_router(kind: str) -> None:
    with half_of(kind, f"router://127.0.0.1:{unused_port()}") as half:
        waiting = half.start("k")
        half.close()
        with pytest.raises(SaverClosed):
            waiting.result(SECONDS_MAX)


def test_closing_in_one_worker_ends_the_links_of_every_loop(router: ScriptedRouter) -> None:
    with half_of("async", router.target) as half:
        held = half.start("held", "never")
        router.wait_for_call("held")
        half.links.close()
        with pytest.raises(SaverClosed):
            held.result(SECONDS_MAX)
        router.wait_for(lambda: router.seen("end"), "the stream's end")


def test_one_savers_close_leaves_the_links_of_others(kind: str, router: ScriptedRouter) -> None:
    with half_of(kind, router.target) as kept:
        assert kept.call("a") == "a"
        with half_of(kind, router.target) as closed:
            assert closed.call("b") == "b"
        assert kept.call("c") == "c"
    assert len(router.seen("stream")) == 2
