"""Looks at a storage that no router runs on, for `checkpoint-router doctor`.

Rules: nothing is changed; a backend is imported only when a URL names it.
"""

from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Final

from checkpoint_router.core.errors import InvalidArgument
from checkpoint_router.storage.finding import Finding, Verdict
from checkpoint_router.storage.open import shown

__all__ = ["Finding", "Verdict", "diagnose"]

_SCHEMES: Final[Mapping[str, str]] = {
    "sqlite": "checkpoint_router.backends.sqlite.diagnosis:diagnose",
    "redis": "checkpoint_router.backends.redis.diagnosis:diagnose",
    "rediss": "checkpoint_router.backends.redis.diagnosis:diagnose_tls",
    "cassandra": "checkpoint_router.backends.cassandra.diagnosis:diagnose",
}


def diagnose(url: str, *, deep: bool) -> Iterator[Finding]:
    """What is found at `url`, as it is found; `deep` reads every record. Raises InvalidArgument."""
    scheme, colon, rest = url.partition(":")
    if colon and scheme in _SCHEMES:
        module, _, name = _SCHEMES[scheme].partition(":")
        look: Callable[[str, bool], Iterator[Finding]] = getattr(import_module(module), name)
        yield from look(rest, deep)
    elif url == "memory:":
        yield Finding(
            what="storage",
            verdict=Verdict.NOTE,
            text="memory: lives inside its router. Ask that with --target router://HOST:PORT.",
        )
    else:
        raise InvalidArgument(
            f"no storage is called {shown(url)!r}. Give sqlite:DIRECTORY, "
            f"redis://HOST:PORT/DB or cassandra://HOST,HOST:PORT/KEYSPACE?dc=DATACENTRE.",
            field="storage",
        )
