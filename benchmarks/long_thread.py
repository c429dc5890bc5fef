"""The long thread: an agent that answers message after message, on fresh storage of its own.

Rules: the savers take turns turn by turn, so a machine that slows down slows all; every turn is a
run through LangGraph, which reads the thread and stores three checkpoints and two write sets; the
end is verified. Bytes are those of this one thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from benchmarks import engines
from benchmarks.graphs import chatting_agent, run_config
from benchmarks.peers import Peer
from benchmarks.rounds import Results
from benchmarks.values import config_of, message
from benchmarks.verify import expect
from benchmarks.wire import Wire

TIMED_TURNS: Final = 20
"""The last turns of the thread; the row gives their median."""

LOOKS: Final = 25
"""How often the bytes stored are looked at on the way."""

THREAD: Final = "long"


@dataclass(slots=True)
class Series:
    """What one saver took, over the length of the conversation."""

    turn_ms: list[float] = field(default_factory=list)
    wire_bytes: list[int] = field(default_factory=list)
    stored: dict[int, int] = field(default_factory=dict)
    """After so many turns, bytes."""


class Conversation:
    """One saver's."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.series = Series()
        self._agent = chatting_agent(peer)
        self._wire = Wire()

    async def turn(self, number: int) -> None:
        """A message, and the answer to it."""
        value, config = {"messages": [message(2 * number)]}, run_config(THREAD)
        self._wire.begin()
        began = time.perf_counter()
        await self.peer.drive(self.peer.run(self._agent, value, config))
        self.series.turn_ms.append((time.perf_counter() - began) * 1e3)
        self.series.wire_bytes.append(self._wire.ended())

    async def look(self, turns: int, *, last: bool) -> None:
        """At the bytes stored."""
        if self.peer.stored is not None and (last or self.peer.stored_is_cheap):
            self.series.stored[turns] = await self.peer.stored()

    async def read(self) -> float:
        """The newest checkpoint, in milliseconds."""
        began = time.perf_counter()
        await self.peer.drive(self.peer.saver_of(0).aget_tuple(config_of(THREAD)))
        return (time.perf_counter() - began) * 1e3

    async def verify(self) -> None:
        """Every message is there, in its place. Raises Mismatch."""
        state = await self.peer.drive(self.peer.state(self._agent, run_config(THREAD)))
        said = [message(index) for index in range(2 * len(self.series.turn_ms))]
        expect(self.peer, "long conversation", state.values.get("messages"), said)


async def long_thread(
    peers: Sequence[Peer],
    turns: int,
    until: float,
    results: Results,
    said: Callable[[str], None],
) -> dict[str, Series]:
    """Hold the conversations; the last turns go into `results` as rounds do. They are shorter, but
    not than those, if it is later than `until` (monotonic)."""
    held = [Conversation(peer) for peer in peers if not peer.many_only]
    looks = {turns * number // LOOKS for number in range(1, LOOKS)}
    for number in range(turns):
        if number >= TIMED_TURNS and time.monotonic() > until:
            break
        said(f"a thread of {turns} turns: {number}")
        turn = number % len(held)
        for one in [*held[turn:], *held[:turn]]:
            await one.turn(number)
            if number + 1 in looks:
                await one.look(number + 1, last=False)
    for _ in range(TIMED_TURNS):
        for one in held:
            results.add(engines.AFTER, one.peer.name, await one.read())
    for one in held:
        await one.verify()
        await one.look(len(one.series.turn_ms), last=True)
        _note(results, one)
    return {one.peer.name: one.series for one in held}


def _note(results: Results, one: Conversation) -> None:
    name, series = one.peer.name, one.series
    for value in series.turn_ms[-TIMED_TURNS:]:
        results.add(engines.TURN, name, value)
    if any(series.wire_bytes):
        for value in series.wire_bytes[-TIMED_TURNS:]:
            results.add(engines.WIRE, name, value)
    if series.stored:
        results.add(engines.STORED, name, series.stored[max(series.stored)])
