"""Which router a link asks next and when: pure, so the time and the draw are given."""

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from checkpoint_router.client.route import (
    CONNECT,
    PAUSE_SECONDS_MAX,
    PAUSE_SECONDS_MIN,
    End,
    Route,
    pause_seconds,
)
from checkpoint_router.client.target import Target
from checkpoint_router.core.errors import InvalidArgument, Overloaded, RouterError

REFUSED = End(code=grpc.StatusCode.UNAVAILABLE, details="connection refused")
NO_ROUTER = End(code=grpc.StatusCode.UNIMPLEMENTED, details="Method not found!")


def test_the_stream_has_the_name_that_the_proto_gives_it() -> None:
    assert CONNECT == "/checkpoint_router.v1.CheckpointService/Connect"


def test_the_first_stream_is_opened_at_once_to_the_first_router() -> None:
    route = Route(Target.parse("router://a,b"))
    assert route.pause_seconds(now=1000.0) == 0
    assert str(route.endpoint) == "a:7070"


def test_each_failure_goes_on_to_the_next_router_and_comes_round() -> None:
    route = Route(Target.parse("router://a,b,c"))
    asked = []
    for _ in range(4):
        asked.append(route.endpoint.host)
        assert route.failed(REFUSED, now=0.0, draw=0.5) is None
    assert asked == ["a", "b", "c", "a"]
    assert route.last_failure == "a:7070: UNAVAILABLE: connection refused"


def test_a_failure_from_before_an_answer_explains_nothing_that_comes_after() -> None:
    route = Route(Target.parse("router://a"))
    route.failed(REFUSED, now=0.0, draw=0.5)
    route.worked()
    assert route.last_failure == ""


def test_pauses_grow_with_failures_and_begin_anew_after_an_answer() -> None:
    route = Route(Target.parse("router://a"))
    pauses = []
    for _ in range(7):
        route.failed(REFUSED, now=100.0, draw=1.0)
        pauses.append(route.pause_seconds(now=100.0))
    assert pauses == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0])
    route.worked()
    route.failed(REFUSED, now=200.0, draw=1.0)
    assert route.pause_seconds(now=200.0) == pytest.approx(PAUSE_SECONDS_MIN)


def test_a_pause_that_is_over_is_not_waited_for_again() -> None:
    route = Route(Target.parse("router://a"))
    route.failed(REFUSED, now=100.0, draw=1.0)
    assert route.pause_seconds(now=100.02) == pytest.approx(0.03)
    assert route.pause_seconds(now=500.0) == 0


@given(st.integers(0, 10_000), st.floats(0, 1, exclude_max=True))
def test_no_pause_is_longer_than_the_longest(failures: int, draw: float) -> None:
    assert 0 <= pause_seconds(failures, draw) <= PAUSE_SECONDS_MAX


def test_something_that_is_no_router_is_an_error_once_every_endpoint_is_such() -> None:
    route = Route(Target.parse("router://a,b"))
    assert route.failed(NO_ROUTER, now=0.0, draw=0.5) is None
    error = route.failed(NO_ROUTER, now=0.0, draw=0.5)
    assert isinstance(error, InvalidArgument)
    assert "b:7070 is not a checkpoint router" in str(error)


def test_a_router_among_strangers_is_waited_for() -> None:
    route = Route(Target.parse("router://a,b"))
    for end in (NO_ROUTER, REFUSED) * 5:
        assert route.failed(end, now=0.0, draw=0.5) is None


@pytest.mark.parametrize(
    "code",
    [
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.OK,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
    ],
)
def test_an_end_that_may_pass_is_never_final(code: grpc.StatusCode) -> None:
    route = Route(Target.parse("router://a"))
    ends = [route.failed(End(code=code, details=""), now=0.0, draw=0.5) for _ in range(20)]
    assert ends == [None] * 20


def test_a_refusal_for_good_becomes_the_nearest_error() -> None:
    end = End(code=grpc.StatusCode.PERMISSION_DENIED, details="not your tenant")
    error = Route(Target.parse("router://a")).failed(end, now=0.0, draw=0.5)
    assert isinstance(error, RouterError)
    assert not isinstance(error, Overloaded)
    assert "not your tenant" in str(error)
