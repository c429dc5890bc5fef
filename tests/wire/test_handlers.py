"""One table for both ways in, and what a caller learns of an error that nobody foresaw."""

import asyncio
from typing import Any

import pytest

from checkpoint_router.core.errors import DeadlineExceeded, Overloaded, RouterError
from checkpoint_router.server.admission import Admission
from checkpoint_router.server.calls import Caller, Router, answer
from checkpoint_router.server.handlers import ADMIN_CALLS, CALLS
from checkpoint_router.v1 import admin_service_pb2 as admin
from checkpoint_router.v1 import checkpoint_service_pb2 as calls

CALLER = Caller(peer="test", transport="stream")


class Broken:
    """Stands in for an engine with a fault that nobody foresaw; a real one cannot be ordered."""

    async def get_tuple(self, *_: object, **__: object) -> None:
        raise ZeroDivisionError("the secret of thread t")


class Asleep:
    """Stands in for an engine whose storage does not answer."""

    def __init__(self) -> None:
        self.never = asyncio.Event()

    async def get_tuple(self, *_: object, **__: object) -> None:
        await self.never.wait()

    async def copy_thread(self, *_: object) -> None:
        await self.never.wait()


async def ask(engine: Any, seconds: float | None = None, name: str = "get_tuple") -> None:
    handler = CALLS[name]
    thread = {"source_thread_id": "t", "target_thread_id": "u"}
    named = thread if name == "copy_thread" else {"thread_id": "t"}
    request = handler.request(tenant="acme", **named)
    router = Router(engine=engine, admission=Admission())
    response = handler.response()
    await answer(router, handler, request, response, CALLER, size=10, timeout_seconds=seconds)


def test_the_table_has_each_call_of_the_stream_and_each_unary_method_once() -> None:
    service = calls.DESCRIPTOR.services_by_name["CheckpointService"]
    on_stream = {f.name for f in calls.Call.DESCRIPTOR.oneofs_by_name["request"].fields}
    answers = {f.name for f in calls.CallResult.DESCRIPTOR.oneofs_by_name["outcome"].fields}
    unary = {m.name: m for m in service.methods if not m.client_streaming}
    assert set(CALLS) == on_stream == answers - {"error"}
    assert {h.method for h in CALLS.values()} == set(unary)
    for handler in CALLS.values():
        method = unary[handler.method]
        assert method.input_type == handler.request.DESCRIPTOR
        assert method.output_type == handler.response.DESCRIPTOR


def test_the_table_has_each_method_for_operators_once() -> None:
    methods = admin.DESCRIPTOR.services_by_name["AdminService"].methods
    assert sorted(h.method for h in ADMIN_CALLS) == sorted(m.name for m in methods)


async def test_an_unforeseen_error_shows_a_number_and_nothing_else() -> None:
    with pytest.raises(RouterError, match="incident") as caught:
        await ask(Broken())
    error = caught.value
    assert (type(error), error.reason) == (RouterError, "INTERNAL")
    assert error.attributes["incident"] in error.message
    assert "secret" not in error.message
    assert error.__cause__ is None


async def test_a_write_that_takes_too_long_says_that_its_outcome_is_unknown() -> None:
    with pytest.raises(DeadlineExceeded, match="Whether it took effect is unknown"):
        await ask(Asleep(), seconds=0.01, name="copy_thread")


async def test_a_read_that_takes_too_long_says_that_nothing_was_changed() -> None:
    with pytest.raises(DeadlineExceeded, match="only reads, so nothing was changed") as caught:
        await ask(Asleep(), seconds=0.01)
    assert "unknown" not in str(caught.value)


def test_one_request_is_let_in_however_large_and_the_next_is_not() -> None:
    admission = Admission(bytes_max=100)
    admission.take_bytes(1000)
    with pytest.raises(Overloaded, match="Try again"):
        admission.take_bytes(1)
    admission.give_bytes(1000)
    admission.take_bytes(1)


async def test_a_router_is_idle_when_all_that_was_taken_was_given_back() -> None:
    admission = Admission()
    await admission.idle()
    admission.take_bytes(5)
    with admission.stream():
        admission.give_bytes(5)
        assert not admission._idle.is_set()
    await admission.idle()


def test_a_tenant_that_left_is_forgotten() -> None:
    admission = Admission()
    for _ in range(3):
        admission.take_tenant("acme")
    for _ in range(3):
        admission.give_tenant("acme")
    assert not admission._tenants
