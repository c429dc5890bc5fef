"""Whether a graph behaves alike on two savers: ids renamed by first appearance, clocks left out."""

from __future__ import annotations

import operator
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, TypedDict

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import START, StateGraph
from langgraph.types import Interrupt, PregelTask, StateSnapshot, interrupt

from .calls import Flavour, Runs

_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|[0-9a-f]{32}")
"""Checkpoint, task and run ids, and the ids of interrupts."""

Compile = Callable[..., Runs]
Scenario = Callable[[Compile], Awaitable[list[Any]]]
"""Compiles graphs with the saver under test, runs them, and returns what it observed."""

Alike = Callable[[Scenario], Awaitable[list[Any]]]
"""Runs a scenario on the saver under test and on InMemorySaver, and compares (a fixture)."""

DURABILITIES = ("sync", "async", "exit")
THREAD: dict[str, Any] = {"configurable": {"thread_id": "t"}}


class Likeness:
    """Renames ids in the order in which they are met, so that two runs can be compared."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def of(self, seen: Any) -> Any:
        """A plain picture of anything that a graph gives back."""
        match seen:
            case StateSnapshot():
                return self._state(seen)
            case PregelTask():
                return {
                    "task": seen.name,
                    "id": self.of(seen.id),
                    "error": seen.error if seen.error is None else self.of(str(seen.error)),
                    "interrupts": [self.of(each) for each in seen.interrupts],
                    "state": self.of(seen.state),
                    "result": self.of(seen.result),
                }
            case Interrupt():
                return {"interrupt": self.of(seen.value), "id": self.of(seen.id)}
            case Mapping():
                return {self.of(key): self.of(value) for key, value in seen.items()}
            case list() | tuple():
                return [self.of(each) for each in seen]
            case str():
                return _ID.sub(self._rename, seen)
            case _:
                return seen

    def _rename(self, found: re.Match[str]) -> str:
        return self._names.setdefault(found.group(), f"#{len(self._names)}")

    def _state(self, seen: StateSnapshot) -> dict[str, Any]:
        return {
            "config": self.of(seen.config),
            "parent": self.of(seen.parent_config),
            "values": self.of(seen.values),
            "next": self.of(seen.next),
            "metadata": self.of(dict(sorted((seen.metadata or {}).items()))),
            "tasks": self.of(seen.tasks),
            "interrupts": self.of(seen.interrupts),
        }


async def observe(saver: BaseCheckpointSaver[Any], flavour: Flavour, scenario: Scenario) -> Any:
    """What `scenario` observes on `saver`, in comparable form."""

    def compile_with(builder: Any, **options: Any) -> Runs:
        return Runs(builder.compile(**{"checkpointer": saver, **options}), flavour)

    return Likeness().of(await scenario(compile_with))


async def story(runs: Runs, config: Mapping[str, Any] = THREAD, **options: Any) -> list[Any]:
    """State, with subgraphs, and history of a thread, as the last of its observations."""
    return [await runs.get_state(config, subgraphs=True), *await runs.history(config, **options)]


# ---- parts of graphs ----------------------------------------------------------------------------


class Log(TypedDict, total=False):
    """A list that grows, and a value that is replaced."""

    log: Annotated[list[str], operator.add]
    last: str


def say(word: str) -> Any:
    """A node that appends `word`."""
    return lambda state: {"log": [word], "last": word}


def add(word: str) -> Any:
    """A node that appends `word`, and may do so beside others."""
    return lambda state: {"log": [word]}


def line(*nodes: tuple[str, Any], schema: Any = Log) -> StateGraph[Any]:
    """A graph of nodes one after the other."""
    builder = StateGraph(schema)
    for before, (name, node) in zip([START, *(each[0] for each in nodes)], nodes, strict=False):
        builder.add_node(name, node)
        builder.add_edge(before, name)
    return builder


def ask(state: Any) -> Any:
    """A node that asks a person."""
    answer = interrupt({"about": len(state["log"])})
    return {"log": [f"answer {answer}"]}
