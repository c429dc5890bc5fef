"""Real Redis servers for tests, demo and benchmarks: alone, or a cluster of three primaries.

    python scripts/redis_server.py install       make sure that this machine has redis-server
    python scripts/redis_server.py run           run one until Ctrl-C, and say its URL

`CHECKPOINT_ROUTER_TEST_REDIS=/path/to/redis-server` takes another one than the PATH has: an older
one, a newer one, Valkey. Owner: `Cluster` owns its servers.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

if __name__ == "__main__":  # Run as a file, it has its own folder on the path.
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts import processes

CHOSEN: Final = "CHECKPOINT_ROUTER_TEST_REDIS"

PACKAGES: Final = ("redis-server", "openssl")
"""The second makes certificates for the tests over TLS."""
HINT: Final = (
    "redis-server is not on this machine. `make services` installs it on Debian and Ubuntu as root "
    "(or with sudo); elsewhere install Redis 6.2 or newer, or Valkey, so that `redis-server` and "
    "`redis-cli` are on the PATH."
)


def program() -> str | None:
    """The server's program, if this machine has it."""
    chosen = os.environ.get(CHOSEN)
    if chosen is not None:
        return shutil.which(chosen)
    return shutil.which("redis-server") or shutil.which("valkey-server")


def install() -> None:
    """Idempotent. Raises SystemExit with a hint where it cannot be installed."""
    if program() is None and os.environ.get(CHOSEN):
        raise SystemExit(f"{CHOSEN} names {os.environ[CHOSEN]}, which is no program. Change it.")
    if program() is None or shutil.which("openssl") is None:
        processes.install_packages(PACKAGES, HINT)


class Server(processes.Server):
    """One redis-server."""

    start_seconds_max = 20.0
    hint = HINT

    def __init__(self, directory: Path, **settings: str) -> None:
        """`settings` as in redis.conf, with `_` for `-`; appendonly is on unless said otherwise."""
        super().__init__(directory)
        self.settings = {"appendonly": "yes", "appendfsync": "always", **settings}

    @property
    def url(self) -> str:
        return f"redis://{self.address}:{self.port}/0"

    def command_line(self) -> list[str] | None:
        found = program()
        if found is None:
            return None
        settings = {"port": str(self.port), "bind": self.address, "dir": str(self.directory)}
        words = [f"--{k.replace('_', '-')} {v}" for k, v in (settings | self.settings).items()]
        return [found, *(part for word in words for part in word.split(" "))]

    def answers(self) -> bool:
        try:
            return self.command("PING") == "PONG"
        except OSError:
            return False

    def command(self, *words: str, bulk: bool = False) -> str:
        """The first line of an answer, without its type; `bulk`: the second, which is the text."""
        with socket.create_connection((self.address, self.port), timeout=10) as link:
            link.sendall(b"".join(_bulk(words)))
            lines = link.makefile("rb")
            first = lines.readline().decode()
            return (lines.readline().decode() if bulk else first[1:]).strip()


def _bulk(words: tuple[str, ...]) -> Iterator[bytes]:
    yield b"*%d\r\n" % len(words)
    for word in words:
        yield b"$%d\r\n%s\r\n" % (len(word.encode()), word.encode())


class Cluster:
    """Three primaries, and a replica of the last one if it is wanted."""

    def __init__(self, directory: Path, *, replicated: bool = False) -> None:
        made = [
            Server(directory / str(i), cluster_enabled="yes", cluster_node_timeout="2000")
            for i in range(4 if replicated else 3)
        ]
        self.servers, self.replicas = made[:3], made[3:]

    @property
    def url(self) -> str:
        """For a router: any member will do."""
        return self.servers[0].url

    def start(self) -> None:
        """Returns when every member knows all slots, and the replica all members."""
        for server in (*self.servers, *self.replicas):
            server.start()
        members = [f"{server.address}:{server.port}" for server in self.servers]
        create = [_command_line_client(), "--cluster", "create", *members, "--cluster-yes"]
        subprocess.run(create, check=True, stdout=subprocess.DEVNULL, timeout=60)  # noqa: S603 - our own words
        self._until_all(self.servers, "INFO", "cluster_state:ok")
        for replica in self.replicas:
            primary = self.servers[-1]
            replica.command("CLUSTER", "MEET", primary.address, str(primary.port))
            self._until_all([replica], "INFO", "cluster_state:ok")
            replica.command("CLUSTER", "REPLICATE", primary.command("CLUSTER", "MYID", bulk=True))
            for server in self.servers:
                server.command("CLUSTER", "MEET", replica.address, str(replica.port))
            self._until_all(self.servers, "NODES", f":{replica.port}@")

    def _until_all(self, servers: Sequence[Server], asked: str, answer: str) -> None:
        deadline = time.monotonic() + Server.start_seconds_max
        while not all(answer in self._said(server, asked) for server in servers):
            if time.monotonic() > deadline:
                raise RuntimeError("the members of the cluster did not find each other")
            time.sleep(0.05)

    def _said(self, server: Server, asked: str) -> str:
        with socket.create_connection((server.address, server.port), timeout=10) as link:
            link.sendall(f"CLUSTER {asked}\r\n".encode())
            return link.recv(65536).decode()

    def command(self, *words: str) -> None:
        """The same to each primary."""
        for server in self.servers:
            server.command(*words)

    def stop(self) -> None:
        """Ends all. Idempotent."""
        for server in (*self.servers, *self.replicas):
            server.stop()


def _command_line_client() -> str:
    """The one that came with the server, which may be a link to another program."""
    beside = Path(program() or "redis-server")
    client = beside.with_name(beside.name.replace("server", "cli"))
    return str(client) if client.is_file() else "redis-cli"


def _version() -> str:
    words = [str(program()), "--version"]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()  # noqa: S603 - our own words


if __name__ == "__main__":
    processes.main(__doc__, install, _version, Server)
