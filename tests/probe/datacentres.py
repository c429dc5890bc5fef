"""A Cassandra of two datacentres, each of one member: the near one is plain and open, the far one
wants a password, speaks TLS and asks for certificates.

Owner: whoever calls `running` owns both members.
"""

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cassandra.auth import PlainTextAuthProvider
from cassandra.cluster import Cluster, NoHostAvailable, Session
from cassandra.policies import ConstantReconnectionPolicy

from checkpoint_router.backends.cassandra.target import login
from checkpoint_router.core.errors import Unavailable
from checkpoint_router.testing import RouterFailed
from scripts.cassandra_server import Server
from tests.probe.test_crash import until

ENVIRONMENT = "CHECKPOINT_ROUTER_CASSANDRA_"

LOCKED = """\
authenticator: PasswordAuthenticator
authorizer: CassandraAuthorizer
client_encryption_options:
  enabled: true
  optional: false
  require_client_auth: true
  keystore: {server}
  truststore: {client}
  ssl_context_factory:
    class_name: org.apache.cassandra.security.PEMBasedSslContextFactory
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Two:
    """Two datacentres of one member each."""

    near: Server
    far: Server
    files: Path
    session: Session

    def at(self, server: Server, keyspace: str) -> str:
        """The URL for a router there."""
        return server.url.replace("/checkpoints?", f"/{keyspace}?")

    def keyspace(self, name: str, **copies: int) -> str:
        """Makes one with that many copies in each datacentre."""
        options = "".join(f", '{dc}': {n}" for dc, n in copies.items())
        make = (
            f"CREATE KEYSPACE IF NOT EXISTS {name} WITH replication = "
            f"{{'class': 'NetworkTopologyStrategy'{options}}}"
        )
        # The driver may still be looking for a member that a test has started again.
        until(partial(holds, partial(self.session.execute, make, timeout=60.0)), "a keyspace")
        return name

    def log_in(self) -> None:
        """To the second one, which must have its first role for that."""
        who = login(self.told)
        driver = Cluster(
            [self.far.address],
            port=self.far.port,
            protocol_version=5,
            auth_provider=PlainTextAuthProvider(who.username, who.password),
            ssl_context=who.tls,
        )
        try:
            driver.connect()
        finally:
            driver.shutdown()

    @property
    def told(self) -> dict[str, str]:
        """What the second one's routers are told."""
        return {
            f"{ENVIRONMENT}USERNAME": "cassandra",
            f"{ENVIRONMENT}PASSWORD": "cassandra",
            f"{ENVIRONMENT}CA_FILE": str(self.files / "server.crt"),
            f"{ENVIRONMENT}CERTIFICATE_FILE": str(self.files / "client.crt"),
            f"{ENVIRONMENT}KEY_FILE": str(self.files / "client.key"),
        }


def make_certificate(directory: Path, name: str, address: str) -> None:
    """One that is its own authority, and its key; both once more in one file."""
    cert, key = directory / f"{name}.crt", directory / f"{name}.key"
    make = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=cassandra"
    make += f" -addext subjectAltName=IP:{address} -keyout {key} -out {cert}"
    subprocess.run(make.split(), check=True, capture_output=True)
    (directory / f"{name}.pem").write_text(key.read_text() + cert.read_text())


def holds(condition: Callable[[], Any]) -> bool:
    """Whether it can be done by now."""
    try:
        condition()
    except (AssertionError, Unavailable, RouterFailed, NoHostAvailable):
        return False
    return True


@contextlib.contextmanager
def running(files: Path) -> Iterator[Two]:
    """Both members, which know each other, in a fresh directory."""
    for name, address in (("server", "127.0.0.2"), ("client", "127.0.0.2"), ("else", "127.0.0.9")):
        make_certificate(files, name, address)
    locked = LOCKED.format(server=files / "server.pem", client=files / "client.crt")
    near = Server(files / "near")
    far = Server(files / "far", dc="dc2", seed=near, number=2, more=locked)
    driver = None
    try:
        near.start()
        far.start()
        driver = Cluster(
            [near.address],
            port=near.port,
            protocol_version=5,
            reconnection_policy=ConstantReconnectionPolicy(0.5, None),
        )
        session = driver.connect()
        members = "SELECT data_center FROM system.peers_v2"
        until(
            lambda: [row[0] for row in session.execute(members)] == ["dc2"], "the members to meet"
        )
        two = Two(near=near, far=far, files=files, session=session)
        until(partial(holds, two.log_in), "the first role to be made")
        yield two
    finally:
        if driver is not None:
            driver.shutdown()
        for server in (near, far):
            server.stop()
