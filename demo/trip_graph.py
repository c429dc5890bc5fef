"""The agent of the demo: a LangGraph graph that plans and books a trip.

    think ─┬─ use_tool (one task for each tool the model asked for, in parallel) ─ think ─┐
           └─ check_budget (a graph of its own) ─┬─ approve (asks a person) ─ book ─┬─ report
                                                 └──────────────────────────────────┘

Rules: every tool writes itself down in the call log. `search_hotels` waits for the answer of a
slow hotel service, which the demo plays: the answer is there when the file `hotels_answer` exists.
Nothing here knows which checkpointer is used.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, TypedDict

from langchain_core.messages import AIMessage, AnyMessage, ToolMessage
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command, Send, interrupt

from call_log import CallLog
from script_model import Line, ScriptModel

HOTELS_ANSWER_SECONDS_MAX: Final = 120.0
"""How long `search_hotels` waits. Shorter: it gives up while a slow machine restarts the router.
Longer: an agent whose demo died keeps running."""

SEARCHES: Final = ("search_flights", "search_weather", "search_hotels")
PRICES_EUR: Final = {"search_flights": 180, "search_hotels": 232}


class Trip(TypedDict, total=False):
    """The state of the graph."""

    messages: Annotated[list[AnyMessage], add_messages]
    city: str
    budget_eur: int
    total_eur: int
    fits: bool


class ToolTask(TypedDict):
    """What one parallel task gets: the call that the model asked for."""

    tool: str
    call_id: str
    city: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Toolbox:
    """The tools with their log and the place where the hotel service answers."""

    log: CallLog
    hotels_answer: Path

    def search(self, tool: str, city: str) -> str:
        """Run one of the three searches and give its result as text."""
        with self.log.around(tool):
            if tool == "search_hotels":
                self._wait_for_hotels()
            if tool == "search_weather":
                return f"weather in {city}: mild and dry"
            return f"{tool.removeprefix('search_')} to {city}: {PRICES_EUR[tool]} EUR"

    def add_up(self) -> int:
        """Add the prices found, in EUR."""
        with self.log.around("add_up"):
            return sum(PRICES_EUR.values())

    def book(self, city: str, total_eur: int) -> str:
        """Book: the call that nobody wants to see twice."""
        with self.log.around("book_trip"):
            return f"booked: {city} for {total_eur} EUR"

    def _wait_for_hotels(self) -> None:
        deadline = time.monotonic() + HOTELS_ANSWER_SECONDS_MAX
        while not self.hotels_answer.exists():
            if time.monotonic() > deadline:
                raise TimeoutError(f"the hotel service did not answer at {self.hotels_answer}")
            time.sleep(0.01)


MODEL: Final = ScriptModel(
    script=(
        Line(hears="Plan a weekend", says="I look around.", calls=SEARCHES),
        Line(hears=" to ", says="I found everything; let me check the budget."),
        Line(hears="weather in", says="I found everything; let me check the budget."),
        Line(hears="booked:", says="Done, your trip is booked. Have a good time!"),
        Line(hears="over budget", says="That is more than you want to spend. I booked nothing."),
        Line(hears="declined", says="As you wish. I booked nothing."),
    )
)


def build_graph(
    toolbox: Toolbox, saver: BaseCheckpointSaver[Any]
) -> CompiledStateGraph[Trip, None, Trip, Trip]:
    """Compile the agent with its checkpointer."""
    graph = StateGraph(Trip)
    graph.add_node("think", think)
    graph.add_node("use_tool", _use_tool(toolbox))
    graph.add_node("check_budget", build_budget_graph(toolbox))
    graph.add_node("approve", approve, destinations=("book", "report"))
    graph.add_node("book", _book(toolbox))
    graph.add_node("report", think)
    graph.add_edge(START, "think")
    graph.add_conditional_edges("think", after_think, ["use_tool", "check_budget"])
    graph.add_edge("use_tool", "think")
    graph.add_conditional_edges("check_budget", after_budget, ["approve", "report"])
    graph.add_edge("book", "report")
    graph.add_edge("report", END)
    return graph.compile(checkpointer=saver)


def build_budget_graph(toolbox: Toolbox) -> CompiledStateGraph[Trip, None, Trip, Trip]:
    """The nested graph: its checkpoints stand in a namespace of their own."""

    def add_up(state: Trip) -> Trip:
        return {"total_eur": toolbox.add_up()}

    def compare(state: Trip) -> Trip:
        fits = state["total_eur"] <= state["budget_eur"]
        word = "within" if fits else "over"
        text = f"{state['total_eur']} EUR is {word} budget ({state['budget_eur']} EUR)"
        return {"fits": fits, "messages": [AIMessage(content=text)]}

    graph = StateGraph(Trip)
    graph.add_node("add_up", add_up)
    graph.add_node("compare", compare)
    graph.add_edge(START, "add_up")
    graph.add_edge("add_up", "compare")
    graph.add_edge("compare", END)
    return graph.compile()


def think(state: Trip) -> Trip:
    """Ask the model."""
    return {"messages": [MODEL.invoke(state["messages"])]}


def after_think(state: Trip) -> str | list[Send]:
    """One parallel task for each tool call; none: on to the budget."""
    last = state["messages"][-1]
    if isinstance(last, AIMessage) and last.tool_calls:
        return [
            Send(
                "use_tool",
                ToolTask(tool=call["name"], call_id=str(call["id"]), city=state["city"]),
            )
            for call in last.tool_calls
        ]
    return "check_budget"


def after_budget(state: Trip) -> str:
    """Only a trip that fits is worth asking a person about."""
    return "approve" if state["fits"] else "report"


def approve(state: Trip) -> Command[Any]:
    """Stop the run until a person answers yes or no."""
    answer = interrupt({"question": f"Book {state['city']} for {state['total_eur']} EUR?"})
    if answer == "yes":
        return Command(goto="book")
    text = AIMessage(content=f"declined: the person said {answer!r}")
    return Command(goto="report", update={"messages": [text]})


def _use_tool(toolbox: Toolbox) -> Any:
    def use_tool(task: ToolTask) -> Trip:
        text = toolbox.search(task["tool"], task["city"])
        return {"messages": [ToolMessage(content=text, tool_call_id=task["call_id"])]}

    return use_tool


def _book(toolbox: Toolbox) -> Any:
    def book(state: Trip) -> Trip:
        text = toolbox.book(state["city"], state["total_eur"])
        return {"messages": [AIMessage(content=text)]}

    return book
