"""pytest fixtures for people who test agents: one router for the session, a fresh saver a test."""

import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from checkpoint_router.testing.process import RunningRouter, running_router

if TYPE_CHECKING:
    from checkpoint_router import RouterSaver


@pytest.fixture(scope="session")
def checkpoint_router() -> Iterator[RunningRouter]:
    """A router process with nothing on disk, for the whole session."""
    with running_router() as router:
        yield router


@pytest.fixture
def router_saver(checkpoint_router: RunningRouter) -> Iterator["RouterSaver"]:
    """A saver that is empty at the start of each test: it has a tenant of its own."""
    from checkpoint_router import RouterSaver

    saver = RouterSaver(checkpoint_router.target, tenant=f"test-{uuid.uuid4().hex}")
    with saver:
        yield saver
