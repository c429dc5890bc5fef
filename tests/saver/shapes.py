"""Checkpoints, configs and writes for tests, with ids a reader can follow.

`cid(3)` is the third checkpoint id: lower-case, hexadecimal, of fixed width, and ordered by its
number, as the ids that LangGraph draws from the clock are ordered by time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langgraph.checkpoint.base import Checkpoint, CheckpointTuple

from .calls import Calls

TASK = "11111111-1111-1111-1111-111111111111"
OTHER_TASK = "22222222-2222-2222-2222-222222222222"
NULL_TASK = "00000000-0000-0000-0000-000000000000"


def cid(number: int) -> str:
    """The checkpoint id with this number."""
    return f"{number:08x}-0000-6000-8000-00000000{number & 0xFFFF:04x}"


def conf(
    thread: Any = "t", ns: str | None = "", checkpoint_id: str | None = None
) -> dict[str, Any]:
    """A config with the three keys of the contract, and no id where none is given."""
    configurable: dict[str, Any] = {"thread_id": thread, "checkpoint_ns": ns}
    if checkpoint_id is not None:
        configurable["checkpoint_id"] = checkpoint_id
    return {"configurable": configurable}


def version(checkpoint_id: str, count: int = 1) -> str:
    """A channel version as LangGraph's savers make it: a counter, then what no branch shares."""
    return f"{count:032}.{checkpoint_id}"


def body(
    checkpoint_id: str,
    values: Mapping[str, Any] | None = None,
    versions: Mapping[str, Any] | None = None,
    **more: Any,
) -> Checkpoint:
    """A checkpoint; channels without a version given get one of their own for this id."""
    channel_values = dict(values or {})
    channel_versions = dict(versions or {})
    for channel in channel_values:
        channel_versions.setdefault(channel, version(checkpoint_id))
    whole: dict[str, Any] = {
        "v": 4,
        "id": checkpoint_id,
        "ts": "2026-01-01T00:00:00+00:00",
        "channel_values": channel_values,
        "channel_versions": channel_versions,
        "versions_seen": {},
        "updated_channels": None,
    }
    return whole | more  # type: ignore[return-value]


async def store(
    calls: Calls,
    checkpoint_id: str,
    *,
    parent: str | None = None,
    values: Mapping[str, Any] | None = None,
    versions: Mapping[str, Any] | None = None,
    new: Mapping[str, Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
    thread: Any = "t",
    ns: str | None = "",
    **more: Any,
) -> dict[str, Any]:
    """Puts one checkpoint; `new` names the versions that are new, all of them unless given."""
    checkpoint = body(checkpoint_id, values, versions, **more)
    return await calls.put(
        conf(thread, ns, parent),
        checkpoint,
        {"source": "loop", "step": 1, "parents": {}} if metadata is None else metadata,
        dict(checkpoint["channel_versions"] if new is None else new),
    )


async def chain(
    calls: Calls,
    numbers: Sequence[int],
    *,
    parent: str | None = None,
    thread: str = "t",
    ns: str = "",
    metadata: Mapping[str, Any] | None = None,
) -> list[str]:
    """Puts one checkpoint for each number, each the parent of the next; returns the ids."""
    made: list[str] = []
    for number in numbers:
        await store(
            calls,
            cid(number),
            parent=parent,
            values={"n": number},
            thread=thread,
            ns=ns,
            metadata={"source": "loop", "step": number, "parents": {}, **(metadata or {})},
        )
        parent = cid(number)
        made.append(parent)
    return made


def ids(found: Sequence[CheckpointTuple]) -> list[str]:
    """The checkpoint ids of a list, in its order."""
    return [each.config["configurable"]["checkpoint_id"] for each in found]


def places(found: Sequence[CheckpointTuple]) -> list[tuple[str, str, str]]:
    """Thread, namespace and id of each entry of a list, in its order."""
    keys = ("thread_id", "checkpoint_ns", "checkpoint_id")
    return [tuple(each.config["configurable"][key] for key in keys) for each in found]


def parent_of(found: CheckpointTuple) -> str | None:
    """The id of the parent, None for a root."""
    parent = found.parent_config
    return None if parent is None else parent["configurable"]["checkpoint_id"]
