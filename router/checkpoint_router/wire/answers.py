"""What a router answers: clocks, sessions, tuples, pages, delta histories."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from checkpoint_router.core import limits
from checkpoint_router.core.answers import (
    CheckpointTuple,
    DeltaAnswer,
    DeltaHistory,
    Listed,
    Page,
    PendingWrite,
    PutAnswer,
    ReadAnswer,
    Removed,
    Session,
    ThreadClock,
)
from checkpoint_router.v1 import checkpoint_service_pb2 as calls
from checkpoint_router.v1 import types_pb2 as pb
from checkpoint_router.wire.blobs import fill_values, grown_of, values_of
from checkpoint_router.wire.checks import (
    checked_event_id,
    checked_integer,
    checked_name,
    checked_path,
    checked_size,
    optional_segment,
)
from checkpoint_router.wire.events import (
    checkpoint_of,
    content_of,
    fill_checkpoint,
    fill_content,
    fill_event_id,
    fill_ranges,
    ranges_of,
)

if TYPE_CHECKING:
    from google.protobuf.internal.containers import RepeatedCompositeFieldContainer as Repeated

    PutMessage = calls.PutResponse | calls.PutWritesResponse
    RemovedMessage = calls.DeleteForRunsResponse | calls.PruneResponse


def clock_of(message: pb.ThreadClock) -> ThreadClock:
    """Where a thread stands."""
    return ThreadClock(
        gen=message.generation, hlc=message.hlc, term=message.term, epoch=message.table_epoch
    )


def fill_clock(message: pb.ThreadClock, clock: ThreadClock) -> None:
    """Writes `clock` into `message`."""
    message.generation = clock.gen
    message.hlc = clock.hlc
    message.term = clock.term
    message.table_epoch = clock.epoch


def session_of(message: pb.Session) -> Session:
    """What a call of a run knows."""
    checked_size("session.token", len(message.token), limits.TOKEN_BYTES_MAX)
    return Session(
        token=message.token,
        segment=optional_segment(message.segment),
        acknowledged=ranges_of(message.acknowledged, "session.acknowledged"),
        inside=message.inside,
    )


def fill_session(message: pb.Session, session: Session) -> None:
    """Writes `session` into `message`, also where it is empty."""
    message.SetInParent()
    message.token = session.token
    if session.segment is not None:
        message.segment = session.segment
    fill_ranges(message.acknowledged, session.acknowledged)
    message.inside = session.inside


def fill_put_answer(message: "PutMessage", answer: PutAnswer) -> None:
    """Writes `answer` into `message`."""
    if answer.missing:
        message.missing.extend(answer.missing)
    fill_clock(message.clock, answer.clock)


def tuple_of(message: pb.CheckpointTuple) -> CheckpointTuple:
    """One checkpoint as a reader gets it."""
    return CheckpointTuple(
        ns=checked_name("tuple.checkpoint_ns", message.checkpoint_ns, empty=True),
        checkpoint_id=checked_name("tuple.checkpoint_id", message.checkpoint_id),
        checkpoint=checkpoint_of(message.checkpoint),
        pending_writes=pending_writes_of(message.pending_writes),
        token=message.token,
        hlc=checked_integer("tuple.hlc", message.hlc),
        event=checked_event_id(message.event, "tuple.event"),
    )


def fill_tuple(message: pb.CheckpointTuple, value: CheckpointTuple) -> None:
    """Writes `value` into `message`."""
    message.checkpoint_ns = value.ns
    message.checkpoint_id = value.checkpoint_id
    fill_checkpoint(message.checkpoint, value.checkpoint)
    fill_pending_writes(message.pending_writes, value.pending_writes)
    message.token = value.token
    message.hlc = value.hlc
    fill_event_id(message.event, value.event)


def pending_writes_of(messages: Sequence[pb.PendingWrite]) -> tuple[PendingWrite, ...]:
    """Folded pending writes, in their order."""
    return tuple(
        PendingWrite(
            task_id=checked_name("writes.task_id", m.task_id, empty=True),
            task_path=checked_path(m.task_path),
            idx=m.index,
            channel=checked_name("writes.channel", m.channel, empty=True),
            content=content_of(m.content, "writes"),
        )
        for m in messages
    )


def fill_pending_writes(
    messages: "Repeated[pb.PendingWrite]", writes: Iterable[PendingWrite]
) -> None:
    """Writes `writes` into the repeated field `messages`."""
    for write in writes:
        message = messages.add(
            task_id=write.task_id,
            task_path=write.task_path,
            index=write.idx,
            channel=write.channel,
        )
        fill_content(message.content, write.content)


def read_answer_of(message: calls.GetTupleResponse) -> ReadAnswer:
    """One read."""
    return ReadAnswer(
        tuple=tuple_of(message.tuple) if message.HasField("tuple") else None,
        blobs=values_of(message.blobs),
        clock=clock_of(message.clock),
        token=message.token,
        grown=grown_of(message.blobs),
    )


def fill_read_answer(message: calls.GetTupleResponse, answer: ReadAnswer) -> None:
    """Writes `answer` into `message`."""
    if answer.tuple is not None:
        fill_tuple(message.tuple, answer.tuple)
    fill_values(message.blobs, answer.blobs, answer.grown)
    fill_clock(message.clock, answer.clock)
    message.token = answer.token


def page_of(message: calls.ListTuplesResponse) -> Page:
    """A page of a listing."""
    return Page(
        listed=tuple(
            Listed(
                thread=checked_name("tuples.thread_id", m.thread_id),
                tuple=tuple_of(m.tuple),
                clock=clock_of(m.clock),
            )
            for m in message.tuples
        ),
        blobs=values_of(message.blobs),
        cursor=message.next_cursor,
    )


def fill_page(message: calls.ListTuplesResponse, page: Page) -> None:
    """Writes `page` into `message`."""
    for listed in page.listed:
        line = message.tuples.add(thread_id=listed.thread)
        fill_tuple(line.tuple, listed.tuple)
        fill_clock(line.clock, listed.clock)
    fill_values(message.blobs, page.blobs)
    message.next_cursor = page.cursor


def delta_answer_of(message: calls.GetDeltaHistoryResponse) -> DeltaAnswer:
    """What delta channels are rebuilt from."""
    return DeltaAnswer(
        channels=tuple(
            DeltaHistory(
                channel=checked_name("channels.channel", m.channel, empty=True),
                writes=pending_writes_of(m.writes),
                seed=content_of(m.seed, "channels.seed") if m.HasField("seed") else None,
            )
            for m in message.channels
        ),
        blobs=values_of(message.blobs),
    )


def fill_delta_answer(message: calls.GetDeltaHistoryResponse, answer: DeltaAnswer) -> None:
    """Writes `answer` into `message`."""
    for channel in answer.channels:
        line = message.channels.add(channel=channel.channel)
        fill_pending_writes(line.writes, channel.writes)
        if channel.seed is not None:
            fill_content(line.seed, channel.seed)
    fill_values(message.blobs, answer.blobs)


def fill_removed(message: "RemovedMessage", removed: Removed) -> None:
    """Writes `removed` into `message`."""
    message.threads = removed.threads
    message.events = removed.events
