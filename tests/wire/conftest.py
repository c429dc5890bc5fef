"""One router process for all tests of the wire that do no harm to it, and a way to harm others."""

import os
import uuid
from collections.abc import Iterator

import pytest

from checkpoint_router.core.ids import ThreadKey
from checkpoint_router.testing import RunningRouter, running_router


@pytest.fixture(scope="session")
def router() -> Iterator[RunningRouter]:
    """A router that must outlive all that is sent to it, without one unforeseen error."""
    with running_router() as running:
        pid = running.pid
        yield running
        assert running.pid == pid
        os.kill(pid, 0)
        assert "unexpected error" not in running.log_text(), running.log_text()
        assert "Traceback" not in running.log_text(), running.log_text()


@pytest.fixture
def thread() -> ThreadKey:
    """A thread that nobody used before."""
    return ThreadKey("acme", f"thread-{uuid.uuid4().hex}")


@pytest.fixture
def segment() -> bytes:
    """A segment that nobody used before."""
    return uuid.uuid4().bytes
