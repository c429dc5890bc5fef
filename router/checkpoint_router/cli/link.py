"""Asks a router: one blocking call at a time, each with a deadline.

Rules: a command sends what it was told to and nothing else; every failure is a `RouterError`, as
the router meant it or as the transport named it; of several addresses the first that answers is
asked, also with a delete: it names the generation that it ends, so twice has the effect of once.
"""

import secrets
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import TracebackType
from typing import Any, Final, Protocol, Self, TypeVar

import grpc
from google.protobuf.message import Message
from grpc_status import rpc_status  # type: ignore[import-untyped]  # ships no stubs

from checkpoint_router.core import limits
from checkpoint_router.core.answers import (
    Listed,
    ListQuery,
    RouterFacts,
    ThreadConflicts,
    ThreadSummary,
    Tree,
)
from checkpoint_router.core.errors import RouterError, Unavailable
from checkpoint_router.core.ids import ThreadKey
from checkpoint_router.v1 import admin_service_pb2 as asks
from checkpoint_router.v1 import checkpoint_service_pb2 as calls
from checkpoint_router.v1.admin_service_pb2_grpc import AdminServiceStub
from checkpoint_router.v1.checkpoint_service_pb2_grpc import CheckpointServiceStub
from checkpoint_router.wire import admin
from checkpoint_router.wire.answers import page_of
from checkpoint_router.wire.errors import error_of_code
from checkpoint_router.wire.requests import fill_delete_thread, fill_list_query
from checkpoint_router.wire.status import error_of_status

REQUEST_ID_BYTES: Final = 16

A = TypeVar("A", bound=Message)
A_co = TypeVar("A_co", bound=Message, covariant=True)


class Link:
    """The routers that a target names, for one command. A context manager."""

    def __init__(self, addresses: tuple[str, ...], *, tenant: str, timeout_seconds: float) -> None:
        self.addresses = addresses
        self.tenant = tenant
        self._timeout_seconds = timeout_seconds
        self._at = 0
        self._channel = self._open()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._channel.close()

    @property
    def address(self) -> str:
        """The router that is asked now."""
        return self.addresses[self._at]

    def key(self, thread: str) -> ThreadKey:
        """The tenant's thread of that name. Raises InvalidArgument or LimitExceeded."""
        return ThreadKey.of(self.tenant, thread)

    def router(self) -> tuple[RouterFacts, int]:
        """The router's own facts, and the version of the protocol that it speaks."""
        answer = self._ask(
            lambda c: AdminServiceStub(c).GetRouter,
            asks.GetRouterRequest(),
        )
        return admin.facts_of(answer), answer.protocol

    def threads(self) -> Iterator[ThreadSummary]:
        """All threads of the tenant by id, fetched a page at a time."""
        cursor = b""
        while True:
            answer = self._ask(
                lambda c: AdminServiceStub(c).ListThreads,
                asks.ListThreadsRequest(tenant=self.tenant, cursor=cursor),
            )
            page, cursor = admin.threads_of(answer, self.tenant)
            yield from page
            if not cursor:
                return

    def tree(self, thread: ThreadKey) -> Tree:
        """Every checkpoint of a thread, without values."""
        return admin.tree_of(
            self._ask(
                lambda c: AdminServiceStub(c).GetThread,
                asks.GetThreadRequest(tenant=thread.tenant, thread_id=thread.thread),
            )
        )

    def conflicts(self, thread: ThreadKey) -> ThreadConflicts:
        """The conflict records of a thread."""
        return admin.thread_conflicts_of(
            self._ask(
                lambda c: AdminServiceStub(c).ListConflicts,
                asks.ListConflictsRequest(tenant=thread.tenant, thread_id=thread.thread),
            )
        )

    def listed(self, query: ListQuery) -> Iterator[Listed]:
        """Checkpoints, greatest id first, fetched a page at a time; `query.limit` bounds them."""
        left = query.limit
        while left is None or left > 0:
            request = calls.ListTuplesRequest()
            fill_list_query(request, replace(query, limit=left))
            page = page_of(self._ask(lambda c: CheckpointServiceStub(c).ListTuples, request))
            yield from page.listed
            if not page.cursor:
                return
            query = replace(query, cursor=page.cursor)
            left = None if left is None else left - len(page.listed)

    def delete(self, thread: ThreadKey, generation: int) -> int:
        """Ends `generation` of a thread, durable on return; hands back the one that is live now."""
        request = calls.DeleteThreadRequest()
        fill_delete_thread(request, thread, generation, secrets.token_bytes(REQUEST_ID_BYTES))
        return self._ask(lambda c: CheckpointServiceStub(c).DeleteThread, request).clock.generation

    def _ask(self, method: "Callable[[grpc.Channel], _Method[A]]", request: Message) -> A:
        while True:
            try:
                return method(self._channel)(request, timeout=self._timeout_seconds)
            except grpc.RpcError as e:
                error = error_of_rpc(e, self.address)
                if not isinstance(error, Unavailable) or self._at + 1 == len(self.addresses):
                    raise error from None
            self._channel.close()
            self._at += 1
            self._channel = self._open()

    def _open(self) -> grpc.Channel:
        return grpc.insecure_channel(
            self.address,
            options=(
                ("grpc.max_receive_message_length", limits.MESSAGE_BYTES_MAX),
                ("grpc.max_send_message_length", limits.MESSAGE_BYTES_MAX),
                # A command is short: what another one found out a while ago is of no use to it.
                ("grpc.use_local_subchannel_pool", 1),
                # A proxy that is meant for the web does not know the way to a router.
                ("grpc.enable_http_proxy", 0),
            ),
        )


class _Method(Protocol[A_co]):
    def __call__(self, request: Any, *, timeout: float) -> A_co: ...


def error_of_rpc(error: grpc.RpcError, address: str) -> RouterError:
    """The error that a failed call stands for."""
    try:
        status = rpc_status.from_call(error)
    except ValueError:  # details that contradict the status: not a router of ours
        status = None
    if status is not None and status.details:
        return error_of_status(status)
    code, details = error.code(), error.details() or ""
    if code is grpc.StatusCode.UNAVAILABLE:
        return Unavailable(f"no router answers at {address} ({_brief(details)}).", target=address)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return error_of_code(
            code.value[0], f"the router at {address} did not answer in time.", target=address
        )
    return error_of_code(code.value[0], f"{address} answered {code.name}: {details}")


def _brief(details: str) -> str:
    """What the transport found, without its own prefixes and repeated addresses."""
    for known in ("Connection refused", "No route to host", "Name or service not known"):
        if known.lower() in details.lower():
            return known.lower()
    return details.rpartition(": ")[2] or "no reason given"
