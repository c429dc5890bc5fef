"""Listings: one question, asked page by page, so that an abandoned iterator leaves nothing open."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import CheckpointTuple
from langgraph.checkpoint.serde.base import SerializerProtocol

from checkpoint_router.client.arguments import (
    checked_limit,
    configurable_of,
    names_of,
    optional_id,
)
from checkpoint_router.client.encoding import encode_filters
from checkpoint_router.client.operations import Operation, call
from checkpoint_router.client.reading import Blobs, Reading
from checkpoint_router.core import answers as core
from checkpoint_router.core import limits
from checkpoint_router.v1 import checkpoint_service_pb2 as pb
from checkpoint_router.wire import answers, requests


class Listing:
    """One listing: its question is checked at once, its pages are asked for one by one."""

    def __init__(
        self,
        reading: Reading,
        serde: SerializerProtocol,
        config: RunnableConfig | None,
        filter: Mapping[str, object] | None,
        before: RunnableConfig | None,
        limit: int | None,
    ) -> None:
        self._reading = reading
        self._serde = serde
        self._left = checked_limit(limit)
        configurable = configurable_of(config)
        names = names_of(config) if configurable else None
        self._run = None if names is None else reading.sessions.run_of_read(names)
        # Absent means every namespace here, unlike in get_tuple.
        any_ns = names is None or configurable.get("checkpoint_ns") is None
        last = configurable_of(before).get("checkpoint_id")
        self._query: core.ListQuery | None = core.ListQuery(
            tenant=reading.tenant,
            thread=None if names is None else names.thread,
            ns=None if names is None or any_ns else names.ns,
            checkpoint_id=None if names is None else names.checkpoint_id,
            before=optional_id("before's checkpoint_id", last),
            filters=encode_filters(filter),
            session=None if self._run is None else self._run.session(inside=True),
        )

    def next_page(self) -> Operation[Sequence[CheckpointTuple] | None]:
        """The next page's tuples; None at the end."""
        if self._query is None or self._left == 0:
            return None
        cache, name = self._reading.sessions.cache, self._query.thread
        # Held here while the page is on its way, so that making room takes none of them.
        have = {} if name is None else cache.some(name, limits.HELD_MAX)
        query = replace(self._query, limit=self._left, held=tuple(have))
        asked = call("list_tuples", pb.ListTuplesRequest(), requests.fill_list_query, query)

        def once() -> Operation[tuple[core.Page, Blobs]]:
            page = answers.page_of((yield asked))
            blobs = have | dict(page.blobs)
            if name is not None:
                cache.add(name, page.blobs)
            by_thread: dict[str, list[core.CheckpointTuple]] = {}
            for one in page.listed:
                by_thread.setdefault(one.thread, []).append(one.tuple)
            for thread, found in by_thread.items():
                blobs = yield from self._reading.complete(thread, found, blobs)
            return page, blobs

        page, blobs = yield from self._reading.steadily(once)
        if self._left is not None:
            self._left -= len(page.listed)
        self._query = replace(query, cursor=page.cursor) if page.cursor else None
        sessions = self._reading.sessions
        return [
            self._reading.shown(
                self._serde,
                self._run or sessions.listed(one.thread, one.tuple.token, one.clock),
                one.tuple,
                blobs,
            )
            for one in page.listed
        ]
