"""The tables: which savers are compared on one engine, and what is asked of ours there.

Rules: a goal is a bound on our figure through that of the best rival in the same round. Less is
better where the unit is a time or a size, more where it is a rate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from benchmarks import rivals, rows
from benchmarks.floor import floor
from benchmarks.peers import Opener, router
from benchmarks.servers import in_cassandra, in_redis, in_sqlite

ROUTER: Final = "router"
"""The names of our own savers begin so."""

TURN: Final = "last turns of a long thread"
AFTER: Final = "get_latest after it"
STORED: Final = "bytes stored by it"
WIRE: Final = "bytes on the wire, a last turn"
MEMORY: Final = "memory of the router"
MORE_UNITS: Final = {TURN: "ms", AFTER: "ms", STORED: "MB", WIRE: "KB", MEMORY: "MB"}
"""Of the rows that are not in `rows.ROWS`, as they are shown; others are in ms. Sizes are kept in
bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """Two bounds on a ratio."""

    goal: float
    least: float
    """Counts at least."""

    at_least: bool = False

    def verdict(self, ratio: float) -> str:
        """In a word or two."""
        return (
            "goal"
            if self._met(ratio, self.goal)
            else ("least" if self._met(ratio, self.least) else "not met")
        )

    def _met(self, ratio: float, bound: float) -> bool:
        return ratio >= bound if self.at_least else ratio <= bound

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.goal:g} ({self.least:g})"


def at_most(goal: float, least: float | None = None) -> Goal:
    """For times and sizes."""
    return Goal(goal=goal, least=goal if least is None else least)


def at_least(goal: float, least: float | None = None) -> Goal:
    """For rates."""
    return Goal(goal=goal, least=goal if least is None else least, at_least=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """One table. The first saver is ours."""

    title: str
    savers: Mapping[str, Opener]
    rivals: tuple[str, ...]
    """The ratio is to the best of these."""

    goals: Mapping[str, Goal] = field(default_factory=dict)
    long_thread_only: bool = False


DURABLE: Final = {
    rows.PUT: at_most(0.75, 1.0),
    rows.PUT_MANY: at_least(4, 2.5),
    rows.WRITES: at_most(0.8, 1.1),
    rows.WRITES_MANY: at_least(6, 4),
    rows.GET: at_most(0.8, 1.0),
    rows.GET_MANY: at_least(2.2, 1.6),
    rows.LIST: at_most(0.65, 0.8),
    rows.STEP: at_most(0.5, 0.75),
    rows.STEP_MANY: at_least(3.2, 2.3),
    rows.FAN: at_most(0.33, 0.4),
    TURN: at_most(0.4, 0.6),
    STORED: at_most(0.02, 0.04),
    WIRE: at_most(0.05, 0.5),
}

ENGINES: Final[Mapping[str, Engine]] = {
    "sqlite": Engine(
        title="SQLite behind the router, every write synced",
        savers={
            "router": router("router", in_sqlite),
            "floor": floor("floor", in_sqlite),
            "postgres": rivals.postgres("postgres"),
            "postgres, a saver each": rivals.postgres("postgres, a saver each", each=True),
            "sqlite": rivals.sqlite("sqlite"),
            "memory": rivals.memory("memory"),
        },
        rivals=("postgres",),
        goals=DURABLE,
    ),
    "sync": Engine(
        title="The same with blocking savers and workers of the operating system",
        savers={
            "router, sync": router("router, sync", in_sqlite, blocking=True),
            "postgres, sync": rivals.blocking_postgres("postgres, sync"),
        },
        rivals=("postgres, sync",),
        goals=DURABLE,
    ),
    "redis": Engine(
        title="Redis behind the router, and savers on the same Redis, synced once a second",
        savers={
            "router on redis": router("router on redis", in_redis),
            "floor on redis": floor("floor on redis", in_redis),
            "valkey": rivals.valkey("valkey"),
            "plainredis": rivals.plainredis("plainredis"),
        },
        rivals=("valkey", "plainredis"),
        goals={
            rows.PUT_MANY: at_least(1.2),
            rows.STEP: at_most(0.9),
            rows.FAN: at_most(0.6),
        },
    ),
    "cassandra": Engine(
        title="Cassandra behind the router, and a saver on the same Cassandra",
        savers={
            "router on cassandra": router("router on cassandra", in_cassandra),
            "cassandra, TCP_NODELAY": rivals.cassandra("cassandra, TCP_NODELAY"),
        },
        rivals=("cassandra, TCP_NODELAY",),
        goals={
            rows.PUT: at_most(2.0),
            rows.PUT_MANY: at_least(1.0),
            rows.STEP: at_most(0.7),
            rows.FAN: at_most(0.25),
        },
    ),
    "delta": Engine(
        title="Long threads: our plain channels and LangGraph's DeltaChannel",
        savers={
            "router": router("router", in_sqlite),
            "router, delta": router("router, delta", in_sqlite, delta=True),
            "postgres, delta": rivals.postgres("postgres, delta", delta=True),
        },
        rivals=("postgres, delta",),
        goals={TURN: at_most(1.0), STORED: at_most(1.0)},
        long_thread_only=True,
    ),
}
