"""One agent that answers an interrupt: `python -m tests.probe.resume TARGET HALF ANSWER DIRECTORY`.

Its node goes on only when as many agents stand there as DIRECTORY/agents says, so that each of
them has read the thread before any of them has finished.
"""

import asyncio
import operator
import sys
import time
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt

from checkpoint_router import RouterSaver

THREAD: Any = {"configurable": {"thread_id": "contested"}}
WAIT_SECONDS_MAX = 60


class State(TypedDict):
    """What the graph keeps."""

    said: Annotated[list[str], operator.add]


def graph_of(saver: Any, directory: Path | None = None) -> Any:
    """A graph that asks, acts on the answer, and ends."""

    def ask(state: State) -> dict[str, list[str]]:
        answer = interrupt("go on?")
        if directory is not None:
            meet(directory, str(answer))
        return {"said": [f"asked: {answer}"]}

    def act(state: State) -> dict[str, list[str]]:
        return {"said": [f"acted on {state['said'][-1]}"]}

    builder = StateGraph(State)
    builder.add_node("ask", ask)
    builder.add_node("act", act)
    builder.add_edge(START, "ask")
    builder.add_edge("ask", "act")
    builder.add_edge("act", END)
    return builder.compile(checkpointer=saver)


def meet(directory: Path, name: str) -> None:
    """Waits for the others."""
    (directory / f"here-{name}").touch()
    expected = int((directory / "agents").read_text())
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while len(list(directory.glob("here-*"))) < expected:
        if time.monotonic() > deadline:
            raise TimeoutError("the other agents did not come")
        time.sleep(0.01)  # between two looks at the directory


def main() -> None:
    target, half, answer, directory = sys.argv[1:]
    with RouterSaver(target, tenant="acme") as saver:
        graph = graph_of(saver, Path(directory))
        if half == "sync":
            graph.invoke(Command(resume=answer), THREAD)
        else:
            asyncio.run(graph.ainvoke(Command(resume=answer), THREAD))


if __name__ == "__main__":
    main()
