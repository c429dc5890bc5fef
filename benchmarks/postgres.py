"""A PostgreSQL server of our own, started from the system's binaries and stopped by its pid.

Owner: this module owns the server process and its directory.
Rules: stock settings (synchronous_commit and fsync stay on), loopback, a free port, trust.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

START_SECONDS_MAX: Final = 60.0
ACCOUNT: Final = "postgres"
"""The server refuses to run as root; Debian's package makes this account."""

MISSING: Final = (
    "no PostgreSQL server binaries found: AsyncPostgresSaver is left out. "
    "On Debian: apt-get install postgresql"
)


class PostgresFailed(Exception):
    """The server did not come up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresServer:
    """A running server."""

    port: int

    def url(self, database: str) -> str:
        """For psycopg."""
        return f"postgresql://{ACCOUNT}@127.0.0.1:{self.port}/{database}"


def binaries() -> Path | None:
    """The directory with initdb and postgres, the newest version first; None if there is none."""
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/postgres"),
        key=lambda path: float(path.parts[-3]),
        reverse=True,
    )
    on_path = shutil.which("postgres")
    candidates = [path.parent for path in found] + ([Path(on_path).parent] if on_path else [])
    return next((path for path in candidates if (path / "initdb").exists()), None)


@contextmanager
def running_postgres(directory: Path) -> Iterator[PostgresServer]:
    """A server whose data lives in a new directory inside `directory`."""
    bin_directory = binaries()
    if bin_directory is None:
        raise PostgresFailed(MISSING)
    home = directory / "postgres"
    home.mkdir()
    account: dict[str, Any] = {}
    if os.geteuid() == 0:
        account = {"user": ACCOUNT, "group": ACCOUNT, "extra_groups": []}
        shutil.chown(home, ACCOUNT, ACCOUNT)
        directory.chmod(0o755)  # the account has to get through to its own directory
    data = home / "data"
    initdb = [str(bin_directory / "initdb"), "-D", str(data), "-U", ACCOUNT, "-A", "trust"]
    subprocess.run(  # noqa: S603 - the server's own tool
        [*initdb, "--encoding=UTF8", "--locale=C"],
        check=True,
        cwd=home,
        stdout=subprocess.DEVNULL,
        **account,
    )
    port = free_port()
    settings = ("listen_addresses=127.0.0.1", f"unix_socket_directories={home}")
    log = directory / "postgres.log"
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - the server itself
            [str(bin_directory / "postgres"), "-D", str(data), "-p", str(port)]
            + [part for setting in settings for part in ("-c", setting)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=home,
            start_new_session=True,
            **account,
        )
    try:
        server = PostgresServer(port=port)
        _wait_until_it_answers(server, process, log)
        yield server
    finally:
        _stop(process)


def free_port() -> int:
    """A loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_it_answers(
    server: PostgresServer, process: subprocess.Popen[bytes], log: Path
) -> None:
    import psycopg

    deadline = time.monotonic() + START_SECONDS_MAX
    while True:
        try:
            psycopg.connect(server.url("postgres"), connect_timeout=5).close()
            return
        except psycopg.OperationalError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                tail = log.read_text(errors="replace")[-2000:]
                raise PostgresFailed(f"PostgreSQL did not start: {error}\n{tail}") from error
            time.sleep(0.05)


def _stop(process: subprocess.Popen[bytes]) -> None:
    # SIGINT is the server's "fast" shutdown: sessions are ended, the data directory is left clean.
    process.send_signal(signal.SIGINT)
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGQUIT)
        process.wait(30)
