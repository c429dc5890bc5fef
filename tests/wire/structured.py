"""Events field by field, as a client may send them that would rather not pack them."""

from checkpoint_router.core.records import Checkpoint, Event
from checkpoint_router.v1 import types_pb2 as pb
from checkpoint_router.wire.events import (
    fill_checkpoint,
    fill_content,
    fill_event_id,
    fill_ranges,
)


def fill_event(message: pb.Event, event: Event, digest: bytes | None = None) -> None:
    """Writes `event` into `message`."""
    fill_event_id(message.id, event.id)
    message.checkpoint_ns = event.ns
    message.checkpoint_id = event.checkpoint_id
    message.generation = event.gen
    message.term = event.term
    message.hlc = event.hlc
    fill_ranges(message.after, event.after)
    if event.header is not None:
        message.header.token = event.header.token
        for given_up in event.header.gives_up:
            fill_event_id(message.header.gives_up.add(), given_up)
    if isinstance(event.content, Checkpoint):
        message.checkpoint.SetInParent()
        fill_checkpoint(message.checkpoint, event.content)
    else:
        message.write_set.SetInParent()
        for task in event.content.tasks:
            wrote = message.write_set.tasks.add(task_id=task.task_id, task_path=task.task_path)
            for row in task.rows:
                line = wrote.rows.add(index=row.idx, channel=row.channel)
                fill_content(line.content, row.content)
    if digest is not None:
        message.digest = digest
