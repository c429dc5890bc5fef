"""The one table of calls: request message in, engine asked, response message filled.

A unary method and a call on the stream run the same handler. The response is filled in its
place, since on the stream it stands inside the frame's result and putting it there would copy it.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.message import Message

from checkpoint_router.core.records import Kind
from checkpoint_router.engine.engine import Engine
from checkpoint_router.telemetry import names
from checkpoint_router.v1 import admin_service_pb2 as admin
from checkpoint_router.v1 import checkpoint_service_pb2 as calls
from checkpoint_router.wire import admin as wire_admin
from checkpoint_router.wire import answers, blobs, requests

Run = Callable[[Engine, Any, Any, float], Awaitable[None]]
"""Engine, request, response to fill, deadline (the loop's clock, seconds)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Handler:
    """One call."""

    name: str
    """Of the field of `Call` and of `CallResult`."""
    method: str
    """Of the unary method."""
    request: type[Message]
    response: type[Message]
    run: Run
    large: bool = False
    """The answer may be as large as a message: few of these run at once."""
    steady: bool = False
    """It needs no time-out: it gives up by itself, and must go to its end once it is storing."""
    service: str = names.SERVICE


async def _put(
    engine: Engine, request: calls.PutRequest, response: calls.PutResponse, deadline: float
) -> None:
    thread, event, packed, digest, blobs = requests.put_of(request, Kind.CHECKPOINT)
    answer = await engine.put(thread, event, digest, blobs, deadline=deadline, packed=packed)
    answers.fill_put_answer(response, answer)


async def _put_writes(
    engine: Engine,
    request: calls.PutWritesRequest,
    response: calls.PutWritesResponse,
    deadline: float,
) -> None:
    thread, event, packed, digest, blobs = requests.put_of(request, Kind.WRITES)
    answer = await engine.put(thread, event, digest, blobs, deadline=deadline, packed=packed)
    answers.fill_put_answer(response, answer)


async def _put_blobs(
    engine: Engine,
    request: calls.PutBlobsRequest,
    response: calls.PutBlobsResponse,
    deadline: float,
) -> None:
    thread, gen, blobs = requests.put_blobs_of(request)
    answers.fill_clock(response.clock, await engine.put_blobs(thread, gen, blobs))


async def _get_blobs(
    engine: Engine,
    request: calls.GetBlobsRequest,
    response: calls.GetBlobsResponse,
    deadline: float,
) -> None:
    thread, hashes = requests.get_blobs_of(request)
    blobs.fill_values(response.blobs, await engine.get_blobs(thread, hashes))


async def _get_tuple(
    engine: Engine,
    request: calls.GetTupleRequest,
    response: calls.GetTupleResponse,
    deadline: float,
) -> None:
    thread, ns, checkpoint_id, session, with_blobs, held = requests.get_tuple_of(request)
    answer = await engine.get_tuple(
        thread, ns, checkpoint_id, session, with_blobs=with_blobs, held=held, deadline=deadline
    )
    answers.fill_read_answer(response, answer)


async def _list_tuples(
    engine: Engine,
    request: calls.ListTuplesRequest,
    response: calls.ListTuplesResponse,
    deadline: float,
) -> None:
    query = requests.list_query_of(request)
    answers.fill_page(response, await engine.list_tuples(query, deadline=deadline))


async def _delete_thread(
    engine: Engine,
    request: calls.DeleteThreadRequest,
    response: calls.DeleteThreadResponse,
    deadline: float,
) -> None:
    thread, gen, request_id = requests.delete_thread_of(request)
    answers.fill_clock(response.clock, await engine.delete_thread(thread, gen, request_id))


async def _delete_for_runs(
    engine: Engine,
    request: calls.DeleteForRunsRequest,
    response: calls.DeleteForRunsResponse,
    deadline: float,
) -> None:
    tenant, run_ids, request_id = requests.delete_for_runs_of(request)
    answers.fill_removed(response, await engine.delete_for_runs(tenant, run_ids, request_id))


async def _copy_thread(
    engine: Engine,
    request: calls.CopyThreadRequest,
    response: calls.CopyThreadResponse,
    deadline: float,
) -> None:
    response.events = await engine.copy_thread(*requests.copy_thread_of(request))


async def _prune(
    engine: Engine, request: calls.PruneRequest, response: calls.PruneResponse, deadline: float
) -> None:
    tenant, thread_ids, strategy, request_id = requests.prune_of(request)
    answers.fill_removed(response, await engine.prune(tenant, thread_ids, strategy, request_id))


async def _get_delta_history(
    engine: Engine,
    request: calls.GetDeltaHistoryRequest,
    response: calls.GetDeltaHistoryResponse,
    deadline: float,
) -> None:
    asked = requests.delta_history_of(request)
    answer = await engine.delta_history(*asked, deadline=deadline)
    answers.fill_delta_answer(response, answer)


async def _get_router(
    engine: Engine,
    request: admin.GetRouterRequest,
    response: admin.GetRouterResponse,
    deadline: float,
) -> None:
    wire_admin.fill_facts(response, await engine.facts())


async def _list_threads(
    engine: Engine,
    request: admin.ListThreadsRequest,
    response: admin.ListThreadsResponse,
    deadline: float,
) -> None:
    tenant, limit, cursor = wire_admin.list_threads_of(request)
    wire_admin.fill_threads(response, *await engine.list_threads(tenant, limit, cursor))


async def _list_conflicts(
    engine: Engine,
    request: admin.ListConflictsRequest,
    response: admin.ListConflictsResponse,
    deadline: float,
) -> None:
    thread = wire_admin.admin_thread_of(request)
    wire_admin.fill_thread_conflicts(response, await engine.conflicts(thread))


async def _get_thread(
    engine: Engine,
    request: admin.GetThreadRequest,
    response: admin.GetThreadResponse,
    deadline: float,
) -> None:
    thread = wire_admin.admin_thread_of(request)
    wire_admin.fill_tree(response, await engine.tree(thread))


def _handler(
    name: str,
    module: Any,
    run: Run,
    *,
    large: bool = False,
    steady: bool = False,
    service: str,
) -> Handler:
    method = "".join(part.capitalize() for part in name.split("_"))
    return Handler(
        name=name,
        method=method,
        request=getattr(module, f"{method}Request"),
        response=getattr(module, f"{method}Response"),
        run=run,
        large=large,
        steady=steady,
        service=service,
    )


CALLS: Final = {
    handler.name: handler
    for handler in (
        _handler("put", calls, _put, steady=True, service=names.SERVICE),
        _handler("put_writes", calls, _put_writes, steady=True, service=names.SERVICE),
        _handler("put_blobs", calls, _put_blobs, steady=True, service=names.SERVICE),
        _handler("get_blobs", calls, _get_blobs, large=True, service=names.SERVICE),
        _handler("get_tuple", calls, _get_tuple, large=True, service=names.SERVICE),
        _handler("list_tuples", calls, _list_tuples, large=True, service=names.SERVICE),
        _handler("delete_thread", calls, _delete_thread, service=names.SERVICE),
        _handler("delete_for_runs", calls, _delete_for_runs, service=names.SERVICE),
        _handler("copy_thread", calls, _copy_thread, service=names.SERVICE),
        _handler("prune", calls, _prune, service=names.SERVICE),
        _handler("get_delta_history", calls, _get_delta_history, large=True, service=names.SERVICE),
    )
}
"""What a saver calls, by the name of its field: unary and on the stream."""

ADMIN_CALLS: Final = tuple(
    _handler(name, admin, run, large=True, service=names.ADMIN_SERVICE)
    for name, run in (
        ("get_router", _get_router),
        ("list_threads", _list_threads),
        ("list_conflicts", _list_conflicts),
        ("get_thread", _get_thread),
    )
)
"""What operators call: unary only."""
