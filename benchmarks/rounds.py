"""Rounds: every saver does every row once a round, and takes its turn in another order each time.

Rules: a ratio compares two numbers of the same round; the table shows medians over rounds.
"""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from benchmarks.peers import POSTGRES, Peer
from benchmarks.rows import ROWS, Row, Scale

WARM_UP: Final = Scale(alone=300, each=4, runs=2)
"""Enough that every write-ahead log has grown to the size at which it is used again: a file that
grows costs a sync more than one that is overwritten, and grows only once."""


@dataclass(slots=True)
class Results:
    """All numbers: row → saver → one value a round."""

    values: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    def add(self, row: str, peer: str, value: float) -> None:
        self.values.setdefault(row, {}).setdefault(peer, []).append(value)

    def median(self, row: str, peer: str) -> float | None:
        """Over the rounds; None if this saver has no part in the row."""
        found = self.values.get(row, {}).get(peer)
        return statistics.median(found) if found else None

    def ratio(self, row: str, peer: str, to: str = POSTGRES) -> float | None:
        """The median of the rounds' ratios."""
        mine, theirs = (self.values.get(row, {}).get(name) for name in (peer, to))
        if not mine or not theirs:
            return None
        return statistics.median(a / b for a, b in zip(mine, theirs, strict=True) if b)


async def run_rounds(
    peers: Sequence[Peer], *, rounds: int, scale: Scale, said: Callable[[str], None]
) -> Results:
    """Take all the numbers. The first turn of each saver warms it up and is thrown away."""
    results = Results()
    for peer in peers:
        said(f"warming up {peer.name}")
        for row in rows_of(peer):
            await row.measure(peer, WARM_UP, f"warm-{row.name}")
    for number in range(rounds):
        turn = number % len(peers)
        for row in ROWS:
            for peer in [*peers[turn:], *peers[:turn]]:
                if row in rows_of(peer):
                    said(f"round {number + 1} of {rounds}: {row.name}: {peer.name}")
                    gc.collect()
                    value = await row.measure(peer, scale, f"{number}-{row.name}")
                    results.add(row.name, peer.name, value)
    return results


def rows_of(peer: Peer) -> list[Row]:
    """The rows in which a saver takes part."""
    return [row for row in ROWS if row.many_clients or not peer.concurrent_only]
