"""A watchable proof that an agent's run outlives the agent and the router: `make demo`.

Everything shown is real: a router process on SQLite, or on a server that the demo starts, agent
processes that run a LangGraph graph, and SIGKILL. Only the chat model is scripted, so no key is
needed. The demo ends with a table of what it claimed and whether that was so; exit code 0 if all
of it was, 1 if a claim was false, 2 if something that it waited for did not come, 130 after
Ctrl-C.

Owner: this process owns the router, the agents and a temporary directory, and ends or removes them
on every way out.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

from rich.console import Console

import scenes
from claims import Claims
from connect import STORAGES, open_router, open_saver
from evidence import Demo
from processes import Agents, GaveUp
from views import Screen

PAUSE_SECONDS = 4.0


def main() -> int:
    """Run the demo; gives the exit code."""
    options = parse()
    screen = Screen(Console(), pause=0.0 if options.fast else PAUSE_SECONDS)
    # These leave by the same door as Ctrl-C, so that the children are ended there too.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)
    began, claims = time.monotonic(), Claims()
    try:
        with ExitStack() as stack:
            play(stack, screen, claims, options.storage)
    except GaveUp as error:
        screen.say(f"\n[bold red]The demo gave up:[/] {error}")
        return 2
    except KeyboardInterrupt:
        screen.say("\nStopped. The router and the agents have been ended.")
        return 130
    screen.say(f"{time.monotonic() - began:.0f} s. All processes have been ended.")
    return 0 if claims.all_hold else 1


def play(stack: ExitStack, screen: Screen, claims: Claims, storage: str) -> None:
    """Open everything in the order in which it has to be closed again, and play the scenes."""
    directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="router-demo-")))
    router = stack.enter_context(open_router(directory, storage))
    agents = stack.enter_context(Agents(target=router.target, directory=directory))
    saver = stack.enter_context(open_saver(router.target))
    stack.callback(finish_undisturbed)
    demo = Demo(
        screen=screen,
        claims=claims,
        directory=directory,
        router=router,
        agents=agents,
        saver=saver,
    )
    lisbon, oslo = scenes.two_agents_start(demo)
    screen.rest()
    scenes.both_are_killed(demo, lisbon, oslo)
    screen.rest()
    scenes.both_start_again(demo, oslo)
    screen.rest()
    for scene in (scenes.people_answer, scenes.history, scenes.time_travel, scenes.thread_show):
        scene(demo)
        screen.rest()
    screen.scene("The verdict")
    screen.show(claims.table())


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Kill an agent and a router; lose nothing.")
    parser.add_argument("--storage", choices=STORAGES, default="sqlite", help="under the router")
    parser.add_argument("--fast", action="store_true", help="no pauses for reading")
    return parser.parse_args()


def finish_undisturbed() -> None:
    """An impatient second Ctrl-C must not leave half of the children behind."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def leave(signum: int, frame: FrameType | None) -> None:
    """A signal handler that ends the demo the orderly way."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
