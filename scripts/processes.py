"""What the real servers of tests, demo and benchmarks share: packages, ports, and a life.

Owner: a `Server` owns its process, which it ends by pid; its port and its data outlive a kill and
a start. Rules: loopback and free ports only; nothing waits without a deadline.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TypeVar

LOOPBACK: Final = "127.0.0.1"

_DIE_WITH_THE_PARENT: Final = """
import contextlib, ctypes, os, sys
with contextlib.suppress(OSError, AttributeError):
    ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG, SIGKILL
os.execvp(sys.argv[1], sys.argv[1:])
"""
"""A test's process that is killed takes its server with it, where the system can do that. A program
that becomes the server, not a `preexec_fn`: for that Python forks, and what gRPC does in a child
of a process that speaks it can end the child before it is the server."""


def free_port() -> int:
    """A port that was free just now, and the one 10,000 above it, where Redis Cluster talks."""
    while True:
        with socket.socket() as one, socket.socket() as above:
            one.bind((LOOPBACK, 0))
            port: int = one.getsockname()[1]
            with contextlib.suppress(OSError, OverflowError):
                above.bind((LOOPBACK, port + 10_000))
                return port


def install_packages(packages: tuple[str, ...], hint: str) -> None:
    """Debian's, as root or with sudo. Raises SystemExit with the hint where that cannot be done."""
    root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    if None in map(shutil.which, ["apt-get", *root[:1]]):
        raise SystemExit(hint)
    # The runlevel keeps Debian from starting a server of its own, on the usual port.
    quiet = ["env", "DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1"]
    for command in (
        ["update", "-qq"],
        ["install", "-y", "-qq", "--no-install-recommends", *packages],
    ):
        done = subprocess.run([*root, *quiet, "apt-get", *command], check=False)  # noqa: S603 - our own words
        if done.returncode:
            raise SystemExit(f"apt-get {command[0]} failed. {hint}")


class Server:
    """One server process and its directory."""

    start_seconds_max: float
    hint: str
    """What to do on a machine that cannot run it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.address = LOOPBACK
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """For a router."""
        raise NotImplementedError

    def command_line(self) -> list[str] | None:
        """The program and its words, after its files were written; None if it is not here."""
        raise NotImplementedError

    def answers(self) -> bool:
        """Whether it can be used."""
        with socket.socket() as probe:
            probe.settimeout(1.0)
            return probe.connect_ex((self.address, self.port)) == 0

    @property
    def pid(self) -> int:
        """Of the running server."""
        assert self._process is not None, "it does not run"
        return self._process.pid

    def begin(self) -> None:
        """Starts it, and does not wait."""
        self.directory.mkdir(parents=True, exist_ok=True)
        words = self.command_line()
        if words is None:
            raise SystemExit(self.hint)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own words
                [sys.executable, "-ISc", _DIE_WITH_THE_PARENT, *words],
                cwd=self.directory,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def start(self) -> None:
        """Returns when it answers. It has the port and the data that it had before."""
        self.begin()
        self.wait()

    def wait(self) -> None:
        """Returns when it answers; raises RuntimeError with what it said if it never does."""
        deadline = time.monotonic() + self.start_seconds_max
        while not self.answers():
            dead = self._process is None or self._process.poll() is not None
            if dead or time.monotonic() > deadline:
                said = self._log.read_text(errors="replace")[-4000:]
                self.stop()
                raise RuntimeError(f"{type(self).__module__} did not start:\n{said}")
            time.sleep(0.05)

    @property
    def _log(self) -> Path:
        return self.directory / "server.log"

    def stop(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Ends it, by pid, as a crash would unless said otherwise. Idempotent."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(number)
            process.wait(timeout=60)


AnyServer = TypeVar("AnyServer", bound=Server)


@contextlib.contextmanager
def running(make: Callable[[Path], AnyServer]) -> Iterator[AnyServer]:
    """A server in a directory that goes with it."""
    with tempfile.TemporaryDirectory(prefix="server-") as directory:
        server = make(Path(directory))
        server.start()
        try:
            yield server
        finally:
            server.stop()


def main(
    text: str | None, install: Callable[[], None], found: Callable[[], str], server: type[Server]
) -> None:
    """A program of one word, as its `text` has them: says what it found after `install`, or the
    URL of a server that it keeps until Ctrl-C."""
    match sys.argv[1:]:
        case ["install"]:
            install()
            print(found())
        case ["run"]:
            with running(server) as one, contextlib.suppress(KeyboardInterrupt):
                print(one.url, flush=True)
                signal.pause()
        case _:
            raise SystemExit(text)
