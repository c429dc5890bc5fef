"""Random sequences of saver calls, drawn from a seed, and the little one must know to judge them.

A sequence is what a caller could do that keeps LangGraph's own rules: a version is never used for
two values, ids are not reused under another parent, a checkpoint that repeats a value repeats its
version. Where savers differ beyond that is for the test to say.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from langgraph.checkpoint.base import WRITES_IDX_MAP, ChannelVersions, Checkpoint
from langgraph.checkpoint.serde.types import _DeltaSnapshot

from .shapes import body, cid

STEPS_MAX: Final = 16
THREADS: Final = ("t", "u")
NAMESPACES: Final = ("", "a:1", "m")
CHANNELS: Final = ("x", "y", "d")
TASKS: Final = tuple(f"{number:032x}" for number in (1, 0xF, 7))
PATHS: Final = ("", "~a", "B")
SPECIAL: Final = tuple(WRITES_IDX_MAP)
VERBS: Final = {
    "put": 10,
    "put_writes": 8,
    "get_tuple": 6,
    "list": 4,
    "delta_history": 2,
    "delete_thread": 1,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One call. `thread` and `ns` are None where a list names none, `id` where a call names none
    (for a put: the parent)."""

    verb: str
    hand: int
    thread: str | None
    ns: str | None
    id: str | None = None
    keeps_config: bool = False
    new_id: str = ""
    values: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    new_versions: ChannelVersions = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    writes: tuple[tuple[str, Any], ...] = ()
    task: str = ""
    path: str = ""
    filter: dict[str, Any] | None = None
    before: str | None = None
    limit: int | None = None

    def checkpoint(self) -> Checkpoint:
        """What a put stores, made anew for each saver."""
        return body(self.new_id, dict(self.values), dict(self.versions))


Place = tuple[str, str]


class Model:
    """What the calls so far have stored, as far as judging them needs it."""

    def __init__(self) -> None:
        self.puts: dict[Place, list[Step]] = {}
        self._special: set[tuple[str | None, str | None, str | None, str, str]] = set()

    def learn(self, step: Step) -> None:
        """A step was taken."""
        if step.verb == "put":
            self.puts.setdefault((str(step.thread), str(step.ns)), []).append(step)
        elif step.verb == "put_writes":
            self._special |= {
                (*self._task(step), name) for name, _ in step.writes if name in SPECIAL
            }
        elif step.verb == "delete_thread":
            self.puts = {at: puts for at, puts in self.puts.items() if at[0] != step.thread}
            self._special = {each for each in self._special if each[0] != step.thread}

    @staticmethod
    def _task(step: Step) -> tuple[str | None, str | None, str | None, str]:
        return step.thread, step.ns, step.id, step.task

    def head(self, thread: str | None, ns: str | None) -> str | None:
        """What was put last of what is nobody's parent."""
        puts = self.puts.get((str(thread), str(ns)), [])
        parents = {each.id for each in puts}
        return next((p.new_id for p in reversed(puts) if p.new_id not in parents), None)

    def greatest(self, thread: str | None, ns: str | None) -> str | None:
        """The greatest id."""
        puts = self.puts.get((str(thread), str(ns)), [])
        return max((each.new_id for each in puts), default=None)

    def replaces_special_in_mixed_call(self, step: Step) -> bool:
        """A call with regular writes too has a special one that is there already, or twice."""
        special = [name for name, _ in step.writes if name in SPECIAL]
        mixed = len(special) < len(step.writes)
        again = any((*self._task(step), name) in self._special for name in special)
        return mixed and (again or len(set(special)) < len(special))


class Script:
    """The steps of one seed; `model` has learnt those that were taken."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self._numbers = iter(range(100, 100_000))
        self._behind = iter(range(99, 0, -1))
        self.model = Model()

    def __iter__(self) -> Iterator[Step]:
        for _ in range(self._rng.randint(4, STEPS_MAX)):
            (verb,) = self._rng.choices(list(VERBS), list(VERBS.values()))
            yield getattr(self, f"_{verb}")()

    def _where(self) -> dict[str, Any]:
        return {
            "hand": int(self._rng.random() < 0.2),
            "thread": self._rng.choices(THREADS, (4, 1))[0],
            "ns": self._rng.choices(NAMESPACES, (4, 1, 1))[0],
            "keeps_config": self._rng.random() < 0.5,
        }

    def _known(self, where: dict[str, Any]) -> list[Step]:
        return self.model.puts.get((where["thread"], where["ns"]), [])

    def _some_id(self, where: dict[str, Any]) -> str:
        """Mostly of a checkpoint that is stored, now and then of one that is not, or not yet."""
        known = self._known(where)
        if known and self._rng.random() < 0.85:
            return self._rng.choice(known[-3:]).new_id
        return cid(self._rng.choice((100, 101, 102, 55_555)))

    def _put(self) -> Step:
        where, rng = self._where(), self._rng
        known = self._known(where)
        if known and rng.random() < 0.1:
            return self._again(where, rng.choice(known))
        before = rng.choice(known[-2:]) if known and rng.random() < 0.9 else None
        parent = before.new_id if before else None
        if before is None and rng.random() < 0.2:
            parent = cid(55_555)
        new_id = cid(next(self._behind if rng.random() < 0.1 else self._numbers))
        values, versions, new = self._values(before, new_id)
        metadata = {
            "source": rng.choice(("input", "loop")),
            "step": rng.randrange(3),
            "new": new_id,
        }
        return Step(
            verb="put",
            **where,
            id=parent,
            new_id=new_id,
            values=values,
            versions=versions,
            new_versions=new,
            metadata=metadata,
        )

    def _values(
        self, before: Step | None, new_id: str
    ) -> tuple[dict[str, Any], dict[str, str], ChannelVersions]:
        """Those of the parent, some of them changed, emptied, or begun."""
        values = dict(before.values) if before else {}
        versions = dict(before.versions) if before else {}
        new: ChannelVersions = {}
        for channel in CHANNELS:
            drawn = self._rng.random()
            if drawn < 0.5:
                continue
            new[channel] = versions[channel] = f"{len(versions):032}.{new_id}"
            if drawn < 0.6:
                values.pop(channel, None)
            else:
                values[channel] = self._value(channel)
        return values, versions, new

    def _value(self, channel: str) -> Any:
        if channel == "d":
            return _DeltaSnapshot([self._rng.randrange(9)])
        grown = ["said"] * self._rng.randrange(1, 900)  # by the next draw, or shrunk
        kinds = (
            None, "", "text", 0, True, 1.5, [1, [2]], {"k": {3: "v"}}, {4, 5}, b"b", grown, grown
        )  # fmt: skip
        return self._rng.choice(kinds)

    def _again(self, where: dict[str, Any], old: Step) -> Step:
        """The same id once more, with a newer look: what a caller does that lost an answer."""
        values, versions, new = self._values(old, f"{old.new_id}+{self._rng.randrange(10**6)}")
        return Step(
            verb="put",
            **where,
            id=old.id,
            new_id=old.new_id,
            values=values,
            versions=versions,
            new_versions=new,
            metadata={**old.metadata, "again": True},
        )

    def _put_writes(self) -> Step:
        where, rng = self._where(), self._rng
        names = rng.choices(("x", "y", "d", *SPECIAL), (6, 3, 6, 1, 1, 2, 2), k=rng.randrange(4))
        if rng.random() < 0.3:
            names = [name for name in names if name in SPECIAL]
        return Step(
            verb="put_writes",
            **where,
            id=self._some_id(where),
            writes=tuple((name, rng.randrange(100)) for name in names),
            task=rng.choice(TASKS),
            path=rng.choice(PATHS),
        )

    def _get_tuple(self) -> Step:
        where = self._where()
        named = self._rng.random() < 0.5
        return Step(verb="get_tuple", **where, id=self._some_id(where) if named else None)

    def _delta_history(self) -> Step:
        where = self._where()
        named = self._rng.random() < 0.7
        return Step(verb="delta_history", **where, id=self._some_id(where) if named else None)

    def _delete_thread(self) -> Step:
        return Step(verb="delete_thread", **self._where())

    def _list(self) -> Step:
        where, rng = self._where(), self._rng
        where["keeps_config"] = False
        filters = (None, None, {"source": "input"}, {"step": 1}, {"step": 1, "source": "loop"})
        found = self._some_id(where)
        if rng.random() < 0.3:
            where["thread"] = where["ns"] = None
        elif rng.random() < 0.3:
            where["ns"] = None
        by_id = where["ns"] is not None and rng.random() < 0.1
        return Step(
            verb="list",
            **where,
            id=found if by_id else None,
            filter=rng.choice(filters),
            before=rng.choice((None, None, None, found, "")),
            limit=rng.choice((None, None, None, 0, 1, 3)),
        )
