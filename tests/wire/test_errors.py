"""An error arrives as the class that left, with its text and its attributes, on either way."""

import grpc
import pytest
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]  # no stubs
from hypothesis import given
from hypothesis import strategies as st

from checkpoint_router.core.errors import (
    DataLoss,
    DeadlineExceeded,
    LimitExceeded,
    Overloaded,
    RouterError,
    Stale,
    ThreadDeleted,
    Unavailable,
    by_reason,
)
from checkpoint_router.v1 import checkpoint_service_pb2 as calls
from checkpoint_router.wire.errors import (
    MESSAGE_CHARACTERS_MAX,
    RETRY_AFTER_MS,
    code_of,
    error_of,
    error_of_code,
    fill_error,
)
from checkpoint_router.wire.status import error_of_status, status_of

CLASSES = tuple(by_reason().values())
attribute_names = st.sampled_from(["field", "thread", "held", "current", "missing", "incident"])
errors = st.builds(
    lambda cls, text, attributes: cls(text, **attributes),
    st.sampled_from(CLASSES),
    st.text(st.characters(codec="utf-8"), max_size=60),
    st.dictionaries(attribute_names, st.text(st.characters(codec="utf-8"), max_size=20)),
)


def same(one: RouterError, other: RouterError) -> bool:
    return (type(one), one.message, one.attributes) == (
        type(other),
        other.message,
        other.attributes,
    )


@given(errors)
def test_an_error_of_a_call_arrives_as_it_left(error: RouterError) -> None:
    message = calls.CallError()
    fill_error(message, error)
    assert same(error_of(calls.CallError.FromString(message.SerializeToString())), error)


@given(errors)
def test_an_error_of_a_unary_call_arrives_as_it_left(error: RouterError) -> None:
    status = status_of(error)
    assert same(error_of_status(type(status).FromString(status.SerializeToString())), error)


def test_every_class_has_a_reason_of_its_own() -> None:
    assert len(CLASSES) == len({cls.reason for cls in CLASSES})
    assert all(cls.reason.isupper() for cls in CLASSES)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.reason)
def test_an_error_that_a_retry_can_help_says_when(cls: type[RouterError]) -> None:
    status = status_of(cls("text", **{RETRY_AFTER_MS: "250"}))
    hints = [d for d in status.details if d.Is(RetryInfo.DESCRIPTOR)]
    assert len(hints) == cls.retryable
    for hint in hints:
        info = RetryInfo()
        hint.Unpack(info)
        assert info.retry_delay.ToMilliseconds() == 250


@pytest.mark.parametrize(
    ("cls", "code"),
    [
        (LimitExceeded, grpc.StatusCode.RESOURCE_EXHAUSTED),
        (Overloaded, grpc.StatusCode.RESOURCE_EXHAUSTED),
        (Stale, grpc.StatusCode.FAILED_PRECONDITION),
        (ThreadDeleted, grpc.StatusCode.FAILED_PRECONDITION),
        (DataLoss, grpc.StatusCode.DATA_LOSS),
        (Unavailable, grpc.StatusCode.UNAVAILABLE),
        (RouterError, grpc.StatusCode.INTERNAL),
    ],
)
def test_clients_that_know_no_reasons_get_the_code(
    cls: type[RouterError], code: grpc.StatusCode
) -> None:
    assert code_of(cls("text")) is code


def test_a_subclass_without_a_code_has_that_of_its_base() -> None:
    assert code_of(by_reason()["MISSING_ID"]("text")) is grpc.StatusCode.INVALID_ARGUMENT


def test_a_reason_that_is_unknown_here_becomes_the_nearest_class_of_its_code() -> None:
    message = calls.CallError(code=14, message="later", reason="REGION_AWAY")
    message.metadata["region"] = "eu"
    error = error_of(message)
    assert same(error, Unavailable("later", region="eu"))


@pytest.mark.parametrize(
    ("code", "cls"), [(4, DeadlineExceeded), (1, Unavailable), (2, RouterError), (99, RouterError)]
)
def test_a_status_of_the_transport_becomes_an_error_too(code: int, cls: type[RouterError]) -> None:
    assert type(error_of_code(code, "text")) is cls


def test_a_long_text_is_cut_and_a_lone_surrogate_is_replaced() -> None:
    message = calls.CallError()
    fill_error(message, RouterError("\ud800" + "x" * 10_000, thread="y" * 10_000))
    assert len(message.message) == len(message.metadata["thread"]) == MESSAGE_CHARACTERS_MAX
    assert message.message.startswith("?x")


def test_a_hostile_attribute_name_does_not_reach_the_constructor() -> None:
    message = calls.CallError(code=3, message="text", reason="INVALID_ARGUMENT")
    message.metadata["message"] = "other"
    message.metadata["not a name"] = "x"
    assert same(error_of(message), by_reason()["INVALID_ARGUMENT"]("text"))


def test_a_status_fits_into_trailers_whatever_the_error_says() -> None:
    # Peers may refuse more than 8 KiB: the details in base64, and the text percent-encoded.
    error = Stale("\U0001f512" * 5000, thread="t" * 5000, missing="m" * 5000)
    status = status_of(error)
    details, text = len(status.SerializeToString()), len(status.message.encode())
    assert details * 4 / 3 + text * 3 < 8 * 1024
