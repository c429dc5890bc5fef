"""The long thread: a conversation of many turns, each checkpoint with the whole of it.

Rules: on fresh storage of its own, so that the bytes on disk are those of this one thread; every
turn is stored as an agent stores it, and the end is verified. It is taken once, not per round.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

from benchmarks.peers import Opener, Place
from benchmarks.values import Chain, Saver, config_of, message
from benchmarks.verify import expect

TIMED_TURNS: Final = 20
"""The last turns of the thread; the row gives their median."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LongThread:
    """What one saver took for it."""

    turn_ms: float
    get_latest_ms: float
    stored_mb: float


async def long_thread(opener: Opener, place: Place, turns: int) -> LongThread:
    """Two messages of 512 B, three checkpoints and two `put_writes` a turn."""
    async with opener(place) as peer:
        saver, thread = peer.saver_of(0), "long"
        conversation = Conversation(saver, thread)
        times = []
        for _ in range(turns):
            began = time.perf_counter()
            await conversation.turn()
            times.append(time.perf_counter() - began)
        reads, found = [], None
        for _ in range(TIMED_TURNS):
            began = time.perf_counter()
            found = await saver.aget_tuple(config_of(thread))
            reads.append(time.perf_counter() - began)
        values = found and found.checkpoint["channel_values"]
        expect(peer, "long conversation", values, {"messages": conversation.messages})
        stored = await peer.close_and_measure()
        return LongThread(
            turn_ms=statistics.median(times[-TIMED_TURNS:]) * 1_000,
            get_latest_ms=statistics.median(reads) * 1_000,
            stored_mb=stored / 1e6,
        )


class Conversation:
    """The calls that pregel makes for one turn of a chat agent, one after another."""

    def __init__(self, saver: Saver, thread: str) -> None:
        self._saver = saver
        self._chain = Chain(saver)
        self._config = config_of(thread)
        self.messages: list[Any] = []

    async def turn(self) -> None:
        """Input, the agent's answer, the end."""
        await self._put(("messages",), [message(len(self.messages))])
        answer = message(len(self.messages))
        await self._saver.aput_writes(
            self._config, [("messages", [answer]), ("branch:to:agent", None)], str(uuid4())
        )
        await self._put(("messages",), [answer])
        await self._saver.aput_writes(self._config, [("branch:to:end", None)], str(uuid4()))
        await self._put((), [])

    async def _put(self, changed: tuple[str, ...], more: list[Any]) -> None:
        self.messages = [*self.messages, *more]
        parts = self._chain.checkpoint({"messages": self.messages}, changed)
        self._config = await self._saver.aput(self._config, *parts)
