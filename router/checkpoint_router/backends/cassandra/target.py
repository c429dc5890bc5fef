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

_VARIABLES: Final = {
    "USERNAME": "",
    "PASSWORD": "USERNAME",
    "PASSWORD_FILE": "USERNAME",
    "CA_FILE": "",
    "CERTIFICATE_FILE": "CA_FILE",
    "KEY_FILE": "CERTIFICATE_FILE",
}
"""Each with the one that it is of no use without."""

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
    """Credentials and TLS from the environment. Raises InvalidArgument for files that are no use,
    and for what would be ignored: somebody believes that it is in force.

    `_USERNAME` with `_PASSWORD` or `_PASSWORD_FILE`; `_CA_FILE` turns TLS on, `_CERTIFICATE_FILE`
    and `_KEY_FILE` are what this router shows for itself.
    """
    environ = os.environ if environ is None else environ
    said = {name: environ.get(PREFIX + name, "") for name in _VARIABLES}
    if said["PASSWORD"] and said["PASSWORD_FILE"]:
        raise _bad(f"{PREFIX}PASSWORD and {PREFIX}PASSWORD_FILE are both set; one is enough")
    for name, needs in _VARIABLES.items():
        if said[name] and needs and not said[needs]:
            raise _bad(f"{PREFIX}{name} is set, and {PREFIX}{needs} is not: set that too")
    password, tls, at = said["PASSWORD"], None, "PASSWORD_FILE"
    try:
        if said[at]:
            password = Path(said[at]).read_text().rstrip("\r\n")
        at = "CA_FILE"
        if said[at]:
            tls = ssl.create_default_context(cafile=said[at])
        at = "CERTIFICATE_FILE"
        if said[at] and tls is not None:
            tls.load_cert_chain(said[at], said["KEY_FILE"] or None)
    except OSError as e:  # ssl.SSLError is one
        and_key = f" with {PREFIX}KEY_FILE={said['KEY_FILE']}" if at == "CERTIFICATE_FILE" else ""
        why = e.strerror or e
        raise _bad(f"{PREFIX}{at}={said[at]}{and_key} cannot be used: {why}") from None
    return Login(username=said["USERNAME"], password=password, tls=tls)


def _bad(why: str) -> InvalidArgument:
    return InvalidArgument(f"{why}. The router was not started.")
