"""A real PostgreSQL, for benchmarks: the rival whose saver most people use.

    python scripts/postgres_server.py install      make sure that this machine has PostgreSQL
    python scripts/postgres_server.py run          run one until Ctrl-C, and say its URL

Rules: stock settings (synchronous_commit and fsync stay on); everybody on loopback is trusted.
"""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

if __name__ == "__main__":  # Run as a file, it has its own folder on the path.
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts import processes

ACCOUNT: Final = "postgres"
"""The server refuses to run as root; Debian's package makes this account."""

PACKAGES: Final = ("postgresql",)
HINT: Final = (
    "PostgreSQL is not on this machine. `make bench` installs it on Debian and Ubuntu as root (or "
    "with sudo); elsewhere install it, so that `postgres` and `initdb` are on the PATH."
)


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


def install() -> None:
    """Idempotent. Raises SystemExit with a hint where it cannot be installed."""
    if binaries() is None:
        processes.install_packages(PACKAGES, HINT)


class Server(processes.Server):
    """One server with a cluster of databases of its own."""

    start_seconds_max = 60.0
    hint = HINT

    @property
    def url(self) -> str:
        return self.database("postgres")

    def database(self, name: str) -> str:
        """For a client of one database."""
        return f"postgresql://{ACCOUNT}@{self.address}:{self.port}/{name}"

    def command_line(self) -> list[str] | None:
        programs = binaries()
        if programs is None:
            return None
        data = self.directory / "data"
        if not data.exists():
            self._make(programs, data)
        settings = (f"listen_addresses={self.address}", f"unix_socket_directories={data}")
        words = [str(programs / "postgres"), "-D", str(data), "-p", str(self.port)]
        return [*_as_account(), *words, *(part for each in settings for part in ("-c", each))]

    def answers(self) -> bool:
        # The port is open before the server takes clients.
        programs = binaries()
        asked = [str((programs or Path()) / "pg_isready"), "-q", "-h", self.address]
        return not subprocess.run([*asked, "-p", str(self.port)], check=False).returncode  # noqa: S603 - our own words

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """Ends it by pid; unless said otherwise, sessions first, and the data whole."""
        super().stop(number)

    def _make(self, programs: Path, data: Path) -> None:
        data.mkdir()
        if _as_account():
            shutil.chown(data, ACCOUNT, ACCOUNT)
            for above in (self.directory, self.directory.parent):
                # The account has to get through to its own directory.
                if not above.stat().st_mode & 0o001:
                    above.chmod(above.stat().st_mode | 0o011)
        initdb = [str(programs / "initdb"), "-D", str(data), "-U", ACCOUNT, "-A", "trust"]
        words = [*_as_account(), *initdb, "--encoding=UTF8", "--locale=C"]
        subprocess.run(words, check=True, cwd=data, stdout=subprocess.DEVNULL)  # noqa: S603 - our own words


def _as_account() -> list[str]:
    if os.geteuid():
        return []
    changed = ["setpriv", f"--reuid={ACCOUNT}", f"--regid={ACCOUNT}", "--clear-groups"]
    return [*changed, "--pdeathsig=KILL", "--"]


if __name__ == "__main__":
    processes.main(__doc__, install, lambda: f"PostgreSQL in {binaries()}", Server)
