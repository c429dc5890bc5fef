"""A command on a terminal of its own, as a person has it."""

import os
import pty
import selectors
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass

from .conftest import COMMAND, SECONDS_MAX, environment


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """What came of it."""

    exit_code: int
    screen: str
    """All that was shown: both outputs, and the echo of what was typed."""


def on_terminal(
    *arguments: str,
    env: Mapping[str, str] | None = None,
    at: str = "",
    answer: str = "",
) -> Session:
    """Runs a command on a terminal of 100 columns; types `answer` once `at` is on the screen."""
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [*COMMAND, *arguments],
        env=environment({"TERM": "xterm-256color", "COLUMNS": "100", **(env or {})}),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    try:
        screen = _watch(ours, at.encode(), answer.encode())
        return Session(exit_code=child.wait(SECONDS_MAX), screen=screen.decode())
    finally:
        child.kill()
        child.wait()
        os.close(ours)


def _watch(ours: int, at: bytes, answer: bytes) -> bytes:
    screen = b""
    deadline = time.monotonic() + SECONDS_MAX
    with selectors.DefaultSelector() as selector:
        selector.register(ours, selectors.EVENT_READ)
        while selector.select(max(0.0, deadline - time.monotonic())):
            try:
                piece = os.read(ours, 4096)
            except OSError:  # the child was the last to hold the other end
                return screen
            screen += piece
            if answer and at in screen:
                os.write(ours, answer)
                answer = b""
    raise TimeoutError(f"still running, with this on its screen: {screen!r}")
