"""`checkpoint-router dev`: a router to try things with, and the line that connects an agent to it.

Rules: what it made it removes again, and it says so first; a port that somebody asked for is used
or refused, the usual one only if it is free.
"""

import asyncio
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from checkpoint_router.cli import console
from checkpoint_router.cli.options import Listen
from checkpoint_router.core.errors import Refused, Unavailable

if TYPE_CHECKING:
    from checkpoint_router.server.settings import Settings

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
    Nothing is taken from the environment.

    \b
    Examples:
      checkpoint-router dev
      checkpoint-router dev --storage sqlite:./checkpoints
    """
    from checkpoint_router.server.settings import load

    for number in (signal.SIGTERM, signal.SIGHUP):
        # Until the router has its own way to end: what was made is removed on these too.
        signal.signal(number, signal.default_int_handler)
    with _storage(storage) as url:
        flags = {"storage": url, "listen": listen or _address(), "log_level": "warning"}
        loaded = load(flags, environ={})
        try:
            asyncio.run(_run(loaded.settings, storage is None))
        except Unavailable as e:
            raise Refused(e.message, **e.attributes) from None


async def _run(settings: "Settings", temporary: bool) -> None:
    # Not above: the other commands need no server, and their users wait for every import.
    from checkpoint_router.server.serve import start, stop
    from checkpoint_router.telemetry import logging

    logging.configure(settings.log_format, settings.log_level)
    ending = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, ending.set)
    running = await start(settings)
    try:
        kept = "temporary, removed at the end; keep it with --storage sqlite:DIRECTORY"
        console.say(f"A router answers on {running.address}.")
        console.say(f"Storage: {settings.storage}" + (f" ({kept})" if temporary else ""))
        console.say("In the agent, which needs this package too (`pip install .` in its source):")
        console.say("    from checkpoint_router import RouterSaver")
        console.line(f'checkpointer = RouterSaver("router://{running.address}")')
        console.say("Compile the graph with checkpointer=checkpointer. Then, in another terminal:")
        usual = running.address == f"{HOST}:{PORT}"
        target = "" if usual else f" --target router://{running.address}"
        console.say(f"    checkpoint-router thread list{target}")
        console.say("Ctrl-C ends it.")
        await ending.wait()
    finally:
        await stop(running, settings.drain_seconds)
    console.say("The router has ended" + (", and its storage is removed." if temporary else "."))


@contextmanager
def _storage(given: str | None) -> Iterator[str]:
    if given is not None:
        yield given
        return
    directory = Path(tempfile.mkdtemp(prefix="checkpoint-router-dev-"))
    try:
        yield f"sqlite:{directory}"
    finally:
        shutil.rmtree(directory, ignore_errors=True)


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
