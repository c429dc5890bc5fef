"""The command line put together: one file per noun, and how each command ends."""

import platform
import sys
from importlib.metadata import PackageNotFoundError, version

import typer

from checkpoint_router import __version__
from checkpoint_router.cli import config, console, shard, thread
from checkpoint_router.cli.console import Output
from checkpoint_router.cli.dev import dev
from checkpoint_router.cli.doctor import doctor
from checkpoint_router.cli.exits import exit_of, next_step
from checkpoint_router.cli.options import Format
from checkpoint_router.cli.serve import serve
from checkpoint_router.core.errors import RouterError
from checkpoint_router.wire.admin import PROTOCOL

app = typer.Typer(
    name="checkpoint-router",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    epilog="""\b
Examples:
  checkpoint-router dev
  checkpoint-router serve --storage sqlite:/var/lib/checkpoint-router
  checkpoint-router thread show trip-42

\b
Exit codes: 0 done, 1 ran and the answer is no, 2 wrong usage, 3 no router answered,
4 refused, 5 partly done. Data goes to standard output, all else to standard error.""",
)
app.command()(serve)
app.command()(dev)
app.add_typer(thread.app, name="thread", help="Look at threads, and delete them.")
app.add_typer(shard.app, name="shard", help="Look through a whole storage, and mend its indexes.")
app.add_typer(config.app, name="config", help="Look at the settings of a router.")
app.command()(doctor)


@app.callback()
def root() -> None:
    """A router for LangGraph checkpoints: run one, and look at the threads in it."""


@app.command("version")
def show_version(output: Format = Output.TABLE) -> None:
    """Say which version this is, and what stands beside it. A bug report wants all of it.

    \b
    Examples:
      checkpoint-router version
      checkpoint-router version --output json
    """
    packages: dict[str, str | None] = {}
    for name in ("grpcio", "protobuf", "langgraph-checkpoint", "langgraph"):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = None
    known = {"protocol": PROTOCOL, "python": platform.python_version()}
    if output is Output.JSON:
        console.document("version", {"version": __version__, **known, "packages": packages})
        return
    console.line(f"checkpoint-router {__version__}")
    for name, found in {**known, **packages}.items():
        console.line(f"{name} {found or 'not installed'}")


def run() -> None:
    """Runs one command and ends the process with its exit code."""
    console.prepare()
    try:
        app(prog_name="checkpoint-router")
    except RouterError as error:
        console.complain(error.message, next_step(error))
        sys.exit(exit_of(error))
