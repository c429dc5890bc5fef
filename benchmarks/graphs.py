"""The agent graphs that are run on each saver. Their nodes cost next to nothing.

Rules: a node is a plain function or a coroutine, as the peer's saver is: LangGraph would hand a
plain one that an asynchronous run meets to a worker, and time that.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final, TypedDict

from langchain_core.messages import AnyMessage
from langgraph.channels import DeltaChannel
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Send

from benchmarks.peers import Peer
from benchmarks.values import message

SUPERSTEPS: Final = 6
PARALLEL_TASKS: Final = 50


def _joined(state: list[AnyMessage], writes: Sequence[list[AnyMessage]]) -> list[AnyMessage]:
    return [*state, *(each for write in writes for each in write)]


class Talk(TypedDict, total=False):
    """The state of an agent that says something in each superstep."""

    messages: Annotated[list[AnyMessage], add_messages]
    count: int


class Chat(TypedDict, total=False):
    """The state of a conversation."""

    messages: Annotated[list[AnyMessage], operator.add]


class DeltaChat(TypedDict, total=False):
    """The same, of which LangGraph stores each step's addition and now and then a whole value."""

    messages: Annotated[list[AnyMessage], DeltaChannel(_joined)]


class Fan(TypedDict, total=False):
    """The state of an agent that does many things at once."""

    results: Annotated[list[str], operator.add]
    index: int


def talking_agent(peer: Peer, client: int) -> Any:
    """Six nodes one after another, each adds a message of 512 B."""
    graph = StateGraph(Talk)
    names = [f"node{index}" for index in range(SUPERSTEPS)]

    def speak(state: Talk) -> Talk:
        count = state.get("count", 0)
        return {"messages": [message(count)], "count": count + 1}

    for name in names:
        graph.add_node(name, _node(peer, speak))
    for name, following in zip([START, *names], [*names, END], strict=True):
        graph.add_edge(name, following)
    return graph.compile(checkpointer=peer.savers(client))


def chatting_agent(peer: Peer) -> Any:
    """One node that answers each message with another of 512 B."""

    def answer(state: Chat) -> Chat:
        return {"messages": [message(len(state["messages"]))]}

    graph = StateGraph(DeltaChat if peer.delta else Chat)
    graph.add_node("agent", _node(peer, answer))
    graph.add_edge(START, "agent")
    graph.add_edge("agent", END)
    return graph.compile(checkpointer=peer.savers(0))


def fanning_agent(peer: Peer) -> Any:
    """One superstep of 50 tasks; each finished task is one `put_writes`."""
    graph = StateGraph(Fan)

    def task(state: Fan) -> Fan:
        return {"results": [f"result {state['index']}"]}

    def spread(state: Fan) -> list[Send]:
        return [Send("task", {"index": index}) for index in range(PARALLEL_TASKS)]

    graph.add_node("task", _node(peer, task))
    graph.add_conditional_edges(START, spread, ["task"])
    graph.add_edge("task", END)
    return graph.compile(checkpointer=peer.savers(0))


def _node(peer: Peer, plain: Callable[[Any], Any]) -> Any:
    if peer.blocking:
        return plain

    async def node(state: Any) -> Any:
        return plain(state)

    return node


def run_config(thread: str) -> dict[str, Any]:
    """Names the thread of a run."""
    return {"configurable": {"thread_id": thread}}
