"""Looks at a storage without a router, for `checkpoint-router doctor` and `shard check`.

Rule: a backend is imported only when a URL names it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

from checkpoint_router.core.errors import InvalidArgument
from checkpoint_router.storage.finding import Finding, Verdict
from checkpoint_router.storage.open import of_backend, shown
from checkpoint_router.storage.scrub import Fault, Kind, Report, Shard, scrub

__all__ = ["Fault", "Finding", "Kind", "Report", "Verdict", "check", "diagnose"]

_SCHEMES: Final[Mapping[str, tuple[str, str]]] = {
    "sqlite": ("sqlite.diagnosis:diagnose", "sqlite.check:opened"),
    "redis": ("redis.diagnosis:diagnose", "redis.check:opened"),
    "rediss": ("redis.diagnosis:diagnose_tls", "redis.check:opened_tls"),
    "cassandra": ("cassandra.diagnosis:diagnose", "cassandra.check:opened"),
}
"""What looks at it, and what opens it to be looked through."""


def diagnose(url: str) -> Iterator[Finding]:
    """What is found at `url`, as it is found. Changes nothing. Raises InvalidArgument."""
    if url == "memory:":
        yield Finding(
            what="storage",
            verdict=Verdict.NOTE,
            text="memory: lives inside its router. Ask that with --target router://HOST:PORT.",
        )
        return
    looks, rest = _of(url, 0)
    found: Iterable[Finding] = looks(rest)
    yield from found


async def check(
    url: str,
    *,
    repair: bool,
    begin: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """All that is stored at `url`, or what comes after the cursor `begin`, read and verified.
    `repair` makes indexes anew; records are never changed. Raises InvalidArgument, Refused,
    Unavailable; where a part was read by then, and where this task is cancelled, see `scrub`."""
    opens, rest = _of(url, 1)
    opened: AbstractAsyncContextManager[Shard] = opens(rest, repair=repair)
    async with opened as shard:
        return await scrub(shard, begin=begin, repair=repair, progress=progress)


def _of(url: str, which: int) -> tuple[Callable[..., Any], str]:
    scheme, colon, rest = url.partition(":")
    if url == "memory:":
        raise InvalidArgument("what is in memory: ends with its router.", field="storage")
    if not colon or scheme not in _SCHEMES:
        raise InvalidArgument(
            f"no storage is called {shown(url)!r}. Give sqlite:DIRECTORY, "
            f"redis://HOST:PORT/DB or cassandra://HOST,HOST:PORT/KEYSPACE?dc=DATACENTRE.",
            field="storage",
        )
    place = f"checkpoint_router.backends.{_SCHEMES[scheme][which]}"
    return of_backend(scheme, place), rest
