"""Where a Cassandra is and how to log in to it: a URL, and an environment for what is secret.

Rules: a URL is printed and logged, so it holds no secret and is refused if it does; a secret
comes from a file, or from the environment.
"""

import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from checkpoint_router.core.errors import InvalidArgument

PREFIX: Final = "CHECKPOINT_ROUTER_CASSANDRA_"

USAGE: Final = "cassandra://HOST,HOST:PORT/KEYSPACE?dc=DATACENTRE"

_URL: Final = re.compile(
    r"//(?P<hosts>[^/?#@:]+|\[[0-9a-fA-F:]+\])(:(?P<port>\d{1,5}))?"
    r"/(?P<keyspace>[a-z][a-z0-9_]{0,47})\?dc=(?P<dc>[A-Za-z0-9_.-]+)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a URL says."""

    url: str
    hosts: tuple[str, ...]
    port: int
    keyspace: str
    dc: str
    """The datacentre whose replicas answer, the same for all routers of the keyspace."""


def parse(rest: str) -> Target:
    """What follows `cassandra:`. Raises InvalidArgument."""
    found = _URL.fullmatch(rest)
    if found is None:
        secret = "@" in rest
        why = "holds credentials, which get printed" if secret else f"is not {USAGE}"
        hint = f" Set {PREFIX}USERNAME and {PREFIX}PASSWORD_FILE instead." if secret else ""
        shown = "" if secret else f" cassandra:{rest}"
        raise InvalidArgument(f"the storage URL{shown} {why}.{hint}", field="storage")
    return Target(
        url=f"cassandra:{rest}",
        hosts=tuple(h.strip("[]") for h in found["hosts"].split(",") if h),
        port=int(found["port"] or 9042),
        keyspace=found["keyspace"],
        dc=found["dc"],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """What an environment says."""

    username: str = ""
    password: str = ""
    tls: ssl.SSLContext | None = None


def login(environ: Mapping[str, str] | None = None) -> Login:
    """Credentials and TLS from the environment. Raises InvalidArgument for files that are no use.

    `_USERNAME` with `_PASSWORD` or `_PASSWORD_FILE`; `_CA_FILE` turns TLS on, `_CERTIFICATE_FILE`
    and `_KEY_FILE` are what this router shows for itself.
    """
    found = os.environ if environ is None else environ

    def value(name: str) -> str:
        return found.get(PREFIX + name, "")

    try:
        password = value("PASSWORD")
        if value("PASSWORD_FILE"):
            password = Path(value("PASSWORD_FILE")).read_text().rstrip("\r\n")
        tls = None
        if value("CA_FILE"):
            tls = ssl.create_default_context(cafile=value("CA_FILE"))
            if value("CERTIFICATE_FILE"):
                tls.load_cert_chain(value("CERTIFICATE_FILE"), value("KEY_FILE") or None)
    except OSError as e:  # ssl.SSLError is one
        raise InvalidArgument(
            f"a file that {PREFIX}… names cannot be used: {e}. The router was not started."
        ) from None
    return Login(username=value("USERNAME"), password=password, tls=tls)
