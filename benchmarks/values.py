"""The checkpoints and writes that the benchmarks store.

Rules: the same seed gives the same text in every saver and every round. Text is made of words, so
that it compresses about as well as what people write; random bytes or one repeated letter would
flatter one storage or another.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    Checkpoint,
    CheckpointMetadata,
)
from langgraph.checkpoint.base.id import uuid6

Saver = BaseCheckpointSaver[Any]

_SYLLABLES: Final = ("ka", "lo", "mi", "ren", "tas", "ul", "vo", "shi", "der", "an", "pe", "gu")
_WORDS: Final = tuple(
    "".join(random.Random(i).choices(_SYLLABLES, k=1 + i % 3))  # noqa: S311 - text
    for i in range(2_000)
)


def text(size_bytes: int, seed: int) -> str:
    """Words of about natural redundancy, `size_bytes` long (ASCII)."""
    words = random.Random(seed).choices(_WORDS, k=size_bytes // 3 + 1)  # noqa: S311 - text
    return " ".join(words)[:size_bytes]


def message(index: int, size_bytes: int = 512) -> AnyMessage:
    """Number `index` of a conversation; people and agents take turns."""
    kind = AIMessage if index % 2 else HumanMessage
    return kind(content=text(size_bytes, index), id=f"m{index:05d}")


def conversation(count: int, size_bytes: int = 512) -> list[AnyMessage]:
    """The first `count` messages."""
    return [message(index, size_bytes) for index in range(count)]


def config_of(thread: str) -> RunnableConfig:
    """Names the root namespace of a thread, as a run's first call does."""
    return {"configurable": {"thread_id": thread, "checkpoint_ns": ""}}


class Chain:
    """Makes the checkpoints of one thread, each the child of the one before.

    Building them is not what is measured, so `ahead` builds them before the clock starts.
    """

    def __init__(self, saver: Saver) -> None:
        self._next_version = saver.get_next_version
        self._versions: dict[str, Any] = {}
        self._step = -1

    def checkpoint(
        self, values: dict[str, Any], changed: Sequence[str]
    ) -> tuple[Checkpoint, CheckpointMetadata, dict[str, Any]]:
        """The next checkpoint: all values, and new versions for the channels that changed."""
        new = {name: self._next_version(self._versions.get(name), None) for name in changed}
        self._versions |= new
        checkpoint = Checkpoint(
            v=4,
            id=str(uuid6(clock_seq=self._step)),
            ts=datetime.now(UTC).isoformat(),
            channel_values=values,
            channel_versions=dict(self._versions),
            versions_seen={"agent": dict(self._versions)},
            updated_channels=sorted(changed),
        )
        metadata = CheckpointMetadata(
            source="input" if self._step < 0 else "loop", step=self._step, parents={}
        )
        self._step += 1
        return checkpoint, metadata, new

    def ahead(
        self, count: int, first: int = 0
    ) -> list[tuple[Checkpoint, CheckpointMetadata, dict[str, Any]]]:
        """`count` checkpoints of the usual size: 2 KB and two times 1 KB, all of it new."""
        return [self.checkpoint(usual_values(first + i), USUAL_CHANNELS) for i in range(count)]


USUAL_CHANNELS: Final = ("messages", "plan", "scratch")


def usual_values(seed: int) -> dict[str, Any]:
    """About 4 KB in three channels: two messages, a dict, a list."""
    return {
        "messages": [message(4 * seed + i, 1_000) for i in (0, 1)],
        "plan": {"goal": text(1_000, seed + 1), "round": seed},
        "scratch": [text(500, seed + 2), text(500, seed + 3)],
    }


def task_writes(seed: int) -> list[tuple[str, Any]]:
    """What a finished task of an agent leaves: a message of 1 KB and where to go next."""
    return [("messages", [message(seed, 1_000)]), ("branch:to:next", None)]
