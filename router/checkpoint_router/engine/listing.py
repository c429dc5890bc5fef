"""Listing checkpoints: one thread from its history, many by the storage's index of newest ids.

Rules: greatest checkpoint id first over the whole result; `limit` counts after the filters; a
page ends when it is full, when its values fill a message, or when enough was looked at in vain.
"""

from collections.abc import Iterable, Sequence
from itertools import islice

import msgspec

from checkpoint_router.core import limits, view
from checkpoint_router.core.answers import CheckpointTuple, Listed, ListQuery, Page
from checkpoint_router.core.errors import InvalidArgument
from checkpoint_router.core.filters import matches
from checkpoint_router.core.history import Lineage
from checkpoint_router.core.ids import ThreadKey
from checkpoint_router.core.records import Typed
from checkpoint_router.engine.reading import Reading, blobs_of
from checkpoint_router.engine.shard import Shard
from checkpoint_router.engine.threads import ThreadState

_LOOKED_AT_MAX = 1000
"""Checkpoints that one page looks at, when filters let few pass."""

_AT_ONCE = 16
"""Records read from the storage together."""


class Listing:
    """Pages of checkpoints."""

    def __init__(self, shard: Shard, reading: Reading) -> None:
        self._shard = shard
        self._reading = reading

    async def page(self, query: ListQuery, patience: float) -> Page:
        """See `Engine.list_tuples`."""
        size = limits.PAGE_TUPLES_MAX
        if query.limit is not None:
            size = min(size, query.limit)
        if size == 0:
            return Page(listed=(), blobs=(), cursor=b"")
        if query.thread is None:
            return await self._over_threads(query, size)
        return await self._of_thread(query, query.thread, size, patience)

    async def _of_thread(self, query: ListQuery, name: str, size: int, patience: float) -> Page:
        thread = ThreadKey(query.tenant, name)
        after = _position(query.cursor)

        async def once(state: ThreadState) -> Page:
            lineage = await self._reading.lineage(state, query.session, patience)
            names = view.listed(
                state.history,
                ns=query.ns,
                cid=query.checkpoint_id,
                before=query.before,
                losers=query.losers,
                lineage=lineage,
            )
            if after is not None:
                names = (n for n in names if n < after)
            listed: list[Listed] = []
            looked_at = 0
            last = b""
            while len(listed) < size and looked_at < _LOOKED_AT_MAX:
                chunk = list(islice(names, min(_AT_ONCE, size - len(listed))))
                if not chunk:
                    last = b""
                    break
                looked_at += len(chunk)
                last = _cursor(*chunk[-1])
                listed += await self._matching(state, query, chunk, lineage)
            hashes = blobs_of([one.tuple for one in listed]) if query.with_blobs else ()
            held = frozenset(query.held)
            wanted = [h for h in hashes if h not in held]
            values = await self._reading.values(state.history, wanted)
            return Page(listed=tuple(listed), blobs=tuple(values.items()), cursor=last)

        return await self._reading.steadily(thread, once)

    async def _over_threads(self, query: ListQuery, size: int) -> Page:
        after, below = _place(query.cursor)
        # A page may end between two namespaces that have the same id in one thread.
        names: Sequence[tuple[str, str]] = [after] if after is not None and below else []
        if after is None and query.before is not None:
            after = (query.before, "")
        listed: list[Listed] = []
        values: dict[bytes, Typed] = {}
        looked_at, room = 0, limits.INLINE_BLOBS_BYTES_MAX
        cursor = b""
        while len(listed) < size and looked_at < _LOOKED_AT_MAX and room > 0:
            names = names or await self._shard.storage.newest(query.tenant, after, _AT_ONCE)
            if not names:
                cursor = b""
                break
            for cid, name in names:
                looked_at += 1
                after = (cid, name)
                cursor = _cursor(cid, name)
                found, blobs = await self._one_of(query, name, cid, below)
                below = ""
                listed += found
                values |= blobs
                room -= sum(len(v.data) for v in blobs.values())
                if len(listed) > size:
                    cursor = _cursor(cid, name, listed[size - 1].tuple.ns)
                if len(listed) >= size or room <= 0:
                    break
            names = []
        return Page(listed=tuple(listed[:size]), blobs=tuple(values.items()), cursor=cursor)

    async def _one_of(
        self, query: ListQuery, name: str, cid: str, below: str
    ) -> tuple[list[Listed], dict[bytes, Typed]]:
        """The checkpoints of one id in one thread: one, or one for each namespace, of which an
        earlier page may have listed those from `below` on."""
        if query.checkpoint_id is not None and cid != query.checkpoint_id:
            return [], {}

        async def once(state: ThreadState) -> tuple[list[Listed], dict[bytes, Typed]]:
            names = view.listed(state.history, ns=query.ns, cid=cid, losers=query.losers)
            left = [n for n in names if not below or n[1] < below]
            listed = await self._matching(state, query, left, None)
            hashes = blobs_of([one.tuple for one in listed]) if query.with_blobs else ()
            return listed, dict(await self._reading.values(state.history, hashes))

        return await self._reading.steadily(ThreadKey(query.tenant, name), once)

    async def _matching(
        self,
        state: ThreadState,
        query: ListQuery,
        names: Iterable[tuple[str, str]],
        lineage: Lineage | None,
    ) -> list[Listed]:
        history = state.history
        found = (view.by_id(history, ns, cid, lineage) for cid, ns in names)
        shown = [s for s in found if s is not None]
        recent = state.recent.events([i for s in shown for i in (s.checkpoint.id, *s.writes)])
        tuples: list[CheckpointTuple] = await self._reading.tuples(history, shown, recent)
        clock = self._shard.clock(history)
        return [
            Listed(thread=history.thread.thread, tuple=one, clock=clock)
            for one in tuples
            if matches(one.checkpoint.metadata, query.filters)
        ]


def _cursor(*parts: str) -> bytes:
    return msgspec.msgpack.encode(parts)


def _position(cursor: bytes) -> tuple[str, str] | None:
    """Where the next page of one thread begins: after this id and namespace."""
    if not cursor:
        return None
    match _parts(cursor):
        case [str(cid), str(ns)]:
            return cid, ns
    raise _strange()


def _place(cursor: bytes) -> tuple[tuple[str, str] | None, str]:
    """Where the next page over all threads begins: after this id and thread, or, if a namespace
    is named, with what that has below it."""
    if not cursor:
        return None, ""
    match _parts(cursor):
        case [str(cid), str(name)]:
            return (cid, name), ""
        case [str(cid), str(name), str(ns)]:
            return (cid, name), ns
    raise _strange()


def _parts(cursor: bytes) -> object:
    try:
        return msgspec.msgpack.decode(cursor)
    except ValueError:
        raise _strange() from None


def _strange() -> InvalidArgument:
    return InvalidArgument("the cursor of the page is not one of this router's. Begin anew.")
