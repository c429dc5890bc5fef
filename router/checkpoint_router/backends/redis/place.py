"""Where a Redis is, and who we are there: a URL, files and the environment to options.

Rules: a password can come from a file or the environment, so that it need not stand in a command
line; what is shown to anybody never has it; an option that is not known is an error.
"""

import os
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from checkpoint_router.core.errors import InvalidArgument

PASSWORD: Final = "CHECKPOINT_ROUTER_REDIS_PASSWORD"  # noqa: S105 - the name of a variable
"""Environment variable for the password, where neither URL nor file has it."""

OPTIONS: Final = ("password_file", "ca", "cert", "key", "promise", "accept", "timeout")
PROMISES: Final = ("always", "everysec", "none")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A Redis, or any member of a Redis Cluster."""

    host: str
    port: int
    db: int
    user: str | None
    password: str | None = field(repr=False)
    tls: bool
    ca: str | None
    """File of the authorities to trust; None: the system's."""
    cert: str | None
    key: str | None
    promise: str | None
    """What the operator wants of appendfsync; a server that does not tell is believed to do it."""
    accept: frozenset[str]
    """Faults that the operator knows of: `eviction`."""
    timeout_seconds: float
    """For one answer. Larger: a call waits longer for a server that is gone. Smaller: a busy
    server is taken for one."""

    @property
    def url(self) -> str:
        """Without credentials."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"redis{'s' if self.tls else ''}://{host}:{self.port}/{self.db}"

    def options(self) -> dict[str, Any]:
        """For the driver, but for `db`, which a cluster does not have."""
        known: dict[str, Any] = {
            "host": self.host,
            "port": self.port,
            "username": self.user,
            "password": self.password,
            "socket_timeout": self.timeout_seconds,
            "socket_connect_timeout": self.timeout_seconds,
            "protocol": 2,  # With 3 it takes connections that have ended out of its pool.
        }
        if self.tls:
            known |= {
                "ssl": True,
                "ssl_ca_certs": self.ca,
                "ssl_certfile": self.cert,
                "ssl_keyfile": self.key,
            }
        return known


def parse(scheme: str, rest: str) -> Place:
    """The place that `scheme:rest` names. Raises InvalidArgument."""
    url = f"{scheme}:{rest}"
    try:
        parts = urlsplit(url)
        host, port, db = parts.hostname, parts.port or 6379, parts.path.strip("/") or "0"
    except ValueError as e:
        raise _bad(f"cannot be read: {e}") from None
    if not db.isdecimal():
        raise _bad(f"names database {db!r}, which is no number")
    if not host or not rest.startswith("//"):
        raise _bad("names no host")
    said = dict(parse_qsl(parts.query, keep_blank_values=True))
    unknown = [name for name in said if name not in OPTIONS]
    if unknown:
        raise _bad(f"has an unknown option {unknown[0]!r}; known are {', '.join(OPTIONS)}")
    promise, accept = said.get("promise"), frozenset(filter(None, [said.get("accept")]))
    if promise not in (None, *PROMISES) or not accept <= {"eviction"}:
        raise _bad(f"may say promise={'|'.join(PROMISES)} and accept=eviction, nothing else")
    files = {name: said.get(name) for name in ("ca", "cert", "key")}
    if any(files.values()) and scheme != "rediss":
        raise _bad("names certificates, which only rediss:// uses")
    if scheme == "rediss":
        _try(**files)
    return Place(
        host=host,
        port=port,
        db=int(db),
        user=unquote(parts.username) if parts.username else None,
        password=_password(parts.password, said.get("password_file")),
        tls=scheme == "rediss",
        promise=promise,
        accept=accept,
        timeout_seconds=_seconds(said.get("timeout", "5")),
        **files,
    )


def _password(given: str | None, file: str | None) -> str | None:
    if given is not None and file is not None:
        raise _bad("gives a password and names a password_file; one of them is enough")
    if given is not None:
        return unquote(given)
    if file is None:
        return os.environ.get(PASSWORD)
    try:
        return Path(file).read_text().strip()
    except OSError as e:
        raise _bad(f"names a password_file that cannot be read: {e}") from None


def _try(ca: str | None, cert: str | None, key: str | None) -> None:
    """Raises InvalidArgument for files that no connection could use: the driver's own words for
    that do not say that it is about a file."""
    at = f"ca={ca}"
    try:
        context = ssl.create_default_context(cafile=ca)
        at = f"cert={cert} with key={key}"
        if cert is not None or key is not None:
            context.load_cert_chain(cert or "", key)
    except OSError as e:  # ssl.SSLError is one
        raise _bad(f"says {at}, which cannot be used: {e.strerror or e}") from None


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0.05 <= seconds <= 60:
        raise _bad("may say timeout=SECONDS, between 0.05 and 60")
    return seconds


def _bad(why: str) -> InvalidArgument:
    """Never with the URL itself: it may hold a password."""
    return InvalidArgument(
        f"the storage URL {why}. Write redis://[user[:password]@]host:port/db[?option=value&…], "
        f"or rediss:// for TLS.",
        field="storage",
    )
