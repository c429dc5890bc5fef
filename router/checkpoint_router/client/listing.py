"""Listings: one question, asked page by page, so that an abandoned iterator leaves nothing open."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import CheckpointTuple
from langgraph.checkpoint.serde.base import SerializerProtocol

from checkpoint_router.client import encoding
from checkpoint_router.client.arguments import checked_limit, optional_id
from checkpoint_router.client.operations import (
    Call,
    Operation,
    Operations,
    configurable_of,
    names_of,
)
from checkpoint_router.core.answers import CheckpointTuple as Found
from checkpoint_router.core.answers import Listed, ListQuery, Page
from checkpoint_router.core.records import Typed
from checkpoint_router.v1 import checkpoint_service_pb2 as pb
from checkpoint_router.wire import answers, requests


class Listing:
    """One listing: its question is checked at once, its pages are asked for one by one."""

    def __init__(
        self,
        operations: Operations,
        serde: SerializerProtocol,
        config: RunnableConfig | None,
        filter: Mapping[str, Any] | None,
        before: RunnableConfig | None,
        limit: int | None,
    ) -> None:
        self._operations = operations
        self._serde = serde
        self._left = checked_limit(limit)
        self._query: ListQuery | None = self._first(config, filter, before)

    def _first(
        self,
        config: RunnableConfig | None,
        filter: Mapping[str, Any] | None,
        before: RunnableConfig | None,
    ) -> ListQuery:
        configurable = configurable_of(config)
        thread = ns = cid = session = None
        if configurable:
            names = names_of(config)
            thread, cid = names.thread, names.checkpoint_id
            # Absent means every namespace here, unlike in get_tuple.
            ns = None if configurable.get("checkpoint_ns") is None else names.ns
            sessions = self._operations.sessions
            run = sessions.run_of_read(thread, configurable)
            session = None if run is None else run.session(inside=True)
            self._run = run
        else:
            self._run = None
        limit = configurable_of(before).get("checkpoint_id")
        return ListQuery(
            tenant=self._operations.tenant,
            thread=thread,
            ns=ns,
            checkpoint_id=cid,
            before=optional_id("before's checkpoint_id", limit),
            filters=encoding.encode_filters(filter),
            session=session,
        )

    def next_page(self) -> Operation[Sequence[CheckpointTuple] | None]:
        """The next page's tuples; None at the end."""
        if self._query is None or self._left == 0:
            return None
        request = pb.ListTuplesRequest()
        requests.fill_list_query(request, replace(self._query, limit=self._left))

        def once() -> Operation[tuple[Page, dict[bytes, Typed]]]:
            page = answers.page_of((yield Call("list_tuples", request)))
            blobs = dict(page.blobs)
            by_thread: dict[str, list[Found]] = {}
            for one in page.listed:
                by_thread.setdefault(one.thread, []).append(one.tuple)
            for thread, found in by_thread.items():
                blobs = yield from self._operations.complete(thread, found, blobs)
            return page, blobs

        page, blobs = yield from self._operations.steadily(once)
        if self._left is not None:
            self._left -= len(page.listed)
        self._query = replace(self._query, cursor=page.cursor) if page.cursor else None
        return [self._shown(one, blobs) for one in page.listed]

    def _shown(self, one: Listed, blobs: Mapping[bytes, Typed]) -> CheckpointTuple:
        run = self._run
        if run is None:
            sessions = self._operations.sessions
            run = sessions.listed(one.thread, one.tuple.token, one.clock)
        return self._operations.shown(self._serde, run, one.tuple, blobs)
