"""Asks a router: one blocking call at a time, each with a deadline.

Rules: a command sends what it was told to and nothing else; every failure is a `RouterError`, as
the router meant it or as the transport named it; of several addresses the first that answers is
asked, also with a delete: it names the generation that it ends, so twice has the effect of once.
"""

import secrets
from collections.abc import Callable, Iterator
from typing import Any, Final

import grpc
from google.protobuf.message import Message
from grpc_status import rpc_status  # type: ignore[import-untyped]  # ships no stubs

from checkpoint_router.core import limits
from checkpoint_router.core.errors import RouterError, Unavailable
from checkpoint_router.core.ids import ThreadKey, checked_id
from checkpoint_router.v1 import admin_service_pb2 as admin
from checkpoint_router.v1 import checkpoint_service_pb2 as calls
from checkpoint_router.v1 import types_pb2 as types
from checkpoint_router.v1.admin_service_pb2_grpc import AdminServiceStub
from checkpoint_router.v1.checkpoint_service_pb2_grpc import CheckpointServiceStub
from checkpoint_router.wire.errors import error_of_code
from checkpoint_router.wire.status import error_of_status

REQUEST_ID_BYTES: Final = 16

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", limits.MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", limits.MESSAGE_BYTES_MAX),
    # A command is short: what another one found out a while ago is of no use to it.
    ("grpc.use_local_subchannel_pool", 1),
    # A proxy that is meant for the web does not know the way to a router.
    ("grpc.enable_http_proxy", 0),
)


class Link:
    """The routers that a target names, for one command."""

    def __init__(self, addresses: tuple[str, ...], *, tenant: str, timeout_seconds: float) -> None:
        self.tenant = tenant
        self.address, *self._others = addresses
        """The router that is asked now, and those that are tried after it."""
        self._timeout_seconds = timeout_seconds
        self._channel = grpc.insecure_channel(self.address, _OPTIONS)

    def close(self) -> None:
        """Ends the connection."""
        self._channel.close()

    def router(self) -> admin.GetRouterResponse:
        """The router's own facts."""
        found: admin.GetRouterResponse = self._ask(
            AdminServiceStub, "GetRouter", admin.GetRouterRequest()
        )
        return found

    def threads(self) -> Iterator[admin.ThreadSummary]:
        """All threads of the tenant by id, fetched a page at a time."""
        request = admin.ListThreadsRequest(tenant=self.tenant)
        while True:
            page = self._ask(AdminServiceStub, "ListThreads", request)
            yield from page.threads
            if not page.next_cursor:
                return
            request.cursor = page.next_cursor

    def tree(self, thread: str) -> admin.GetThreadResponse:
        """Every checkpoint of a thread, without values."""
        request = admin.GetThreadRequest(**self._named(thread))
        found: admin.GetThreadResponse = self._ask(AdminServiceStub, "GetThread", request)
        return found

    def conflicts(self, thread: str) -> list[admin.ConflictRecord]:
        """The conflict records of a thread."""
        request = admin.ListConflictsRequest(**self._named(thread))
        return list(self._ask(AdminServiceStub, "ListConflicts", request).conflicts)

    def history(
        self,
        thread: str,
        *,
        page: int | None = None,
        ns: str | None = None,
        before: str | None = None,
        losers: bool = False,
    ) -> Iterator[types.CheckpointTuple]:
        """Checkpoints without values, greatest id first, fetched at most `page` at a time."""
        request = calls.ListTuplesRequest(
            **self._named(thread),
            checkpoint_ns=None if ns is None else checked_id("ns", ns, empty=True),
            before=checked_id("before", before or "", empty=True),
            losers=losers,
            limit=page,
            without_blobs=True,
        )
        while True:
            found = self._ask(CheckpointServiceStub, "ListTuples", request)
            yield from (listed.tuple for listed in found.tuples)
            if not found.next_cursor:
                return
            request.cursor = found.next_cursor

    def holds(self, thread: str) -> bool:
        """Whether anything of a thread is stored, were it writes without their checkpoint."""
        some = next(self.history(thread, page=1, losers=True), None)
        return some is not None or bool(self.tree(thread).orphans)

    def delete(self, thread: str, generation: int) -> None:
        """Ends `generation` of a thread; durable on return."""
        request = calls.DeleteThreadRequest(
            **self._named(thread),
            generation=generation,
            request_id=secrets.token_bytes(REQUEST_ID_BYTES),
        )
        self._ask(CheckpointServiceStub, "DeleteThread", request)

    def _named(self, thread: str) -> dict[str, Any]:
        """How a request names a thread. Raises InvalidArgument or LimitExceeded."""
        key = ThreadKey.of(self.tenant, thread)
        return {"tenant": key.tenant, "thread_id": key.thread}

    def _ask(self, stub: Callable[[grpc.Channel], Any], method: str, request: Message) -> Any:
        while True:
            try:
                return getattr(stub(self._channel), method)(request, timeout=self._timeout_seconds)
            except grpc.RpcError as e:
                error = error_of_rpc(e, self.address)
                if not isinstance(error, Unavailable) or not self._others:
                    raise error from None
            self._channel.close()
            self.address = self._others.pop(0)
            self._channel = grpc.insecure_channel(self.address, _OPTIONS)


def error_of_rpc(error: grpc.RpcError, address: str) -> RouterError:
    """The error that a failed call stands for."""
    try:
        status = rpc_status.from_call(error)
    except ValueError:  # details that contradict the status: not a router of ours
        status = None
    if status is not None and status.details:
        return error_of_status(status)
    code, details = error.code(), error.details() or ""
    said = f"{address} answered {code.name}: {details}"
    if code is grpc.StatusCode.UNAVAILABLE:
        said = f"no router answers at {address} ({_brief(details)})."
    elif code is grpc.StatusCode.DEADLINE_EXCEEDED:
        said = f"the router at {address} did not answer in time."
    return error_of_code(code.value[0], said)


def _brief(details: str) -> str:
    """What the transport found, without its own prefixes and repeated addresses."""
    for known in ("Connection refused", "No route to host", "Name or service not known"):
        if known.lower() in details.lower():
            return known.lower()
    return details.rpartition(": ")[2] or "no reason given"
