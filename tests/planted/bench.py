"""What a check needs, with the router in this process, so that a planted fault reaches all floors.

Owner: `Bench` owns one router on a worker of its own, and all that its checks open. A check is a
test of the suite, or a scene of `scenes`; it names what it needs as a fixture would be named.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
from langgraph.checkpoint.memory import InMemorySaver

from checkpoint_router import RouterSaver
from checkpoint_router.client import links
from checkpoint_router.core.ids import ThreadKey
from checkpoint_router.server import serve
from checkpoint_router.server.settings import Settings
from checkpoint_router.v1.admin_service_pb2 import ListThreadsRequest
from checkpoint_router.v1.admin_service_pb2_grpc import AdminServiceStub
from tests.saver.caches import options_of
from tests.saver.calls import Calls, Flavour, Runs
from tests.saver.conftest import conflicts_of
from tests.saver.likeness import observe
from tests.wire.raw import Stream, ask_on_stream

Check = Callable[..., Any]
Plant = Callable[[pytest.MonkeyPatch], None]

SECONDS_MAX: Final = 30.0
"""For a router in this process to start or to end."""

CAUGHT: Final = (AssertionError, pytest.fail.Exception)
"""How a test says that something is wrong: an assertion, or an error that did not come."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One planted fault, and the check that must notice it."""

    name: str
    plant: Plant
    check: Check
    given: Mapping[str, Any] = field(default_factory=dict)
    """Parameters of the check that no fixture makes."""
    given_when_planted: Mapping[str, Any] = field(default_factory=dict)
    """Others of them while the fault is planted: for a check in a process of its own."""
    raises: tuple[type[BaseException], ...] = CAUGHT
    """How the check fails. A fault that breaks otherwise is a mistake in the plant."""
    cache: str = ""
    """Which of the small caches its savers have (`tests.saver.caches`); the usual one."""


class Router:
    """A router in this process, on a loop and a worker of its own."""

    def __init__(self, storage: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._worker = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._worker.start()
        settings = Settings(storage=storage, listen="127.0.0.1:0")
        self.running = self.do(serve.start(settings, asyncio.Event()))
        self.address = self.running.address
        self.target = f"router://{self.address}"

    def do(self, work: Any) -> Any:
        """Runs a coroutine on the router's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(SECONDS_MAX)

    def close(self) -> None:
        """Ends router, loop and worker."""
        self.do(serve.stop(self.running, 2.0))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._worker.join(SECONDS_MAX)
        self._loop.close()


class Bench:
    """Runs checks against one router; each check has a tenant of its own."""

    def __init__(
        self, router: Router, patch: pytest.MonkeyPatch, directory: Path, cache: str = ""
    ) -> None:
        self._router = router
        self._patch = patch
        self._directory = directory
        self._saver_options = options_of(cache)
        # gRPC's asyncio half serves one loop of a process well, and the router's loop has it.
        patch.setattr(links.Links, "_of_loop", links.Links._of_process)

    def run(self, check: Check, given: Mapping[str, Any]) -> None:
        """Runs a check; what it raises is raised."""
        with contextlib.ExitStack() as stack:
            place = self._directory / uuid.uuid4().hex
            made = _Made(self._router, self._patch, place, stack, self._saver_options)
            if inspect.iscoroutinefunction(check):
                asyncio.run(self._arun(check, made, given))
            else:
                check(**made.arguments(check, given))

    @staticmethod
    async def _arun(check: Check, made: _Made, given: Mapping[str, Any]) -> None:
        try:
            await check(**made.arguments(check, given))
            if not _is_about_rivals(check):
                await asyncio.to_thread(made.look_for_conflicts)
        finally:
            await made.aclose()


class _Made:
    """What one check was given, made when it is asked for. Each name is that of a fixture."""

    def __init__(
        self,
        router: Router,
        patch: pytest.MonkeyPatch,
        directory: Path,
        stack: ExitStack,
        saver_options: Mapping[str, Any],
    ) -> None:
        self._stack = stack
        self._saver_options = saver_options
        self._directory = directory
        self._savers: list[RouterSaver] = []
        self._known: dict[str, Any] = {
            "router": router,
            "monkeypatch": patch,
            "tenant": f"test-{uuid.uuid4().hex}",
            "flavour": "sync",
            "ask": ask_on_stream,
            "thread": ThreadKey("acme", f"thread-{uuid.uuid4().hex}"),
            "segment": uuid.uuid4().bytes,
        }

    def arguments(self, check: Check, given: Mapping[str, Any]) -> dict[str, Any]:
        """What the check is called with."""
        self._known.update(given)
        return {name: self.get(name) for name in inspect.signature(check).parameters}

    def get(self, name: str) -> Any:
        """The fixture of that name, made once."""
        if name not in self._known:
            self._known[name] = getattr(self, f"_{name}")()
        return self._known[name]

    def look_for_conflicts(self) -> None:
        """What the fixture `undisputed` looks for after a test."""
        admin: Any = self.get("admin")
        tenant: str = self.get("tenant")
        asked = admin.ListThreads(ListThreadsRequest(tenant=tenant, limit=1000))
        for each in asked.threads:
            found = conflicts_of(admin, tenant, each.thread_id).conflicts
            assert not found, "sequential use made conflicts"

    async def aclose(self) -> None:
        """Closes what was opened."""
        for saver in self._savers:
            await asyncio.to_thread(saver.close)

    def _tmp_path(self) -> Path:
        self._directory.mkdir()
        return self._directory

    def _admin(self) -> Any:
        channel = grpc.insecure_channel(self.get("router").address)
        return AdminServiceStub(self._stack.enter_context(channel))

    def _bystander(self) -> Stream:
        return self._stack.enter_context(Stream(self.get("router").address))

    def _saver(self) -> RouterSaver:
        return self._new_saver()

    def _new_saver(self, **options: Any) -> RouterSaver:
        chosen = {"target": self.get("router").target, "tenant": self.get("tenant")}
        chosen |= {**self._saver_options, **options}
        saver = RouterSaver(chosen.pop("target"), **chosen)
        self._savers.append(saver)
        return saver

    def _make_saver(self) -> Callable[..., RouterSaver]:
        return self._new_saver

    def _calls(self) -> Calls:
        return Calls(self.get("saver"), self.get("flavour"))

    def _another(self) -> Callable[..., Calls]:
        return lambda **options: Calls(self._new_saver(**options), self.get("flavour"))

    def _graph(self) -> Callable[[Any], Runs]:
        flavour: Flavour = self.get("flavour")
        return lambda builder: Runs(builder.compile(checkpointer=self.get("saver")), flavour)

    def _alike(self) -> Any:
        async def compare(scenario: Any) -> Any:
            expected = await observe(InMemorySaver(), self.get("flavour"), scenario)
            found = await observe(self.get("saver"), self.get("flavour"), scenario)
            assert found == expected
            return found

        return compare


def _is_about_rivals(check: Check) -> bool:
    return any(mark.name == "rivals" for mark in getattr(check, "pytestmark", ()))


@contextlib.contextmanager
def a_router(storage: str = "memory:") -> Iterator[Router]:
    """A router as long as the block."""
    router = Router(storage)
    try:
        yield router
    finally:
        router.close()
