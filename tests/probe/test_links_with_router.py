"""Links and the real router: it is stopped, killed and started under calls, and no call fails."""

import asyncio
import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from checkpoint_router.client.links import Links
from checkpoint_router.client.target import Target
from checkpoint_router.core.digests import blob_hash
from checkpoint_router.core.errors import InvalidArgument
from checkpoint_router.testing import RunningRouter, running_router
from checkpoint_router.v1 import checkpoint_service_pb2 as v1
from tests.probe.halves import running_loop
from tests.probe.scripted_router import SECONDS_MAX

CALLERS = 6


class Load:
    """Callers that store one blob after the other until they are told to stop."""

    def __init__(self, links: Links) -> None:
        self.links = links
        self.stored: list[bytes] = []
        self.failures: list[BaseException] = []
        self.stopping = False
        self._changed = threading.Condition()

    def wait_for_more(self, count: int) -> None:
        """Until so many more blobs were acknowledged than now."""
        with self._changed:
            goal = len(self.stored) + count
            enough = self._changed.wait_for(
                lambda: len(self.stored) >= goal or self.failures, SECONDS_MAX
            )
        assert not self.failures, self.failures[0]
        assert enough, f"stuck at {len(self.stored)} of {goal}"

    def put(self, caller: int) -> None:
        """A caller in a worker."""
        try:
            for request, name in self._requests(caller):
                self.links.call("put_blobs", request, timeout_seconds=SECONDS_MAX)
                self._note(name)
        except BaseException as error:
            self._note(None, error)

    async def aput(self, caller: int) -> None:
        """A caller in a task."""
        try:
            for request, name in self._requests(caller):
                await self.links.acall("put_blobs", request, timeout_seconds=SECONDS_MAX)
                self._note(name)
        except BaseException as error:
            self._note(None, error)

    def _requests(self, caller: int) -> Iterator[tuple[v1.PutBlobsRequest, bytes]]:
        for turn in itertools.count():
            if self.stopping or self.failures:
                return
            yield blob_request(caller, turn)

    def _note(self, name: bytes | None, error: BaseException | None = None) -> None:
        with self._changed:
            if name:
                self.stored.append(name)
            if error:
                self.failures.append(error)
            self._changed.notify_all()


def blob_request(caller: int, turn: int) -> tuple[v1.PutBlobsRequest, bytes]:
    data = f"{caller}/{turn}".encode()
    request = v1.PutBlobsRequest(tenant="t", thread_id="thread", generation=1)
    name = blob_hash("bytes", data)
    blob = request.blobs.add(hash=name)
    blob.value.type, blob.value.data = "bytes", data
    return request, name


@contextmanager
def load_of(kind: str, target: str) -> Iterator[Load]:
    """Calls without end through one half; none of them may fail."""
    load = Load(Links(Target.parse(target)))
    try:
        if kind == "sync":
            workers = [threading.Thread(target=load.put, args=(n,)) for n in range(CALLERS)]
            for worker in workers:
                worker.start()
            try:
                yield load
            finally:
                load.stopping = True
                for worker in workers:
                    worker.join(SECONDS_MAX)
        else:
            with running_loop() as loop:
                tasks = [
                    asyncio.run_coroutine_threadsafe(load.aput(n), loop) for n in range(CALLERS)
                ]
                try:
                    yield load
                finally:
                    load.stopping = True
                    for task in tasks:
                        task.result(SECONDS_MAX)
        assert not load.failures
    finally:
        load.links.close()


def readable(router: RunningRouter, names: list[bytes]) -> set[bytes]:
    """Those of the blobs that the router gives back."""
    links = Links(Target.parse(router.target))
    found: set[bytes] = set()
    for start in range(0, len(names), 1000):
        request = v1.GetBlobsRequest(
            tenant="t", thread_id="thread", hashes=names[start : start + 1000]
        )
        answer: Any = links.call("get_blobs", request, timeout_seconds=SECONDS_MAX)
        found.update(blob.hash for blob in answer.blobs)
    links.close()
    return found


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_router_stopped_killed_and_started_under_calls_fails_none_of_them(
    kind: str, tmp_path: Path
) -> None:
    with running_router(storage=f"sqlite:{tmp_path}") as router:
        with load_of(kind, router.target) as load:
            load.wait_for_more(60)
            assert router.stop() == 0
            router.start()
            load.wait_for_more(60)
            router.kill()
            router.start()
            load.wait_for_more(60)
        assert set(load.stored) <= readable(router, load.stored)


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_an_error_of_the_router_keeps_its_class_and_its_words(kind: str) -> None:
    with running_router() as router:
        links = Links(Target.parse(router.target))
        request = v1.GetTupleRequest(tenant="t", thread_id="")

        def call() -> None:
            if kind == "sync":
                links.call("get_tuple", request, timeout_seconds=SECONDS_MAX)
            else:
                asyncio.run(links.acall("get_tuple", request, timeout_seconds=SECONDS_MAX))

        with pytest.raises(InvalidArgument, match="thread_id is empty"):
            call()
        links.close()
