"""Real Redis servers for tests, demo and benchmarks: alone, or a cluster of three primaries.

    python scripts/redis_server.py install       make sure that this machine has redis-server
    python scripts/redis_server.py run           run one until Ctrl-C, and say its URL

Owner: `Server` and `Cluster` own their processes, which they end by pid, and a directory each.
Rules: loopback and free ports only; nothing waits without a deadline.
"""

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

PACKAGES = ("redis-server", "openssl")
"""The second makes certificates for the tests over TLS."""
HINT = (
    "redis-server is not on this machine. `make services` installs it on Debian and Ubuntu as root "
    "(or with sudo); elsewhere install Redis 6.2 or newer, or Valkey, so that `redis-server` and "
    "`redis-cli` are on the PATH."
)
START_SECONDS_MAX = 20.0


def program() -> str | None:
    """The server's program, if this machine has it."""
    return shutil.which("redis-server") or shutil.which("valkey-server")


def install() -> None:
    """Idempotent. Raises SystemExit with a hint where it cannot be installed."""
    if program() is not None and shutil.which("openssl") is not None:
        return
    if shutil.which("apt-get") is None:
        raise SystemExit(HINT)
    root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    # Debian would start one of its own, on the usual port.
    quiet = ["env", "DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1"]
    for command in (
        ["update", "-qq"],
        ["install", "-y", "-qq", "--no-install-recommends", *PACKAGES],
    ):
        done = subprocess.run([*root, *quiet, "apt-get", *command], check=False)  # noqa: S603 - our own words
        if done.returncode:
            raise SystemExit(f"apt-get {command[0]} failed. {HINT}")


def free_port() -> int:
    """A port that was free just now, and whose cluster port was too."""
    while True:
        with socket.socket() as one, socket.socket() as bus:
            one.bind(("127.0.0.1", 0))
            port: int = one.getsockname()[1]
            with contextlib.suppress(OSError, OverflowError):
                bus.bind(("127.0.0.1", port + 10_000))
                return port


class Server:
    """One redis-server."""

    def __init__(self, directory: Path, **settings: str) -> None:
        """`settings` as in redis.conf, with `_` for `-`; appendonly is on unless said otherwise."""
        self.directory = directory
        self.port = free_port()
        self.settings = {"appendonly": "yes", "appendfsync": "always", **settings}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """For a router."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        """Of the running server."""
        assert self._process is not None, "it does not run"
        return self._process.pid

    def start(self) -> None:
        """Returns when it answers."""
        found = program()
        if found is None:
            raise SystemExit(HINT)
        self.directory.mkdir(parents=True, exist_ok=True)
        settings = {"port": str(self.port), "bind": "127.0.0.1", "dir": str(self.directory)}
        words = [f"--{k.replace('_', '-')} {v}" for k, v in (settings | self.settings).items()]
        with (self.directory / "server.log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own words
                [found, *(part for word in words for part in word.split(" ", 1))],
                stdout=log,
                stderr=log,
                preexec_fn=_die_with_the_parent,
            )
        deadline = time.monotonic() + START_SECONDS_MAX
        while not self._answers():
            if time.monotonic() > deadline or self._process.poll() is not None:
                log_text = (self.directory / "server.log").read_text()[-2000:]
                raise RuntimeError(f"redis-server did not start:\n{log_text}")
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            return self.command("PING") == "PONG"
        except OSError:
            return False

    def command(self, *words: str, bulk: bool = False) -> str:
        """The first line of an answer, without its type; `bulk`: the second, which is the text."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as link:
            link.sendall(b"".join(_bulk(words)))
            lines = link.makefile("rb")
            first = lines.readline().decode()
            return (lines.readline().decode() if bulk else first[1:]).strip()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Ends it, by pid; SIGKILL as a crash would. Idempotent."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(number)
            process.wait(timeout=20)


def _die_with_the_parent() -> None:
    """A test's process that is killed takes its server with it, where the system can do that."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _bulk(words: tuple[str, ...]) -> Iterator[bytes]:
    yield b"*%d\r\n" % len(words)
    for word in words:
        yield b"$%d\r\n%s\r\n" % (len(word.encode()), word.encode())


class Cluster:
    """Three primaries, without replicas."""

    def __init__(self, directory: Path) -> None:
        self.servers = [
            Server(directory / str(i), cluster_enabled="yes", cluster_node_timeout="2000")
            for i in range(3)
        ]

    @property
    def url(self) -> str:
        """For a router: any member will do."""
        return self.servers[0].url

    def start(self) -> None:
        """Returns when every member knows all slots."""
        for server in self.servers:
            server.start()
        cli = shutil.which("redis-cli") or shutil.which("valkey-cli") or "redis-cli"
        members = [f"127.0.0.1:{server.port}" for server in self.servers]
        create = [cli, "--cluster", "create", *members, "--cluster-yes"]
        subprocess.run(create, check=True, stdout=subprocess.DEVNULL, timeout=60)  # noqa: S603 - our own words
        deadline = time.monotonic() + START_SECONDS_MAX
        while not all(self._is_whole(server) for server in self.servers):
            if time.monotonic() > deadline:
                raise RuntimeError("the members of the cluster did not find each other")
            time.sleep(0.05)

    def _is_whole(self, server: Server) -> bool:
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as link:
            link.sendall(b"CLUSTER INFO\r\n")
            return b"cluster_state:ok" in link.recv(4096)

    def command(self, *words: str) -> None:
        """The same to each member."""
        for server in self.servers:
            server.command(*words)

    def stop(self) -> None:
        """Ends all. Idempotent."""
        for server in self.servers:
            server.stop(signal.SIGKILL)


@contextlib.contextmanager
def running(**settings: str) -> Iterator[Server]:
    """A server in a directory that goes with it."""
    with tempfile.TemporaryDirectory(prefix="redis-") as directory:
        server = Server(Path(directory), **settings)
        server.start()
        try:
            yield server
        finally:
            server.stop(signal.SIGKILL)


def main(words: list[str]) -> None:
    """See above."""
    if words == ["install"]:
        install()
        found = subprocess.run([str(program()), "--version"], check=True, capture_output=True)  # noqa: S603 - our own words
        print(found.stdout.decode().strip())
    elif words == ["run"]:
        with running() as server, contextlib.suppress(KeyboardInterrupt):
            print(server.url, flush=True)
            signal.pause()
    else:
        raise SystemExit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
