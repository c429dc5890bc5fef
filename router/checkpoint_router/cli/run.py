"""Runs the command line: where an error becomes a message and an exit code."""

import sys

from checkpoint_router.cli import console
from checkpoint_router.cli.app import app
from checkpoint_router.cli.exits import exit_of, next_step
from checkpoint_router.core.errors import RouterError


def run() -> None:
    """Runs one command and ends the process with its exit code."""
    console.prepare()
    try:
        app(prog_name="checkpoint-router")
    except RouterError as error:
        console.complain(error.message, next_step(error))
        sys.exit(exit_of(error))
