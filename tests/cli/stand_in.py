"""A stand-in for a router, for answers that a healthy router cannot be made to give.

Only faults are tested with it: a router that breaks off in the middle of a command, refuses, stays
silent, raises an alarm, or speaks another protocol.
"""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf.message import Message
from grpc_status import rpc_status  # type: ignore[import-untyped]  # ships no stubs

from checkpoint_router.core.errors import RouterError
from checkpoint_router.v1 import admin_service_pb2 as admin
from checkpoint_router.v1 import checkpoint_service_pb2 as calls
from checkpoint_router.wire.admin import PROTOCOL
from checkpoint_router.wire.status import status_of

from .drawn import chain, tree

Answer = Callable[[Any], Message]
"""Gives an answer, or raises the RouterError that the router sends."""

_REQUESTS: Mapping[str, tuple[str, type[Message]]] = {
    "GetRouter": ("AdminService", admin.GetRouterRequest),
    "GetThread": ("AdminService", admin.GetThreadRequest),
    "ListThreads": ("AdminService", admin.ListThreadsRequest),
    "DeleteThread": ("CheckpointService", calls.DeleteThreadRequest),
}


@contextmanager
def stand_in(**answers: Answer) -> Iterator[str]:
    """Answers the calls that are named; gives the target."""
    server = grpc.server(ThreadPoolExecutor(4))
    services: dict[str, dict[str, grpc.RpcMethodHandler[Any, Any]]] = {}
    for method, answer in answers.items():
        service, request = _REQUESTS[method]
        services.setdefault(service, {})[method] = grpc.unary_unary_rpc_method_handler(
            _telling(answer),
            request_deserializer=request.FromString,
            response_serializer=lambda message: message.SerializeToString(),
        )
    for service, methods in services.items():
        name = f"checkpoint_router.v1.{service}"
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"router://127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def _telling(answer: Answer) -> Callable[[Any, grpc.ServicerContext], Message]:
    def handle(request: Any, context: grpc.ServicerContext) -> Message:
        try:
            return answer(request)
        except RouterError as e:
            context.abort_with_status(rpc_status.to_status(status_of(e)))
            raise

    return handle


def two_checkpoints(request: admin.GetThreadRequest) -> admin.GetThreadResponse:
    """Any thread is a short conversation."""
    return tree(chain(2))


def facts(**changes: Any) -> admin.GetRouterResponse:
    """A router that is well, but for `changes`."""
    from checkpoint_router import __version__

    known = {"version": __version__, "protocol": PROTOCOL, "storage": "memory:"}
    return admin.GetRouterResponse(**{**known, **changes})


def deleted(gen: int) -> calls.DeleteThreadResponse:
    """A delete that succeeded."""
    answer = calls.DeleteThreadResponse()
    answer.clock.generation = gen
    return answer
