"""`checkpoint-router serve`: a router in the foreground, until SIGTERM or SIGINT."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from checkpoint_router.cli.exits import about_a_storage
from checkpoint_router.cli.options import Config, Listen, Storage


def serve(
    listen: Listen = None,
    storage: Storage = None,
    config: Config = None,
    log_format: Annotated[
        str | None, typer.Option(metavar="FORMAT", help="json, console, or auto (the default).")
    ] = None,
    log_level: Annotated[
        str | None, typer.Option(metavar="LEVEL", help="debug, info (the default), warning, error.")
    ] = None,
    drain_seconds: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="From SIGTERM to the end; 5.")
    ] = None,
    stream_stall_seconds: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="How long a client may leave an answer unread."),
    ] = None,
    bytes_in_flight_max: Annotated[
        int | None,
        typer.Option(metavar="BYTES", help="Of requests worked on, and of answers not read yet."),
    ] = None,
    reflection: Annotated[
        bool | None,
        typer.Option(help="Whether grpcurl may ask for the services.", show_default=False),
    ] = None,
) -> None:
    """Run a router. When it answers, it prints `listening on HOST:PORT`; logs go to stderr.

    Each option can also be set as CHECKPOINT_ROUTER_NAME in the environment, or in the TOML file
    that --config names. Flags win over the environment, and the environment over the file.

    \b
    Examples:
      checkpoint-router serve --storage sqlite:/var/lib/checkpoint-router
      checkpoint-router serve --storage memory: --listen 127.0.0.1:0
      checkpoint-router serve --config router.toml
    """
    # Every option but --config is a setting of the same name.
    flags = {name: value for name, value in locals().items() if name != "config"}
    run_router(flags, file=config)


def run_router(
    flags: Mapping[str, Any],
    announce: Callable[[str], None] | None = None,
    *,
    file: Path | None = None,
    environ: Mapping[str, str] = os.environ,
) -> None:
    """Runs a router to its end. `announce` learns its address instead of standard output."""
    # Not above: the other commands need no server, and their users wait for every import.
    from checkpoint_router.server.serve import run
    from checkpoint_router.server.settings import load

    settings = load(flags, environ=environ, file=file).settings
    with about_a_storage():
        run(settings, *([announce] if announce else []))
