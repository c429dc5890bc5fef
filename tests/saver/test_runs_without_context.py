"""Writes that LangGraph makes without the run's context still belong to the run.

A sync graph stores what a parallel task wrote from a callback of that task's worker, to which no
context was copied; on a thread's first run, and in a fresh nested graph, nothing else carries the
run. Such writes must not become a rival of the run that they belong to.
"""

from __future__ import annotations

import operator
import subprocess
import sys
import threading
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.graph import START, StateGraph

from checkpoint_router import RouterSaver

pytestmark = pytest.mark.router_only

WAIT_SECONDS_MAX = 30.0
TASKS = ("a", "b")


class Log(TypedDict, total=False):
    """A state that parallel tasks may all write."""

    log: Annotated[list[str], operator.add]


class WritesFirst(RouterSaver):
    """The put of the parallel tasks' checkpoint is made after the tasks have stored their writes:
    the order that LangGraph allows and a slow put brings about."""

    def __init__(self, target: str, *, tenant: str, nested: bool) -> None:
        super().__init__(target, tenant=tenant)
        self.nested = nested
        self.stored = 0
        self.lock = threading.Lock()
        self.all_stored = threading.Event()

    def put(
        self, config: RunnableConfig, checkpoint: Any, metadata: Any, new_versions: Any
    ) -> RunnableConfig:
        """Waits, if this is the checkpoint that the tasks run on."""
        if metadata["step"] == 0 and self._here(config):
            assert self.all_stored.wait(WAIT_SECONDS_MAX), "the tasks' writes did not come"
        return super().put(config, checkpoint, metadata, new_versions)

    def put_writes(
        self, config: RunnableConfig, writes: Any, task_id: str, task_path: str = ""
    ) -> None:
        """Counts the tasks whose writes are stored."""
        super().put_writes(config, writes, task_id, task_path)
        if self._here(config) and any(channel == "log" and v[0] in TASKS for channel, v in writes):
            with self.lock:
                self.stored += 1
                if self.stored == len(TASKS):
                    self.all_stored.set()

    def _here(self, config: RunnableConfig) -> bool:
        return bool(config["configurable"]["checkpoint_ns"]) is self.nested


def parallel_graph() -> StateGraph[Log]:
    """Two tasks side by side. Neither ends before both have begun: a task that ends at once is
    stored by the worker that made it, which has the context."""
    graph, both = StateGraph(Log), threading.Barrier(len(TASKS), timeout=WAIT_SECONDS_MAX)

    def task(name: str) -> Log:
        both.wait()
        return {"log": [name]}

    for name in TASKS:
        graph.add_node(name, lambda state, name=name: task(name))
        graph.add_edge(START, name)
    return graph


@pytest.mark.parametrize("nested", [False, True], ids=["root", "nested"])
def test_writes_of_parallel_tasks_before_their_put_are_no_rivals_of_a_first_run(
    router: Any, tenant: str, nested: bool
) -> None:
    graph = parallel_graph()
    if nested:
        inner, graph = graph.compile(), StateGraph(Log)
        graph.add_node("inner", inner)
        graph.add_edge(START, "inner")
    with WritesFirst(router.target, tenant=tenant, nested=nested) as saver:
        config: RunnableConfig = {"configurable": {"thread_id": "first"}}
        state = graph.compile(checkpointer=saver).invoke({"log": ["in"]}, config)
        assert saver.all_stored.is_set()
    if nested:
        assert state["log"] == ["in", "in", "a", "b"]
    else:
        assert state["log"] == ["in", "a", "b"]
    asked = ["thread", "conflicts", "first", "--target", router.target, "--tenant", tenant]
    said = subprocess.run(
        [sys.executable, "-m", "checkpoint_router.cli", *asked, "--check"],
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS_MAX,
        check=False,
    )
    assert said.returncode == 0, said.stdout + said.stderr
