"""`checkpoint-router dev`: a router to try things with, and the line that connects an agent to it.

Rules: what it made it removes again, and it says so first; a port that somebody asked for is used
or refused, the usual one only if it is free.
"""

import shutil
import signal
import socket
import tempfile
from typing import Annotated, Final

import typer

from checkpoint_router.cli import console
from checkpoint_router.cli.options import Listen
from checkpoint_router.cli.serve import run_router
from checkpoint_router.storage.open import shown

HOST: Final = "127.0.0.1"
PORT: Final = 7070


def dev(
    storage: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Where checkpoints are kept: sqlite:DIRECTORY to have them next time, or memory:."
            " A temporary directory if it is not given.",
        ),
    ] = None,
    listen: Listen = None,
) -> None:
    """Run a router to try things with, and print the line to paste into an agent.

    Without --storage everything is kept in a temporary directory, which is removed at the end.
    Without --listen it is 127.0.0.1:7070, or a free port if that one is taken. Ctrl-C ends it.
    No setting is taken from the environment.

    \b
    Examples:
      checkpoint-router dev
      checkpoint-router dev --storage sqlite:./checkpoints
    """
    # What was made is removed on these too, also while the router has no way to end yet.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))
    flags = {"listen": listen or _address(), "log_level": "warning"}
    if storage is not None:
        run_router(
            {**flags, "storage": storage}, lambda at: _explain(at, shown(storage)), environ={}
        )
        console.say("The router has ended.")
        return
    directory = tempfile.mkdtemp(prefix="checkpoint-router-dev-")
    kept = f"sqlite:{directory}"
    said = f"{kept} (temporary, removed at the end; keep it with --storage sqlite:DIRECTORY)"
    try:
        run_router({**flags, "storage": kept}, lambda at: _explain(at, said), environ={})
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    console.say("The router has ended, and its storage is removed.")


def _explain(address: str, storage: str) -> None:
    """The one line that is to be pasted goes to standard output, all else beside it."""
    console.say(f"A router answers on {address}.")
    console.say(f"Storage: {storage}")
    console.say("In the agent, which needs this package too (`pip install .` in its source):")
    console.say("    from checkpoint_router import RouterSaver")
    console.line(f'checkpointer = RouterSaver("router://{address}")')
    console.say("Compile the graph with checkpointer=checkpointer. Then, in another terminal:")
    target = "" if address == f"{HOST}:{PORT}" else f" --target router://{address}"
    console.say(f"    checkpoint-router thread list{target}")
    console.say("Ctrl-C ends it.")


def _address() -> str:
    """The usual address, or one with a free port."""
    with socket.socket() as probe:
        # As servers bind: a port whose last user has just gone is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, PORT))
        except OSError:
            console.say(f"Port {PORT} is taken, so a free one is used.")
            return f"{HOST}:0"
    return f"{HOST}:{PORT}"
