"""One agent process: runs or resumes one session until it ends or asks a person, then exits.

    agent.py --target router://127.0.0.1:7070 --thread lisbon --dir DIR ask
    agent.py … resume
    agent.py … answer yes

The last line on stdout is a JSON object with what the run came to. The process keeps nothing: all
it knows of the session comes from the router.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.types import Command

from call_log import CallLog
from connect import open_saver
from trip_graph import Toolbox, Trip, build_graph

BUDGET_EUR = 500


def main() -> None:
    """Parse the command line, run, and print what came of it."""
    options = parse()
    run = asyncio.run(run_async(options)) if options.asynchronous else run_sync(options)
    sys.stdout.write(json.dumps(run) + "\n")


def parse() -> argparse.Namespace:
    """The command line of one agent process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", required=True, help="where the router listens")
    parser.add_argument("--thread", required=True, help="the session, LangGraph's thread_id")
    parser.add_argument("--dir", required=True, type=Path, help="holds call log and hotel answer")
    parser.add_argument("--async", dest="asynchronous", action="store_true")
    what = parser.add_subparsers(dest="what", required=True)
    what.add_parser("ask")
    what.add_parser("resume")
    what.add_parser("answer").add_argument("answer", choices=["yes", "no"])
    return parser.parse_args()


def run_sync(options: argparse.Namespace) -> dict[str, Any]:
    """The sync half of the saver: `graph.invoke`."""
    with open_saver(options.target) as saver:
        graph = build_graph(toolbox_of(options.dir, options.thread), saver)
        return outcome(graph.invoke(what_to_do(options), config_of(options.thread)))


async def run_async(options: argparse.Namespace) -> dict[str, Any]:
    """The async half of the same saver: `graph.ainvoke`."""
    async with open_saver(options.target) as saver:
        graph = build_graph(toolbox_of(options.dir, options.thread), saver)
        return outcome(await graph.ainvoke(what_to_do(options), config_of(options.thread)))


def toolbox_of(directory: Path, thread: str) -> Toolbox:
    """The tools of a session; the demo itself uses it too, to read the log and to answer."""
    return Toolbox(
        log=CallLog(path=directory / f"{thread}.calls"),
        hotels_answer=directory / f"{thread}.hotels",
    )


def config_of(thread: str) -> RunnableConfig:
    """The LangGraph config that names a session."""
    return {"configurable": {"thread_id": thread}}


def what_to_do(options: argparse.Namespace) -> Trip | Command[Any] | None:
    """The input of the run: a new question, nothing (go on), or a person's answer."""
    if options.what == "ask":
        city = options.thread.capitalize()
        question = HumanMessage(content=f"Plan a weekend in {city}, at most {BUDGET_EUR} EUR.")
        return Trip(messages=[question], city=city, budget_eur=BUDGET_EUR)
    if options.what == "answer":
        return Command(resume=options.answer)
    return None


def outcome(result: dict[str, Any]) -> dict[str, Any]:
    """What the run came to, in a form that fits on one line."""
    questions = [pause.value for pause in result.get("__interrupt__", ())]
    said = str(result["messages"][-1].content)
    return {"end": "asks" if questions else "done", "asks": questions, "said": said}


if __name__ == "__main__":
    main()
