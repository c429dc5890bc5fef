"""Hypothesis strategies for the values that go over the wire."""

import json
from typing import Any

from hypothesis import strategies as st

from checkpoint_router.core.answers import (
    CheckpointTuple,
    DeltaAnswer,
    DeltaHistory,
    Growth,
    Held,
    Listed,
    ListQuery,
    MetadataFilter,
    NewBlob,
    Node,
    Page,
    PendingWrite,
    PutAnswer,
    ReadAnswer,
    RouterFacts,
    Session,
    ThreadClock,
    ThreadConflicts,
    ThreadSummary,
    Tree,
    WriteSummary,
)
from checkpoint_router.core.clock import ranges_of
from checkpoint_router.core.conflicts import Conflict, ConflictKind, Side, Task
from checkpoint_router.core.ids import EventId, SegmentId, ThreadKey
from checkpoint_router.core.records import (
    BY_VERSION,
    EMPTY,
    Blob,
    ChannelEntry,
    Checkpoint,
    Event,
    Header,
    MetadataEntry,
    TaskWrites,
    Typed,
    WriteRow,
    WriteSet,
)

CHARACTERS = st.characters(codec="utf-8", exclude_characters="\x00")
ids = st.text(CHARACTERS, min_size=1, max_size=12)
ids_or_empty = st.text(CHARACTERS, max_size=12)
texts = st.text(st.characters(codec="utf-8"), max_size=12)
signed = st.integers(0, 2**63 - 1)
small = st.integers(0, 2**32 - 1)
hashes = st.binary(min_size=32, max_size=32)
segments = st.binary(min_size=16, max_size=16).map(SegmentId)
payloads = st.binary(max_size=40)
threads = st.builds(ThreadKey, ids, ids)
event_ids = st.builds(EventId, segments, st.integers(1, 2**32))
ranges = st.sets(st.integers(1, 200), max_size=30).map(ranges_of)
typed = st.builds(Typed, texts, payloads)
contents = st.one_of(typed, st.builds(Blob, hashes), st.just(EMPTY), st.just(BY_VERSION))
versions = st.one_of(st.none(), texts, st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False))
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
json_texts = json_values.map(json.dumps) | json_values.map(
    lambda v: json.dumps(v, ensure_ascii=False)
)
metadata = st.lists(
    st.builds(MetadataEntry, texts, json_texts | typed), max_size=4, unique_by=lambda m: m.key
).map(tuple)
checkpoints = st.builds(
    Checkpoint,
    parent_id=st.none() | ids,
    body=typed,
    manifest=st.lists(
        st.builds(ChannelEntry, ids_or_empty, versions, contents),
        max_size=5,
        unique_by=lambda e: e.channel,
    ).map(tuple),
    metadata=metadata,
)
task_writes = st.builds(
    TaskWrites,
    task_id=ids_or_empty,
    task_path=texts,
    rows=st.lists(
        st.builds(WriteRow, st.integers(-(2**31), 2**31 - 1), ids_or_empty, contents), max_size=4
    ).map(tuple),
)
write_sets = st.builds(WriteSet, tasks=st.lists(task_writes, min_size=1, max_size=3).map(tuple))
headers = st.builds(Header, token=payloads, gives_up=st.lists(event_ids, max_size=3).map(tuple))


@st.composite
def events(draw: st.DrawFn) -> Event:
    """An event of either kind."""
    content = draw(checkpoints | write_sets)
    return Event(
        id=draw(event_ids),
        ns=draw(ids_or_empty),
        checkpoint_id=draw(ids),
        gen=draw(st.integers(1, 2**63 - 1)),
        term=draw(signed),
        hlc=draw(signed),
        after=draw(ranges),
        header=draw(st.none() | headers),
        content=content,
    )


held = st.lists(
    st.builds(Held, hash=hashes, channel=texts, head=payloads, keep=small), max_size=3
).map(tuple)
growths = st.builds(
    Growth,
    hash=hashes,
    tag=texts,
    base=hashes,
    keep=st.integers(1, 2**20),
    head=st.binary(max_size=5),
    tail=payloads,
)
new_blobs = st.lists(
    st.builds(NewBlob, hash=hashes, value=typed, continues=st.none() | hashes), max_size=3
).map(tuple)
grown_blobs = st.builds(
    NewBlob,
    hash=hashes,
    value=st.builds(Typed, st.just("msgpack"), payloads.map(b"\x91".__add__)),
    continues=hashes,
    kept=st.integers(1, 2**20),
)
clocks = st.builds(ThreadClock, gen=signed, hlc=signed, term=signed, epoch=signed)
sessions = st.builds(
    Session,
    token=payloads,
    segment=st.none() | segments,
    acknowledged=ranges,
    inside=st.booleans(),
)
put_answers = st.builds(PutAnswer, missing=st.lists(hashes, max_size=3).map(tuple), clock=clocks)
pending_writes = st.builds(
    PendingWrite,
    task_id=ids_or_empty,
    task_path=texts,
    idx=st.integers(-(2**31), 2**31 - 1),
    channel=ids_or_empty,
    content=contents,
)
write_lists = st.lists(pending_writes, max_size=3).map(tuple)
tuples = st.builds(
    CheckpointTuple,
    ns=ids_or_empty,
    checkpoint_id=ids,
    checkpoint=checkpoints,
    pending_writes=write_lists,
    token=payloads,
    hlc=signed,
    event=event_ids,
)
values = st.lists(st.tuples(hashes, typed), max_size=3).map(tuple)
read_answers = st.builds(
    ReadAnswer,
    tuple=st.none() | tuples,
    blobs=values,
    grown=st.lists(growths, max_size=2).map(tuple),
    clock=clocks,
    token=payloads,
)
pages = st.builds(
    Page,
    listed=st.lists(st.builds(Listed, thread=ids, tuple=tuples, clock=clocks), max_size=2).map(
        tuple
    ),
    blobs=values,
    cursor=payloads,
)
delta_answers = st.builds(
    DeltaAnswer,
    channels=st.lists(
        st.builds(
            DeltaHistory, channel=ids_or_empty, writes=write_lists, seed=st.none() | contents
        ),
        max_size=3,
    ).map(tuple),
    blobs=values,
)


@st.composite
def list_queries(draw: st.DrawFn) -> ListQuery:
    """A question for a listing; a session only where a thread is named."""
    thread = draw(st.none() | ids)
    return ListQuery(
        tenant=draw(ids),
        thread=thread,
        ns=draw(st.none() | ids_or_empty),
        checkpoint_id=draw(st.none() | ids),
        before=draw(st.none() | ids),
        filters=draw(
            st.lists(st.builds(MetadataFilter, key=texts, json=json_texts), max_size=3).map(tuple)
        ),
        limit=draw(st.none() | small),
        cursor=draw(payloads),
        session=None if thread is None else draw(st.none() | sessions),
        losers=draw(st.booleans()),
        with_blobs=draw(st.booleans()),
        held=() if thread is None else draw(st.lists(hashes, max_size=3).map(tuple)),
    )


router_facts = st.builds(
    RouterFacts,
    version=texts,
    actor=signed,
    storage=texts,
    promises=st.lists(texts, max_size=2).map(tuple),
    alarms=st.lists(texts, max_size=2).map(tuple),
    epoch=signed,
    facts=st.dictionaries(texts, texts, max_size=3).map(lambda d: tuple(sorted(d.items()))),
)
thread_summaries = st.builds(
    ThreadSummary,
    thread=st.builds(ThreadKey, st.just("acme"), ids),
    gen=signed,
    checkpoints=signed,
    events=signed,
    open_conflicts=small,
    head=st.none() | ids,
    updated_unix_ms=signed,
)
write_summaries = st.lists(
    st.builds(WriteSummary, task_id=texts, task_path=texts, channel=texts, size_bytes=signed),
    max_size=2,
).map(tuple)
trees = st.builds(
    Tree,
    nodes=st.lists(
        st.builds(
            Node,
            ns=texts,
            checkpoint_id=texts,
            parent_id=st.none() | texts,
            metadata=metadata,
            record_bytes=signed,
            value_bytes=signed,
            new_bytes=signed,
            writes=write_summaries,
            hlc=signed,
            head=st.booleans(),
            on_winner=st.booleans(),
            loser=st.booleans(),
            segment=segments,
        ),
        max_size=2,
    ).map(tuple),
    orphans=write_summaries,
    clock=clocks,
    open_conflicts=small,
)
sides = st.builds(
    Side,
    segment=segments,
    first=event_ids,
    checkpoints=st.lists(st.tuples(texts, texts), max_size=2).map(tuple),
    hlc=signed,
    wins=st.booleans(),
)
thread_conflicts = st.builds(
    ThreadConflicts,
    conflicts=st.lists(
        st.builds(
            Conflict,
            id=payloads,
            kinds=st.frozensets(st.sampled_from(ConflictKind)),
            open=st.booleans(),
            sides=st.tuples(sides, sides),
            tasks=st.lists(
                st.builds(Task, ns=texts, checkpoint_id=texts, task_id=texts, task_path=texts),
                max_size=2,
            ).map(tuple),
        ),
        max_size=2,
    ).map(tuple),
    clock=clocks,
)
