"""The agent graphs that are run on each saver. Their nodes cost next to nothing."""

from __future__ import annotations

import operator
from typing import Annotated, Any, Final, TypedDict

from langchain_core.messages import AnyMessage
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Send

from benchmarks.values import Saver, message

SUPERSTEPS: Final = 6
PARALLEL_TASKS: Final = 50


class Talk(TypedDict, total=False):
    """The state of an agent that says something in each superstep."""

    messages: Annotated[list[AnyMessage], add_messages]
    count: int


class Fan(TypedDict, total=False):
    """The state of an agent that does many things at once."""

    results: Annotated[list[str], operator.add]
    index: int


def talking_agent(saver: Saver) -> Any:
    """Six nodes one after another, each adds a message of 512 B."""
    graph = StateGraph(Talk)
    names = [f"node{index}" for index in range(SUPERSTEPS)]

    async def speak(state: Talk) -> Talk:
        count = state.get("count", 0)
        return {"messages": [message(count)], "count": count + 1}

    for name in names:
        graph.add_node(name, speak)
    for name, following in zip([START, *names], [*names, END], strict=True):
        graph.add_edge(name, following)
    return graph.compile(checkpointer=saver)


def fanning_agent(saver: Saver) -> Any:
    """One superstep of 50 tasks; each finished task is one `put_writes`."""
    graph = StateGraph(Fan)

    async def task(state: Fan) -> Fan:
        return {"results": [f"result {state['index']}"]}

    def spread(state: Fan) -> list[Send]:
        return [Send("task", {"index": index}) for index in range(PARALLEL_TASKS)]

    graph.add_node("task", task)
    graph.add_conditional_edges(START, spread, ["task"])
    graph.add_edge("task", END)
    return graph.compile(checkpointer=saver)


def run_config(thread: str) -> dict[str, Any]:
    """Names the thread of a run."""
    return {"configurable": {"thread_id": thread}}
