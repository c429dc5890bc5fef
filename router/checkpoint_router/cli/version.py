"""`checkpoint-router version`."""

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from checkpoint_router import __version__
from checkpoint_router.cli import console
from checkpoint_router.cli.console import Output
from checkpoint_router.cli.options import Format
from checkpoint_router.wire.admin import PROTOCOL

_BESIDE: Final = ("grpcio", "protobuf", "langgraph-checkpoint", "langgraph")


def show_version(output: Format = Output.TABLE) -> None:
    """Say which version this is, and what stands beside it. A bug report wants all of it.

    \b
    Examples:
      checkpoint-router version
      checkpoint-router version --output json
    """
    beside = {name: _version_of(name) for name in _BESIDE}
    if output is Output.JSON:
        body = {
            "version": __version__,
            "protocol": PROTOCOL,
            "python": platform.python_version(),
            "packages": beside,
        }
        console.document("version", body)
        return
    console.line(f"checkpoint-router {__version__}")
    console.line(f"protocol {PROTOCOL}")
    console.line(f"python {platform.python_version()}")
    for name, found in beside.items():
        console.line(f"{name} {found or 'not installed'}")


def _version_of(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
