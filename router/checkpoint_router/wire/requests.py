"""What a saver asks: puts, reads, listings, deletes, as the engine's arguments."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from checkpoint_router.core import limits
from checkpoint_router.core.answers import (
    Growth,
    Held,
    ListQuery,
    MetadataFilter,
    NewBlob,
    PruneStrategy,
    Session,
)
from checkpoint_router.core.errors import InvalidArgument
from checkpoint_router.core.ids import ThreadKey, checked_tenant
from checkpoint_router.core.records import Event, Kind
from checkpoint_router.v1 import checkpoint_service_pb2 as calls
from checkpoint_router.wire.answers import fill_session, session_of
from checkpoint_router.wire.blobs import blobs_of, fill_blobs, fill_held, held_of, whole_blobs_of
from checkpoint_router.wire.checks import (
    checked_hash,
    checked_json,
    checked_name,
    checked_request_id,
    checked_size,
    invalid,
)
from checkpoint_router.wire.events import (
    digest_of,
    event_of,
)

if TYPE_CHECKING:
    PutMessage = calls.PutRequest | calls.PutWritesRequest
    OneThread = (
        PutMessage
        | calls.PutBlobsRequest
        | calls.GetBlobsRequest
        | calls.GetTupleRequest
        | calls.DeleteThreadRequest
        | calls.GetDeltaHistoryRequest
    )
    WithSession = calls.GetTupleRequest | calls.ListTuplesRequest | calls.GetDeltaHistoryRequest

_STRATEGIES = {
    calls.PRUNE_STRATEGY_KEEP_LATEST: PruneStrategy.KEEP_LATEST,
    calls.PRUNE_STRATEGY_DELETE: PruneStrategy.DELETE,
}
_STRATEGY_NUMBERS = {strategy: number for number, strategy in _STRATEGIES.items()}


def thread_of(message: "OneThread") -> ThreadKey:
    """The thread that a request is about."""
    return ThreadKey(checked_tenant(message.tenant), checked_name("thread_id", message.thread_id))


def fill_thread(message: "OneThread", thread: ThreadKey) -> None:
    """Writes `thread` into `message`."""
    message.tenant = thread.tenant
    message.thread_id = thread.thread


def put_of(
    message: "PutMessage", kind: Kind
) -> tuple[ThreadKey, Event, bytes, bytes | None, tuple[NewBlob | Growth, ...]]:
    """Thread, event, its canonical bytes, digest and blobs of a put of that kind."""
    sent, blobs = message.event, message.blobs
    event, packed = event_of(sent)
    if event.kind is not kind:
        wanted = "a checkpoint" if kind is Kind.CHECKPOINT else "a write set"
        raise invalid("event.content", f"is not {wanted}, which this call stores.")
    return thread_of(message), event, packed, digest_of(sent), blobs_of(blobs) if blobs else ()


def put_blobs_of(message: calls.PutBlobsRequest) -> tuple[ThreadKey, int, tuple[NewBlob, ...]]:
    """Thread, generation and blobs."""
    if not 0 < message.generation <= limits.INTEGER_MAX:
        raise invalid("generation", f"is {message.generation}; generations count from 1.")
    return thread_of(message), message.generation, whole_blobs_of(message.blobs)


def fill_put_blobs(
    message: calls.PutBlobsRequest, thread: ThreadKey, gen: int, blobs: Iterable[NewBlob]
) -> None:
    """Writes blobs that go before their put into `message`."""
    fill_thread(message, thread)
    message.generation = gen
    fill_blobs(message.blobs, blobs)


def get_blobs_of(message: calls.GetBlobsRequest) -> tuple[ThreadKey, tuple[bytes, ...]]:
    """Thread and hashes."""
    checked_size("hashes", len(message.hashes), limits.BLOBS_PER_CALL_MAX, "hashes")
    return thread_of(message), tuple(checked_hash("hashes", h) for h in message.hashes)


def fill_get_blobs(
    message: calls.GetBlobsRequest, thread: ThreadKey, hashes: Iterable[bytes]
) -> None:
    """Writes a question for blobs into `message`."""
    fill_thread(message, thread)
    message.hashes.extend(hashes)


def optional_session_of(message: "WithSession") -> Session | None:
    """The session that rides in a read, if one does."""
    return session_of(message.session) if message.HasField("session") else None


def optional_id(what: str, value: str) -> str | None:
    """`value` as an id; None if it is empty."""
    return checked_name(what, value) if value else None


def get_tuple_of(
    message: calls.GetTupleRequest,
) -> tuple[ThreadKey, str, str | None, Session | None, bool, tuple[Held, ...]]:
    """Thread, namespace, checkpoint id (None: the newest), session, whether blobs are wanted
    beside the tuple, and which of them the reader has."""
    return (
        thread_of(message),
        checked_name("checkpoint_ns", message.checkpoint_ns, empty=True),
        optional_id("checkpoint_id", message.checkpoint_id),
        optional_session_of(message),
        not message.without_blobs,
        held_of(message.held),
    )


def fill_get_tuple(
    message: calls.GetTupleRequest,
    thread: ThreadKey,
    ns: str,
    checkpoint_id: str | None,
    session: Session | None,
    *,
    with_blobs: bool = True,
    held: Iterable[Held] = (),
) -> None:
    """Writes a read into `message`."""
    fill_thread(message, thread)
    message.checkpoint_ns = ns
    message.checkpoint_id = checkpoint_id or ""
    message.without_blobs = not with_blobs
    fill_held(message.held, held)
    if session is not None:
        fill_session(message.session, session)


def list_query_of(message: calls.ListTuplesRequest) -> ListQuery:
    """What to list."""
    checked_size("cursor", len(message.cursor), limits.CURSOR_BYTES_MAX)
    checked_size("filters", len(message.filters), limits.FILTERS_MAX, "conditions")
    thread = checked_name("thread_id", message.thread_id) if message.HasField("thread_id") else None
    session = optional_session_of(message)
    if session is not None and thread is None:
        raise invalid("session", "belongs to a thread, and no thread_id is given.")
    return ListQuery(
        tenant=checked_tenant(message.tenant),
        thread=thread,
        ns=checked_name("checkpoint_ns", message.checkpoint_ns, empty=True)
        if message.HasField("checkpoint_ns")
        else None,
        checkpoint_id=optional_id("checkpoint_id", message.checkpoint_id),
        before=optional_id("before", message.before),
        filters=_filters_of(message.filters),
        limit=message.limit if message.HasField("limit") else None,
        cursor=message.cursor,
        session=session,
        losers=message.losers,
        with_blobs=not message.without_blobs,
        held=tuple(message.held[: limits.HELD_MAX]),
    )


def fill_list_query(message: calls.ListTuplesRequest, query: ListQuery) -> None:
    """Writes `query` into `message`. Raises InvalidArgument for a negative limit."""
    message.tenant = query.tenant
    if query.thread is not None:
        message.thread_id = query.thread
    if query.ns is not None:
        message.checkpoint_ns = query.ns
    message.checkpoint_id = query.checkpoint_id or ""
    message.before = query.before or ""
    for each in query.filters:
        message.filters.add(key=each.key, json=each.json)
    if query.limit is not None:
        if query.limit < 0:
            raise InvalidArgument(
                f"limit is {query.limit}. Give 0 or more, or None for all.", field="limit"
            )
        message.limit = min(query.limit, 2**32 - 1)
    message.cursor = query.cursor
    message.losers = query.losers
    message.without_blobs = not query.with_blobs
    message.held.extend(query.held)
    if query.session is not None:
        fill_session(message.session, query.session)


def delete_thread_of(message: calls.DeleteThreadRequest) -> tuple[ThreadKey, int | None, bytes]:
    """Thread, the generation that ends (None: the current one), request id."""
    generation = message.generation
    if generation > limits.INTEGER_MAX:
        raise invalid("generation", f"is {generation}; the greatest is {limits.INTEGER_MAX}.")
    return thread_of(message), generation or None, checked_request_id(message.request_id)


def fill_delete_thread(
    message: calls.DeleteThreadRequest, thread: ThreadKey, gen: int | None, request_id: bytes
) -> None:
    """Writes a delete into `message`."""
    fill_thread(message, thread)
    message.generation = gen or 0
    message.request_id = request_id


def delete_for_runs_of(
    message: calls.DeleteForRunsRequest,
) -> tuple[str, tuple[str, ...], bytes]:
    """Tenant, run ids, request id."""
    tenant, request_id = checked_tenant(message.tenant), checked_request_id(message.request_id)
    return tenant, _ids("run_ids", message.run_ids), request_id


def fill_delete_for_runs(
    message: calls.DeleteForRunsRequest, tenant: str, run_ids: Iterable[str], request_id: bytes
) -> None:
    """Writes a delete of runs into `message`."""
    message.tenant = tenant
    message.run_ids.extend(run_ids)
    message.request_id = request_id


def copy_thread_of(message: calls.CopyThreadRequest) -> tuple[ThreadKey, ThreadKey]:
    """Source and target."""
    tenant = checked_tenant(message.tenant)
    return (
        ThreadKey(tenant, checked_name("source_thread_id", message.source_thread_id)),
        ThreadKey(tenant, checked_name("target_thread_id", message.target_thread_id)),
    )


def fill_copy_thread(
    message: calls.CopyThreadRequest, source: ThreadKey, target: ThreadKey
) -> None:
    """Writes a copy inside one tenant into `message`."""
    message.tenant = source.tenant
    message.source_thread_id = source.thread
    message.target_thread_id = target.thread


def prune_of(
    message: calls.PruneRequest,
) -> tuple[str, tuple[str, ...], PruneStrategy, bytes]:
    """Tenant, thread ids, strategy, request id."""
    tenant, request_id = checked_tenant(message.tenant), checked_request_id(message.request_id)
    strategy = _STRATEGIES.get(message.strategy)
    if strategy is None:
        raise invalid("strategy", "is none that is known here. Use KEEP_LATEST or DELETE.")
    return tenant, _ids("thread_ids", message.thread_ids), strategy, request_id


def fill_prune(
    message: calls.PruneRequest,
    tenant: str,
    thread_ids: Iterable[str],
    strategy: PruneStrategy,
    request_id: bytes,
) -> None:
    """Writes a prune into `message`."""
    message.tenant = tenant
    message.thread_ids.extend(thread_ids)
    message.strategy = _STRATEGY_NUMBERS[strategy]
    message.request_id = request_id


def delta_history_of(
    message: calls.GetDeltaHistoryRequest,
) -> tuple[ThreadKey, str, str | None, tuple[str, ...], Session | None, tuple[bytes, ...]]:
    """Thread, namespace, checkpoint id (None: the newest), channels, session, and which values the
    reader has."""
    checked_size("channels", len(message.channels), limits.MANIFEST_ENTRIES_MAX, "channels")
    return (
        thread_of(message),
        checked_name("checkpoint_ns", message.checkpoint_ns, empty=True),
        optional_id("checkpoint_id", message.checkpoint_id),
        tuple(checked_name("channels", c, empty=True) for c in message.channels),
        optional_session_of(message),
        tuple(message.held[: limits.HELD_MAX]),
    )


def fill_delta_history(
    message: calls.GetDeltaHistoryRequest,
    thread: ThreadKey,
    ns: str,
    checkpoint_id: str | None,
    channels: Iterable[str],
    session: Session | None,
    held: Iterable[bytes],
) -> None:
    """Writes a question for delta histories into `message`."""
    fill_thread(message, thread)
    message.checkpoint_ns = ns
    message.checkpoint_id = checkpoint_id or ""
    message.channels.extend(channels)
    message.held.extend(held)
    if session is not None:
        fill_session(message.session, session)


def _ids(what: str, values: Sequence[str]) -> tuple[str, ...]:
    checked_size(what, len(values), limits.IDS_PER_CALL_MAX, "ids")
    return tuple(checked_name(what, value) for value in values)


def _filters_of(messages: Sequence[calls.MetadataFilter]) -> tuple[MetadataFilter, ...]:
    size = sum(len(m.key) + len(m.json) for m in messages)
    checked_size("filters", size, limits.METADATA_BYTES_MAX)
    return tuple(
        MetadataFilter(key=m.key, json=checked_json("filters.json", m.json)) for m in messages
    )
