"""Looks at a storage that no router runs on, for `checkpoint-router doctor`.

Rules: nothing is changed; a backend is imported only when a URL names it.
"""

from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Final

from checkpoint_router.core.errors import InvalidArgument
from checkpoint_router.storage.finding import Finding, Verdict

__all__ = ["Finding", "Verdict", "diagnose"]

_SCHEMES: Final[Mapping[str, str]] = {"sqlite": "checkpoint_router.backends.sqlite.diagnosis"}


def diagnose(url: str, *, deep: bool) -> Iterator[Finding]:
    """What is found at `url`, as it is found; `deep` reads every record. Raises InvalidArgument."""
    scheme, colon, rest = url.partition(":")
    if colon and scheme in _SCHEMES:
        look: Callable[[str, bool], Iterator[Finding]] = import_module(_SCHEMES[scheme]).diagnose
        yield from look(rest, deep)
    elif url == "memory:":
        yield Finding(
            what="storage",
            verdict=Verdict.NOTE,
            text="memory: lives inside its router. Ask that with --target router://HOST:PORT.",
        )
    else:
        raise InvalidArgument(
            f"no storage is called {url!r}. Give sqlite:DIRECTORY.", field="storage"
        )
