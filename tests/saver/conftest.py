"""The saver under test: ours, each test in a tenant of its own, on a real router process.

Owner of the router processes: the session fixture `router`, one process for each storage.
`CHECKPOINT_ROUTER_TEST_REFERENCE=memory|sqlite` puts InMemorySaver or AsyncSqliteSaver in its
place: a way to check the tests, not the product. Tests marked `router_only` are left out then.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import os
import re
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver

from checkpoint_router.v1.admin_service_pb2 import (
    ListConflictsRequest,
    ListConflictsResponse,
    ListThreadsRequest,
)
from checkpoint_router.v1.admin_service_pb2_grpc import AdminServiceStub
from tests.contract import servers

from .caches import SMALL, options_of
from .calls import FLAVOURS, Calls, Flavour
from .likeness import Alike, Scenario, observe
from .peers import DIFFERENCES

REFERENCE = os.environ.get("CHECKPOINT_ROUTER_TEST_REFERENCE", "")
STORAGES = (REFERENCE,) if REFERENCE else ("memory", "sqlite", "redis", "cassandra", *SMALL)
SERVERS: dict[str, Callable[[], str]] = {
    "redis": servers.redis,
    "cassandra": lambda: servers.cassandra("saver"),
}
"""Storages that are servers of their own, and how to have one."""
ON_EACH_STORAGE = {
    "test_conformance", "test_pregel", "test_delta_history", "test_clock", "test_differential",
}  # fmt: skip
"""The other suites run on SQLite alone: what the storages do otherwise is below the port, where the
contract looks."""
ON_SMALL_CACHES = {
    "test_conformance", "test_pregel", "test_pregel_nested", "test_delta_history", "test_traps",
    "test_retention", "test_contract_rows", "test_contract_writes",
}  # fmt: skip
"""Run once more on SQLite with savers whose cache is of no use."""
HALVES = {"memory": "sync", "redis": "async", "cassandra": "sync", "uncached": "sync",
          "evicting": "async"}  # fmt: skip
"""Which half of the saver meets what: both meet SQLite and the usual cache, and neither a storage
nor a cache is told which half it serves."""

MakeSaver = Callable[..., BaseCheckpointSaver[Any]]


def pytest_configure(config: pytest.Config) -> None:
    """Registers this directory's marker, so that a misspelt one is an error."""
    config.addinivalue_line("markers", "router_only: asks for what only a router has")
    config.addinivalue_line("markers", "rivals: has concurrent runs, and so may leave conflicts")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Gives a test the storages and caches of its suite."""
    if "storage" in metafunc.fixturenames:
        suite = Path(metafunc.module.__file__ or "").stem
        wanted = [each for each in STORAGES if REFERENCE or _is_wanted(each, suite)]
        metafunc.parametrize("storage", wanted, indirect=True, scope="session")


def _is_wanted(storage: str, suite: str) -> bool:
    if storage == "sqlite":
        return True
    return suite in (ON_SMALL_CACHES if storage in SMALL else ON_EACH_STORAGE)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out the half that meets something else. With a peer in our place: leaves out what it
    cannot have, expects what it is known for."""
    if not REFERENCE:
        config.hook.pytest_deselected(items=[i for i in items if _is_of_the_other_half(i)])
        items[:] = [item for item in items if not _is_of_the_other_half(item)]
        return
    for item in items:
        if item.path.parent != Path(__file__).parent:
            continue
        if item.get_closest_marker("router_only"):
            item.add_marker(pytest.mark.skip(reason="only a router has this"))
        for each in DIFFERENCES:
            if REFERENCE in each.peers and re.search(each.tests, item.name):
                known = pytest.mark.xfail(reason=each.why, strict=each.all, run=not each.hangs)
                item.add_marker(known)


def _is_of_the_other_half(item: pytest.Item) -> bool:
    spec = getattr(item, "callspec", None)
    if spec is None or item.path.parent != Path(__file__).parent:
        return False
    half = HALVES.get(spec.params.get("storage"))
    return half is not None and spec.params.get("flavour", half) != half


@pytest.fixture(scope="session")
def storage(request: pytest.FixtureRequest) -> str:
    """The name of the storage under the router (or of the peer in its place), or of a small cache
    above SQLite."""
    return str(request.param)


@pytest.fixture(scope="session")
def router(storage: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A running router process on that storage; None while a peer stands in its place."""
    if REFERENCE:
        yield None
        return
    from checkpoint_router.testing import running_router

    directory = tmp_path_factory.mktemp("router")
    address = "memory:" if storage == "memory" else f"sqlite:{directory}"
    if storage in SERVERS:
        address = SERVERS[storage]()
    with running_router(storage=address) as running:
        yield running


@pytest.fixture
def tenant() -> str:
    """A tenant that nobody used before: an empty saver."""
    return f"test-{uuid.uuid4().hex}"


@pytest.fixture(scope="session")
def admin(router: Any) -> Iterator[AdminServiceStub | None]:
    """What an operator may ask the router; None while a peer stands in its place."""
    if router is None:
        yield None
        return
    with grpc.insecure_channel(router.target.removeprefix("router://")) as channel:
        yield AdminServiceStub(channel)


@pytest.fixture
def undisputed(
    request: pytest.FixtureRequest, admin: AdminServiceStub | None, tenant: str
) -> Iterator[None]:
    """After a test: no thread has a conflict, unless the test has runs that are rivals.

    All the rest uses savers one after the other, and sequential use makes no conflict.
    """
    yield
    if admin is None or request.node.get_closest_marker("rivals"):
        return
    asked = admin.ListThreads(ListThreadsRequest(tenant=tenant, limit=1000))
    disputed = {
        each.thread_id: [list(record.kinds) for record in found.conflicts]
        for each in asked.threads
        if (found := conflicts_of(admin, tenant, each.thread_id)).conflicts
    }
    assert disputed == {}, "sequential use made conflicts"


def conflicts_of(admin: AdminServiceStub, tenant: str, thread: str) -> ListConflictsResponse:
    """The records of a thread, open and closed."""
    return admin.ListConflicts(ListConflictsRequest(tenant=tenant, thread_id=thread))


@pytest_asyncio.fixture
async def make_saver(
    router: Any, storage: str, tenant: str, tmp_path: Any, undisputed: None
) -> AsyncIterator[MakeSaver]:
    """Makes savers over one and the same data: what several agent processes would hold."""
    async with contextlib.AsyncExitStack() as stack:
        if REFERENCE == "memory":
            shared = InMemorySaver()
            yield lambda **_: copy.copy(shared)
        elif REFERENCE == "sqlite":
            import aiosqlite
            from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

            # One connection: a peer's saver is bound to the loop and locks the whole file.
            conn = await stack.enter_async_context(aiosqlite.connect(str(tmp_path / "peer.db")))
            peer = AsyncSqliteSaver(conn)
            await peer.setup()
            yield lambda **_: copy.copy(peer)
        else:
            from checkpoint_router import RouterSaver

            def make(**options: Any) -> BaseCheckpointSaver[Any]:
                chosen = {"target": router.target, "tenant": tenant}
                chosen |= options_of(storage) | options
                saver: BaseCheckpointSaver[Any] = RouterSaver(chosen.pop("target"), **chosen)
                stack.push_async_callback(_close, saver)
                return saver

            yield make


async def _close(saver: Any) -> None:
    await saver.aclose()
    await asyncio.to_thread(saver.close)


@pytest_asyncio.fixture
async def saver(make_saver: MakeSaver) -> BaseCheckpointSaver[Any]:
    """A saver over an empty tenant."""
    return make_saver()


@pytest.fixture(params=FLAVOURS)
def flavour(request: pytest.FixtureRequest) -> Flavour:
    """Which half of the saver a test calls; every behaviour is tested for both."""
    chosen: Flavour = request.param
    return chosen


@pytest.fixture
def calls(saver: BaseCheckpointSaver[Any], flavour: Flavour) -> Calls:
    """The saver under test, called through one of its halves."""
    return Calls(saver, flavour)


@pytest.fixture
def another(make_saver: MakeSaver, flavour: Flavour) -> Callable[..., Calls]:
    """Makes further savers over the same data: other processes, as far as a saver can tell."""
    return lambda **options: Calls(make_saver(**options), flavour)


@pytest.fixture
def alike(saver: BaseCheckpointSaver[Any], flavour: Flavour) -> Alike:
    """Runs a scenario on both savers, compares, and gives what it observed on ours."""

    async def compare(scenario: Scenario) -> list[Any]:
        expected = await observe(InMemorySaver(), flavour, scenario)
        found: list[Any] = await observe(saver, flavour, scenario)
        assert found == expected
        return found

    return compare
