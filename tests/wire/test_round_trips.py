"""Whatever is written into a message is read back from its bytes as it was."""

from collections.abc import Callable
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checkpoint_router.core.answers import ListQuery, PruneStrategy, Removed, WriteSummary
from checkpoint_router.core.conflicts import Task
from checkpoint_router.core.errors import InvalidArgument
from checkpoint_router.core.ids import EventId, SegmentId
from checkpoint_router.core.records import (
    EMPTY,
    ChannelEntry,
    Checkpoint,
    Event,
    MetadataEntry,
    Typed,
    pack_event,
)
from checkpoint_router.v1 import admin_service_pb2 as admin
from checkpoint_router.v1 import checkpoint_service_pb2 as calls
from checkpoint_router.v1 import types_pb2 as pb
from checkpoint_router.wire import admin as wire_admin
from checkpoint_router.wire import answers, events, requests
from checkpoint_router.wire.blobs import fill_blobs
from checkpoint_router.wire.puts import put_bytes

from . import strategies as some
from .structured import fill_event

M = TypeVar("M")


def over(message: M, fill: Callable[..., None], *values: Any) -> M:
    """`message` filled, as it arrives: from bytes."""
    fill(message, *values)
    arrived: M = type(message).FromString(message.SerializeToString())  # type: ignore[attr-defined]  # any message
    return arrived


@given(some.events(), st.none() | some.hashes)
def test_an_event_comes_back_as_it_was(event: Event, digest: bytes | None) -> None:
    arrived = over(pb.Event(), fill_event, event, digest)
    assert events.event_of(arrived) == (event, pack_event(event))
    assert events.digest_of(arrived) == digest


@given(some.threads, some.events(), some.hashes, some.new_blobs)
def test_a_put_comes_back_as_it_was(thread: Any, event: Event, digest: bytes, blobs: Any) -> None:
    plain = isinstance(event.content, Checkpoint)
    message = calls.PutRequest() if plain else calls.PutWritesRequest()
    message.MergeFromString(put_bytes(thread, pack_event(event), digest, blobs))
    whole = (thread, event, pack_event(event), digest, blobs)
    assert requests.put_of(message, event.kind) == whole


@given(some.threads, some.payloads, some.hashes, some.new_blobs, st.lists(some.grown_blobs))
def test_a_put_is_the_bytes_that_protobuf_would_write(
    thread: Any, packed: bytes, digest: bytes, blobs: Any, grown: Any
) -> None:
    wanted = calls.PutRequest(tenant=thread.tenant, thread_id=thread.thread)
    wanted.event.packed = packed
    wanted.event.digest = digest
    fill_blobs(wanted.blobs, [*blobs, *grown])
    data = put_bytes(thread, packed, digest, [*blobs, *grown])
    assert calls.PutRequest.FromString(data) == wanted
    assert calls.PutWritesRequest.FromString(data).SerializeToString() == wanted.SerializeToString()


@given(st.tuples(some.threads, st.integers(1, 2**63 - 1), some.new_blobs))
def test_blobs_ahead_of_a_put_come_back_as_they_were(asked: Any) -> None:
    arrived = over(calls.PutBlobsRequest(), requests.fill_put_blobs, *asked)
    assert requests.put_blobs_of(arrived) == asked


@given(st.tuples(some.threads, st.lists(some.hashes, max_size=4).map(tuple)))
def test_a_question_for_blobs_comes_back_as_it_was(asked: Any) -> None:
    arrived = over(calls.GetBlobsRequest(), requests.fill_get_blobs, *asked)
    assert requests.get_blobs_of(arrived) == asked


@given(
    some.threads,
    some.ids_or_empty,
    st.none() | some.ids,
    st.none() | some.sessions,
    st.booleans(),
    some.held,
)
def test_a_read_comes_back_as_it_was(
    thread: Any, ns: str, checkpoint_id: str | None, session: Any, with_blobs: bool, held: Any
) -> None:
    message = calls.GetTupleRequest()
    asked = (thread, ns, checkpoint_id, session)
    requests.fill_get_tuple(message, *asked, with_blobs=with_blobs, held=held)
    arrived = calls.GetTupleRequest.FromString(message.SerializeToString())
    assert requests.get_tuple_of(arrived) == (*asked, with_blobs, held)


@given(some.list_queries())
def test_a_query_comes_back_as_it_was(query: Any) -> None:
    arrived = over(calls.ListTuplesRequest(), requests.fill_list_query, query)
    assert requests.list_query_of(arrived) == query


@given(
    st.tuples(
        some.threads, st.none() | st.integers(1, 2**63 - 1), st.binary(min_size=1, max_size=64)
    )
)
def test_a_delete_comes_back_as_it_was(asked: Any) -> None:
    arrived = over(calls.DeleteThreadRequest(), requests.fill_delete_thread, *asked)
    assert requests.delete_thread_of(arrived) == asked


@given(
    st.tuples(
        some.ids, st.lists(some.ids, max_size=3).map(tuple), st.binary(min_size=1, max_size=64)
    )
)
def test_a_delete_of_runs_comes_back_as_it_was(asked: Any) -> None:
    arrived = over(calls.DeleteForRunsRequest(), requests.fill_delete_for_runs, *asked)
    assert requests.delete_for_runs_of(arrived) == asked


@given(some.threads, some.ids)
def test_a_copy_comes_back_as_it_was(source: Any, target: str) -> None:
    pair = (source, type(source)(source.tenant, target))
    arrived = over(calls.CopyThreadRequest(), requests.fill_copy_thread, *pair)
    assert requests.copy_thread_of(arrived) == pair


@given(
    st.tuples(
        some.ids,
        st.lists(some.ids, max_size=3).map(tuple),
        st.sampled_from(PruneStrategy),
        st.binary(min_size=1, max_size=64),
    )
)
def test_a_prune_comes_back_as_it_was(asked: Any) -> None:
    arrived = over(calls.PruneRequest(), requests.fill_prune, *asked)
    assert requests.prune_of(arrived) == asked


@given(
    st.tuples(
        some.threads,
        some.ids_or_empty,
        st.none() | some.ids,
        st.lists(some.ids_or_empty, max_size=3).map(tuple),
        st.none() | some.sessions,
        st.lists(some.hashes, max_size=3).map(tuple),
    )
)
def test_a_question_for_delta_history_comes_back_as_it_was(asked: Any) -> None:
    arrived = over(calls.GetDeltaHistoryRequest(), requests.fill_delta_history, *asked)
    assert requests.delta_history_of(arrived) == asked


@given(some.put_answers)
def test_the_answer_to_a_put_comes_back_as_it_was(answer: Any) -> None:
    for message in (calls.PutResponse(), calls.PutWritesResponse()):
        arrived = over(message, answers.fill_put_answer, answer)
        assert tuple(arrived.missing) == answer.missing
        assert answers.clock_of(arrived.clock) == answer.clock


@given(some.read_answers)
def test_a_tuple_comes_back_as_it_was(answer: Any) -> None:
    arrived = over(calls.GetTupleResponse(), answers.fill_read_answer, answer)
    assert answers.read_answer_of(arrived) == answer


@given(some.pages)
def test_a_page_comes_back_as_it_was(page: Any) -> None:
    assert answers.page_of(over(calls.ListTuplesResponse(), answers.fill_page, page)) == page


@given(some.delta_answers)
def test_a_delta_history_comes_back_as_it_was(answer: Any) -> None:
    arrived = over(calls.GetDeltaHistoryResponse(), answers.fill_delta_answer, answer)
    assert answers.delta_answer_of(arrived) == answer


@given(st.builds(Removed, threads=some.signed, events=some.signed))
def test_what_was_removed_comes_back_as_it_was(removed: Removed) -> None:
    for message in (calls.PruneResponse(), calls.DeleteForRunsResponse()):
        arrived = over(message, answers.fill_removed, removed)
        assert (arrived.threads, arrived.events) == (removed.threads, removed.events)


@given(some.router_facts)
def test_facts_are_told_in_full(facts: Any) -> None:
    told = over(admin.GetRouterResponse(), wire_admin.fill_facts, facts)
    assert (told.version, told.actor, told.storage) == (facts.version, facts.actor, facts.storage)
    assert (told.protocol, told.table_epoch) == (wire_admin.PROTOCOL, facts.epoch)
    assert (tuple(told.promises), tuple(told.alarms)) == (facts.promises, facts.alarms)
    assert tuple(sorted(told.facts.items())) == facts.facts


@given(st.lists(some.thread_summaries, max_size=3).map(tuple), some.payloads)
def test_a_page_of_threads_is_told_in_full(threads: Any, cursor: bytes) -> None:
    told = over(admin.ListThreadsResponse(), wire_admin.fill_threads, threads, cursor)
    assert told.next_cursor == cursor
    for m, thread in zip(told.threads, threads, strict=True):
        assert (m.thread_id, m.generation) == (thread.thread.thread, thread.gen)
        assert (m.checkpoints, m.events) == (thread.checkpoints, thread.events)
        assert (m.open_conflicts, m.head) == (thread.open_conflicts, thread.head or "")
        assert m.updated_unix_ms == thread.updated_unix_ms


def told_writes(messages: Any) -> tuple[WriteSummary, ...]:
    return tuple(
        WriteSummary(
            task_id=m.task_id, task_path=m.task_path, channel=m.channel, size_bytes=m.bytes
        )
        for m in messages
    )


@given(some.trees)
def test_a_tree_is_told_in_full(tree: Any) -> None:
    told = over(admin.GetThreadResponse(), wire_admin.fill_tree, tree)
    assert (answers.clock_of(told.clock), told.open_conflicts) == (tree.clock, tree.open_conflicts)
    assert told_writes(told.orphans) == tree.orphans
    for m, node in zip(told.nodes, tree.nodes, strict=True):
        assert (m.checkpoint_ns, m.checkpoint_id) == (node.ns, node.checkpoint_id)
        assert (m.parent_id if m.HasField("parent_id") else None) == node.parent_id
        assert events.metadata_of(m.metadata) == node.metadata
        assert (m.record_bytes, m.value_bytes) == (node.record_bytes, node.value_bytes)
        assert (m.new_bytes, m.hlc, m.segment) == (node.new_bytes, node.hlc, node.segment)
        assert told_writes(m.writes) == node.writes
        assert (m.head, m.on_winner, m.loser) == (node.head, node.on_winner, node.loser)


@given(some.thread_conflicts)
def test_conflicts_are_told_in_full(conflicts: Any) -> None:
    told = over(admin.ListConflictsResponse(), wire_admin.fill_thread_conflicts, conflicts)
    assert answers.clock_of(told.clock) == conflicts.clock
    for m, record in zip(told.conflicts, conflicts.conflicts, strict=True):
        assert (m.id, m.open, set(m.kinds)) == (record.id, record.open, record.kinds)
        for side, wanted in zip(m.sides, record.sides, strict=True):
            assert (side.segment, side.hlc, side.wins) == (wanted.segment, wanted.hlc, wanted.wins)
            first = EventId(SegmentId(side.first_event.segment), side.first_event.index)
            assert first == wanted.first
            names = tuple((c.checkpoint_ns, c.checkpoint_id) for c in side.checkpoints)
            assert names == wanted.checkpoints
        assert [
            Task(
                ns=t.checkpoint_ns,
                checkpoint_id=t.checkpoint_id,
                task_id=t.task_id,
                task_path=t.task_path,
            )
            for t in m.tasks
        ] == list(record.tasks)


def _event(*, channel: str = "c", version: Any = "1", key: str = "source") -> Event:
    return Event(
        id=EventId(SegmentId(bytes(16)), 1),
        ns="",
        checkpoint_id="c1",
        gen=1,
        term=0,
        hlc=1,
        after=(),
        header=None,
        content=Checkpoint(
            parent_id=None,
            body=Typed("msgpack", b""),
            manifest=(ChannelEntry(channel, version, EMPTY),),
            metadata=(MetadataEntry(key, '"loop"'),),
        ),
    )


@pytest.mark.parametrize(
    ("event", "named"),
    [
        (_event(channel="c\ud800"), "channel"),
        (_event(key="k\udfff"), "metadata key"),
    ],
)
def test_what_has_no_form_on_the_wire_is_refused_before_it_is_sent(
    event: Event, named: str
) -> None:
    with pytest.raises(InvalidArgument, match=named):
        events.packed_event(event)


def test_a_negative_limit_is_refused_before_it_is_sent() -> None:
    query = ListQuery(tenant="t", thread=None, ns=None, checkpoint_id=None, before=None, limit=-1)
    with pytest.raises(InvalidArgument, match="limit is -1"):
        requests.fill_list_query(calls.ListTuplesRequest(), query)
