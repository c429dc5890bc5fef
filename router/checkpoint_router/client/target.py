"""Where a saver's routers are: the address text that users write, parsed once.

Rules: what is written is checked and never guessed at; a wrong address says what one looks like.
Several addresses are several routers of one system, over the same storage: a saver goes on to the
next when one does not answer. Those of two storages are two memories, and no list for a saver.
"""

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, unquote

from checkpoint_router.core.errors import InvalidArgument
from checkpoint_router.core.ids import checked_tenant

SCHEME: Final = "router"
PORT_DEFAULT: Final = 7070
ENDPOINTS_MAX: Final = 64

_EXAMPLE: Final = (
    "router://127.0.0.1:7070, router://a:7070,b:7070?tenant=acme or router://[::1]:7070"
)
_HOST: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?\.?")
_IPV6: Final = re.compile(r"[0-9A-Fa-f:.]+(%[A-Za-z0-9._-]+)?")


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Endpoint:
    """One address at which a router may answer."""

    host: str
    """A name, an IPv4 address, or an IPv6 address without its brackets."""
    port: int = PORT_DEFAULT

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The routers of one system that a saver may ask, in the order in which it tries them."""

    endpoints: tuple[Endpoint, ...]
    tenant: str | None = None
    """The tenant that the address names; None where it names none."""

    @classmethod
    def parse(cls, text: str) -> "Target":
        """Reads `router://host:port[,host:port…][?tenant=name]`; a port left out is 7070.

        Raises InvalidArgument, which says what is wrong and shows a right one.
        """
        if not isinstance(text, str):
            raise InvalidArgument(
                f"a router's address is text, not {type(text).__name__}. Write {_EXAMPLE}."
            )
        scheme, found, rest = text.strip().partition("://")
        if not found:
            raise _wrong(text, f"it does not begin with {SCHEME}://")
        if scheme.lower() != SCHEME:
            raise _wrong(text, f"its scheme is {scheme!r}, and only {SCHEME!r} is known here")
        hosts, _, query = rest.partition("?")
        hosts = hosts.removesuffix("/")
        for mark, what in (("#", "a fragment"), ("/", "a path"), ("@", "a user")):
            if mark in hosts or (mark == "#" and mark in query):
                raise _wrong(text, f"it has {what}, which a router's address has not")
        return cls(endpoints=_endpoints(text, hosts), tenant=_tenant(text, query))

    def __str__(self) -> str:
        return f"{SCHEME}://{','.join(map(str, self.endpoints))}"


def _endpoints(text: str, hosts: str) -> tuple[Endpoint, ...]:
    if not hosts:
        raise _wrong(text, "it names no host")
    endpoints = tuple(_endpoint(text, part.strip()) for part in hosts.split(","))
    if len(endpoints) > ENDPOINTS_MAX:
        raise _wrong(text, f"it names {len(endpoints)} routers; the limit is {ENDPOINTS_MAX}")
    if len(set(endpoints)) < len(endpoints):
        raise _wrong(text, "it names one router twice")
    return endpoints


def _endpoint(text: str, part: str) -> Endpoint:
    if part.startswith("["):
        host, closed, port = part[1:].partition("]")
        if not closed or (port and not port.startswith(":")):
            raise _wrong(text, f"{part!r} is not [address]:port")
        host, port = unquote(host), port.removeprefix(":") if port else str(PORT_DEFAULT)
        if ":" not in host or not _IPV6.fullmatch(host):
            raise _wrong(text, f"{host!r} is not an IPv6 address")
        return Endpoint(host=host, port=_port(text, port))
    if part.count(":") > 1:
        raise _wrong(text, f"{part!r} looks like an IPv6 address, which stands in brackets")
    host, colon, port = part.partition(":")
    if not _HOST.fullmatch(host):
        raise _wrong(text, f"{host!r} is not a host name or an IP address")
    return Endpoint(host=host, port=_port(text, port if colon else str(PORT_DEFAULT)))


def _port(text: str, port: str) -> int:
    if not (port.isascii() and port.isdigit() and 0 < int(port[:6]) <= 65535):
        raise _wrong(text, f"{port!r} is not a port (a number from 1 to 65535)")
    return int(port)


def _tenant(text: str, query: str) -> str | None:
    settings = parse_qsl(query, keep_blank_values=True)
    for name, _ in settings:
        if name != "tenant":
            raise _wrong(text, f"it sets {name!r}, and an address can set only tenant")
    if len(settings) > 1:
        raise _wrong(text, "it sets tenant twice")
    return checked_tenant(settings[0][1]) if settings else None


def _wrong(text: str, why: str) -> InvalidArgument:
    return InvalidArgument(
        f"{text[:200]!r} is not the address of a router: {why}. Write it like {_EXAMPLE}.",
        field="target",
    )
