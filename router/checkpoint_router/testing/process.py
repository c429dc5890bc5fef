"""A router as a child process.

Owner: `RunningRouter` owns its child, its log file and its port. Rules: nothing waits without a
deadline; the child is ended by its pid on every way out, and ends by itself if this process is
killed (`child`); a restart has the same port and storage.
"""

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Final

START_SECONDS_MAX: Final = 60.0
"""Shorter: a busy machine fails the tests. Longer: a broken router holds them up."""

STOP_SECONDS_MAX: Final = 30.0
"""From SIGTERM; beyond it the child is killed, and `stop` says so."""

_SAYS: Final = b"listening on "


class RouterFailed(Exception):
    """The router did not start, or did not stop. The message ends with its log."""


class RunningRouter:
    """A router process that this one started."""

    def __init__(
        self, storage: str, listen: str, directory: Path, env: Mapping[str, str] | None
    ) -> None:
        self.storage = storage
        self._listen = listen
        self._log = directory / "router.log"
        self._env = {**os.environ, **(env or {})}
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def target(self) -> str:
        """What a saver is given: `router://HOST:PORT`."""
        return f"router://{self.address}"

    @property
    def address(self) -> str:
        """HOST:PORT."""
        return self._listen

    @property
    def pid(self) -> int:
        """Of the child. Raises RouterFailed if none runs."""
        if self._child is None:
            raise RouterFailed("no router is running; call start().")
        return self._child.pid

    def start(self) -> None:
        """Starts the router, on the port that it had before, and waits until it answers.

        Raises RouterFailed, with the router's log, if it ends or stays silent.
        """
        if self._child is not None:
            raise RouterFailed(f"a router is running already, as process {self._child.pid}.")
        command = [sys.executable, "-m", "checkpoint_router.testing.child"]
        command += ["--listen", self._listen, "--storage", self.storage]
        with self._log.open("ab") as log:
            self._child = subprocess.Popen(  # noqa: S603  # this interpreter, our own words
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=self._env,
                # A session of its own: Ctrl-C reaches the tests, which then end the router.
                start_new_session=True,
            )
        try:
            self._listen = self._heard()
        except BaseException:
            self.kill()
            raise

    def stop(self) -> int:
        """SIGTERM; waits for the end and returns the exit code. 0 if none was running."""
        return self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL; returns when the process is gone."""
        self._end(signal.SIGKILL)

    def log_text(self) -> str:
        """All that the router wrote to stderr, over all its starts."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def _heard(self) -> str:
        child = self._child
        assert child is not None
        assert child.stdout is not None
        deadline = time.monotonic() + START_SECONDS_MAX
        said = b""
        while not said.endswith(b"\n"):
            piece = _read(child.stdout, deadline - time.monotonic())
            if not piece:
                why = "ended" if child.poll() is not None else "did not answer"
                raise RouterFailed(f"the router {why} before it listened. Its log:\n{self._tail()}")
            said += piece
        if not said.startswith(_SAYS):
            raise RouterFailed(f"the router said {said!r}, not where it listens.")
        return said.splitlines()[0].removeprefix(_SAYS).decode()

    def _end(self, number: signal.Signals) -> int:
        child, self._child = self._child, None
        if child is None:
            return 0
        try:
            child.send_signal(number)
            try:
                return child.wait(STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                raise RouterFailed(
                    f"process {child.pid} did not end {STOP_SECONDS_MAX:.0f} s after {number.name}."
                    f" Its log:\n{self._tail()}"
                ) from None
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    pipe.close()

    def _tail(self) -> str:
        return self.log_text()[-4000:]


@contextlib.contextmanager
def running_router(
    storage: str = "memory:",
    listen: str = "127.0.0.1:0",
    env: Mapping[str, str] | None = None,
) -> Iterator[RunningRouter]:
    """A router that runs as long as the block; what `env` says is added to its environment.

    The storage is what `checkpoint-router serve --storage` takes. Raises RouterFailed.
    """
    with tempfile.TemporaryDirectory(prefix="checkpoint-router-") as directory:
        router = RunningRouter(storage, listen, Path(directory), env)
        router.start()
        try:
            yield router
        finally:
            router.stop()


def _read(stream: IO[bytes], seconds: float) -> bytes:
    """What the stream has next; nothing at its end, or when time is up."""
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        if seconds > 0 and selector.select(seconds):
            return os.read(stream.fileno(), 4096)
    return b""
