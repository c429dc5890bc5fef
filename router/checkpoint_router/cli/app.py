"""The command line put together: one file per noun."""

import typer

from checkpoint_router.cli import config, thread
from checkpoint_router.cli.dev import dev
from checkpoint_router.cli.doctor import doctor
from checkpoint_router.cli.serve import serve
from checkpoint_router.cli.version import show_version

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


@app.callback()
def root() -> None:
    """A router for LangGraph checkpoints: run one, and look at the threads in it."""


app.command("serve")(serve)
app.command("dev")(dev)
app.add_typer(thread.app, name="thread", help="Look at threads, and delete them.")
app.add_typer(config.app, name="config", help="Look at the settings of a router.")
app.command("doctor")(doctor)
app.command("version")(show_version)
