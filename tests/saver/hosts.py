"""Agent hosts whose clocks differ: real processes, the clock behind whose checkpoint ids is wrong.

Clocks of other machines cannot be had in a test, so the clock is a fake: in each host the module
that draws checkpoint ids (`langgraph.checkpoint.base.id`) gets a `time` that is ahead or behind.
Owner of the processes: `running_hosts`. A host does one thing at a time and ends with its pipe.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import multiprocessing
import operator
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import SimpleNamespace
from typing import Annotated, Any, TypedDict

from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.base import id as id_module
from langgraph.graph import START, StateGraph
from langgraph.types import Command, interrupt

from .calls import Flavour, Runs

ANSWER_SECONDS_MAX = 60.0
THREAD: dict[str, Any] = {"configurable": {"thread_id": "t"}}


def extend(old: list[str], new: Sequence[list[str]]) -> list[str]:
    """The reducer of the delta channel."""
    return [*old, *itertools.chain.from_iterable(new)]


class Log(TypedDict, total=False):
    """What the turns said, once as whole values and once as changes."""

    said: Annotated[list[str], operator.add]
    changes: Annotated[list[str], DeltaChannel(extend)]


class Word(TypedDict):
    """What the subgraph is given, and makes louder."""

    word: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One thing that a host is asked to do, on the thread `t` of a tenant."""

    target: str
    tenant: str
    flavour: Flavour
    what: str
    word: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What the host saw of the thread after it."""

    said: list[str]
    changes: list[str]
    next: tuple[str, ...]
    head: str | None
    history: list[tuple[str, str | None]]
    """(checkpoint id, id of its parent) in the order of `get_state_history`."""


def graph(checkpointer: Any) -> Any:
    """Takes a word, has a subgraph make it louder, and ask first if the word is a question."""

    def louder(state: Word) -> Word:
        word = state["word"]
        return {"word": (interrupt(word) if word.endswith("?") else word).upper()}

    inner: StateGraph[Any] = StateGraph(Word)
    inner.add_node("louder", louder)
    inner.add_edge(START, "louder")
    subgraph = inner.compile()

    def call(state: Log) -> Log:
        said = [subgraph.invoke({"word": state["said"][-1]})["word"]]
        return {"said": said, "changes": said}

    builder: StateGraph[Any] = StateGraph(Log)
    builder.add_node("call", call)
    builder.add_node("after", lambda state: {"said": ["."], "changes": ["."]})
    builder.add_edge(START, "call")
    builder.add_edge("call", "after")
    return builder.compile(checkpointer=checkpointer)


async def do(job: Job) -> Seen:
    """The job, on a saver of its own."""
    from checkpoint_router import RouterSaver

    async with RouterSaver(job.target, tenant=job.tenant) as saver:
        runs = Runs(graph(saver), job.flavour)
        match job.what:
            case "turn":
                await runs.invoke({"said": [job.word], "changes": [job.word]}, THREAD)
            case "answer":
                await runs.invoke(Command(resume=job.word), THREAD)
            case "update":
                change = {"said": [job.word], "changes": [job.word]}
                await runs.update_state(THREAD, change, as_node="after")
            case "travel":
                old = next(s for s in await runs.history(THREAD) if s.next == ("after",))
                await runs.invoke(None, old.config)
            case "look":
                pass
        state = await runs.get_state(THREAD)
        past = await runs.history(THREAD)
        return Seen(
            said=state.values.get("said", []),
            changes=state.values.get("changes", []),
            next=state.next,
            head=id_of(state.config),
            history=[(each, parent) for each, parent in ids_of(past) if each is not None],
        )


def ids_of(past: Sequence[Any]) -> list[tuple[str | None, str | None]]:
    """Ids and parents' ids of a history."""
    return [(id_of(each.config), id_of(each.parent_config)) for each in past]


def id_of(config: Any) -> str | None:
    """The checkpoint id of a config."""
    return None if config is None else config["configurable"].get("checkpoint_id")


def serve(pipe: Connection, ahead_seconds: float) -> None:
    """A host: does jobs until its pipe ends."""
    ahead = int(ahead_seconds * 1e9)
    wrong = SimpleNamespace(time_ns=lambda: time.time_ns() + ahead)
    setattr(id_module, "time", wrong)  # noqa: B010  # a module is no place for a typed assignment
    while True:
        try:
            job = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send(asyncio.run(do(job)))
        except Exception as error:
            pipe.send(RuntimeError(f"{type(error).__name__}: {error}"))


class Host:
    """An agent host, as its test sees it."""

    def __init__(self, ahead_seconds: float) -> None:
        context = multiprocessing.get_context("spawn")
        self.ahead_seconds = ahead_seconds
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, ahead_seconds), daemon=True)
        self._process.start()
        theirs.close()

    def does(self, job: Job) -> Seen:
        """Has it do a job, and waits."""
        self._pipe.send(job)
        assert self._pipe.poll(ANSWER_SECONDS_MAX), f"host {self.ahead_seconds:+} does not answer"
        seen = self._pipe.recv()
        if isinstance(seen, Exception):
            raise seen
        assert isinstance(seen, Seen)
        return seen

    def end(self) -> None:
        """Ends the process."""
        self._pipe.close()
        self._process.join(ANSWER_SECONDS_MAX)
        if self._process.is_alive():
            self._process.kill()


@contextlib.contextmanager
def running_hosts(*ahead_seconds: float) -> Iterator[dict[float, Host]]:
    """Hosts by how far their clocks are ahead."""
    hosts = {each: Host(each) for each in ahead_seconds}
    try:
        yield hosts
    finally:
        for host in hosts.values():
            host.end()
