"""The sync and the async half of `Links` behind one face, so that each test runs for both."""

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from checkpoint_router.client.links import Links
from checkpoint_router.client.target import Target
from checkpoint_router.v1 import checkpoint_service_pb2 as v1
from tests.probe.scripted_router import SECONDS_MAX

Answer = concurrent.futures.Future[str]
Meanwhile = Callable[[], None] | None


def request(key: str, verb: str = "echo", argument: str = "") -> v1.GetTupleRequest:
    """A call of the script; see `scripted_router`."""
    return v1.GetTupleRequest(thread_id=verb, checkpoint_ns=argument, checkpoint_id=key)


class Half:
    """Makes calls through one half, each beside the test."""

    def __init__(self, target: str) -> None:
        self.links = Links(Target.parse(target))

    def start(
        self,
        key: str,
        verb: str = "echo",
        argument: str = "",
        seconds: float = SECONDS_MAX,
        meanwhile: Meanwhile = None,
    ) -> Answer:
        """Begins a call; the future has the key that came back."""
        raise NotImplementedError

    def call(self, *arguments: Any, **named: Any) -> str:
        """As `start`, and waits."""
        return self.start(*arguments, **named).result(SECONDS_MAX * 2)

    def close(self) -> None:
        raise NotImplementedError


class SyncHalf(Half):
    """Each call in a worker of its own."""

    def start(
        self,
        key: str,
        verb: str = "echo",
        argument: str = "",
        seconds: float = SECONDS_MAX,
        meanwhile: Meanwhile = None,
    ) -> Answer:
        return beside(
            lambda: self.links.call(
                "get_tuple",
                request(key, verb, argument),
                timeout_seconds=seconds,
                meanwhile=meanwhile,
            ).token.decode()
        )

    def close(self) -> None:
        self.links.close()


class AsyncHalf(Half):
    """Each call a task of one loop, which runs in a worker."""

    def __init__(self, target: str, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(target)
        self._loop = loop

    def start(
        self,
        key: str,
        verb: str = "echo",
        argument: str = "",
        seconds: float = SECONDS_MAX,
        meanwhile: Meanwhile = None,
    ) -> Answer:
        async def one() -> str:
            message = request(key, verb, argument)
            answer = await self.links.acall(
                "get_tuple", message, timeout_seconds=seconds, meanwhile=meanwhile
            )
            return str(answer.token.decode())

        return asyncio.run_coroutine_threadsafe(one(), self._loop)

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self.links.aclose(), self._loop).result(SECONDS_MAX)


@contextmanager
def half_of(kind: str, target: str) -> Iterator[Half]:
    """One half, closed at the end."""
    if kind == "sync":
        half: Half = SyncHalf(target)
        try:
            yield half
        finally:
            half.close()
        return
    with running_loop() as loop:
        half = AsyncHalf(target, loop)
        try:
            yield half
        finally:
            half.close()


@contextmanager
def running_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """A loop that runs in a worker, ended as `asyncio.run` ends one."""
    started: concurrent.futures.Future[asyncio.AbstractEventLoop] = concurrent.futures.Future()
    stop: list[asyncio.Event] = []

    async def main() -> None:
        stopped = asyncio.Event()
        stop.append(stopped)
        started.set_result(asyncio.get_running_loop())
        await stopped.wait()

    worker = threading.Thread(target=lambda: asyncio.run(main()))
    worker.start()
    try:
        yield started.result(SECONDS_MAX)
    finally:
        started.result().call_soon_threadsafe(stop[0].set)
        worker.join(SECONDS_MAX)


def beside(work: Callable[[], str]) -> Answer:
    """Does `work` in a worker of its own, however many there are already."""
    future: Answer = concurrent.futures.Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future
