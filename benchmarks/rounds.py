"""Rounds: every saver does every row once a round, and takes its turn in another order each time.

Rules: a ratio compares two numbers of the same round; a table shows medians over rounds.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from benchmarks.peers import Peer
from benchmarks.rows import Row, Scale

WARM_UP: Final = Scale(alone=300, each=4, runs=2)
"""Enough that every write-ahead log has grown to the size at which it is used again: a file that
grows costs a sync more than one that is overwritten, and grows only once."""


@dataclass(slots=True)
class Results:
    """All numbers of one table: row → saver → one value a round."""

    values: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    def add(self, row: str, peer: str, value: float) -> None:
        self.values.setdefault(row, {}).setdefault(peer, []).append(value)

    def median(self, row: str, peer: str) -> float | None:
        """Over the rounds; None if this saver has no part in the row."""
        found = self.values.get(row, {}).get(peer)
        return statistics.median(found) if found else None

    def ratio(self, row: str, peer: str, rivals: Sequence[str], *, rate: bool) -> float | None:
        """The median of the rounds' ratios to the best rival of that round."""
        found = self.values.get(row, {})
        theirs = [found[name] for name in rivals if name in found]
        if peer not in found or not theirs:
            return None
        best: Callable[[Sequence[float]], float] = max if rate else min
        rounds = zip(found[peer], *theirs, strict=True)
        return float(statistics.median(mine / best(others) for mine, *others in rounds))


async def run_rounds(
    peers: Sequence[Peer],
    rows: Sequence[Row],
    *,
    rounds: int,
    scale: Scale,
    warm_up: Scale | None,
    until: float,
    said: Callable[[str], None],
) -> Results:
    """Take all the numbers. Before, each saver has a turn that is thrown away, or was verified.

    After `until` (monotonic) no row is begun but the first one.
    """
    results = Results()
    for peer in peers:
        for row in rows:
            if warm_up is not None and (row.many_clients or not peer.many_only):
                said(f"warming up {peer.name}")
                await peer.drive(row.measure(peer, warm_up, f"warm-{row.name}"))
    for number in range(rounds):
        turn = number % len(peers)
        for row in rows:
            if results.values and time.monotonic() > until:
                return results
            for peer in [*peers[turn:], *peers[:turn]]:
                if row.many_clients or not peer.many_only:
                    said(f"round {number + 1} of {rounds}: {row.name}: {peer.name}")
                    gc.collect()
                    value = await peer.drive(row.measure(peer, scale, f"{number}-{row.name}"))
                    results.add(row.name, peer.name, value)
    return results
