"""From a storage URL to a storage that is not open yet.

A backend is imported when a URL names it, so a router needs the driver of its own engine only,
and this floor knows the backends by name, not by import.
"""

import re
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Final

from checkpoint_router.core.errors import Refused, UnknownStorage
from checkpoint_router.storage.port import Storage

SCHEMES: Final[Mapping[str, tuple[str, str]]] = {
    "memory": (
        "checkpoint_router.storage.memory:from_url",
        "memory:  (ends with the process; for tests)",
    ),
    "sqlite": ("checkpoint_router.backends.sqlite:from_url", "sqlite:DIRECTORY"),
    "redis": ("checkpoint_router.backends.redis:from_url", "redis://HOST:PORT/DB"),
    "rediss": ("checkpoint_router.backends.redis:from_tls_url", "rediss://HOST:PORT/DB  (TLS)"),
    "cassandra": (
        "checkpoint_router.backends.cassandra:from_url",
        "cassandra://HOST,HOST:PORT/KEYSPACE?dc=DATACENTRE",
    ),
}
"""Scheme to the callable that makes the storage from what follows the colon, and to a usage."""


def shown(url: str) -> str:
    """`url` as anybody may see it: without a password."""
    return re.sub(r"(//[^/?#]*?):[^/?#]*@", r"\1:…@", url)


def storage_from_url(url: str) -> Storage:
    """The storage that `url` names.

    Raises UnknownStorage, InvalidArgument for a bad rest, Refused if its driver is not installed.
    """
    scheme, colon, rest = url.partition(":")
    if not colon or scheme not in SCHEMES:
        known = "; ".join(usage for _, usage in SCHEMES.values())
        raise UnknownStorage(
            f"no storage is called {shown(url)!r}. Known are: {known}.",
            field="storage",
            url=shown(url),
        )
    make: Callable[[str], Storage] = of_backend(scheme, SCHEMES[scheme][0])
    return make(rest)


def of_backend(scheme: str, place: str) -> Any:
    """What stands at `place`, as MODULE:NAME, in the backend of a scheme. Raises Refused, naming
    the extra, if the driver is not installed."""
    module, _, name = place.partition(":")
    try:
        return getattr(import_module(module), name)
    except ModuleNotFoundError as e:
        if (e.name or "").startswith("checkpoint_router"):
            raise
        extra = module.split(".")[2]
        raise Refused(
            f"a storage {scheme}: needs the Python package {e.name!r}, which is not installed. "
            f"Install the extra: pip install '.[server,{extra}]' in the source."
        ) from None
