"""LangGraph checkpoints over many databases: the saver for agents, and the router behind it."""

from typing import TYPE_CHECKING

__version__ = "0.1.0"

__all__ = ["RouterSaver", "__version__"]

if TYPE_CHECKING:
    from checkpoint_router.client.saver import RouterSaver


def __getattr__(name: str) -> object:
    # Imported on first use: the router process must never import LangGraph, nor the saver.
    if name == "RouterSaver":
        from checkpoint_router.client.saver import RouterSaver

        return RouterSaver
    raise AttributeError(name)
