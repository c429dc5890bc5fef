"""Options that several commands share, so that each is spelt, checked and explained once."""

from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Annotated, Final

import typer

from checkpoint_router.cli.console import Output
from checkpoint_router.cli.link import Link
from checkpoint_router.client.target import Target as Address
from checkpoint_router.core.errors import RouterError
from checkpoint_router.core.ids import checked_tenant

TARGET_DEFAULT: Final = "router://127.0.0.1:7070"
TENANT_DEFAULT: Final = "default"
TIMEOUT_SECONDS_DEFAULT: Final = 10.0
COMPLETION_SECONDS: Final = 0.5
"""How long a shell may hang on the tab key."""
COMPLETIONS_MAX: Final = 50

Target = Annotated[
    str,
    typer.Option(
        metavar="router://HOST:PORT",
        envvar="CHECKPOINT_ROUTER_TARGET",
        help="The router to ask; several, separated by commas, are tried in turn.",
    ),
]
Tenant = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        envvar="CHECKPOINT_ROUTER_TENANT",
        help="Whose threads: what the target's ?tenant= says if it is not given, else 'default'.",
        show_default=False,
    ),
]
Timeout = Annotated[
    float, typer.Option(metavar="SECONDS", min=0.1, max=600, help="How long one call may take.")
]
Format = Annotated[
    Output,
    typer.Option(
        "--output",
        "-o",
        envvar="CHECKPOINT_ROUTER_OUTPUT",
        help="A table for people, or JSON for programs.",
    ),
]

Listen = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT",
        help="Where to answer; 127.0.0.1:7070 if nothing says otherwise. Port 0: a free one.",
    ),
]
Storage = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Where checkpoints are kept: sqlite:DIRECTORY, redis://HOST:PORT/DB or memory:.",
    ),
]
Config = Annotated[
    Path | None,
    typer.Option(metavar="TOML", help="A file with settings; flags and environment win over it."),
]


def link(target: str, tenant: str | None = None, timeout_seconds: float = 10.0) -> closing[Link]:
    """A link to what the options name. Raises InvalidArgument for a wrong address or tenant."""
    parsed = Address.parse(target)
    return closing(
        Link(
            tuple(map(str, parsed.endpoints)),
            tenant=parsed.tenant or TENANT_DEFAULT if tenant is None else checked_tenant(tenant),
            timeout_seconds=timeout_seconds,
        )
    )


def completed_threads(context: typer.Context, incomplete: str) -> list[str]:
    """Thread ids for a shell that completes a command line; none if no router answers at once."""
    target = context.params.get("target") or TARGET_DEFAULT
    try:
        with link(target, context.params.get("tenant"), COMPLETION_SECONDS) as router:
            names = (found.thread_id for found in router.threads())
            return list(islice((n for n in names if n.startswith(incomplete)), COMPLETIONS_MAX))
    except RouterError:  # a shell that waits for names has nowhere to show it
        return []


ThreadId = Annotated[
    str,
    typer.Argument(metavar="THREAD", help="A thread id.", autocompletion=completed_threads),
]
ThreadIds = Annotated[
    list[str],
    typer.Argument(metavar="THREAD...", help="Thread ids.", autocompletion=completed_threads),
]
