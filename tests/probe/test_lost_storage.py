"""A storage that lost what it had acknowledged, or takes nothing any more, is noticed and said.

What is lost is made by hand: between a kill and a start the write-ahead log is cut, which is what
a disk that lied about syncing leaves behind, or another storage is put in its place, which never
had it; under a router at work its directory is taken away.
"""

import resource
import shutil
import threading
from pathlib import Path
from typing import Any

import grpc
import pytest
from langgraph.checkpoint.base import empty_checkpoint, uuid6

from checkpoint_router import RouterSaver
from checkpoint_router.core.errors import DeadlineExceeded, Stale, TokenInvalid
from checkpoint_router.testing import RunningRouter, running_router
from checkpoint_router.v1 import admin_service_pb2 as admin
from checkpoint_router.v1 import admin_service_pb2_grpc as admin_grpc
from tests.probe.test_crash import until

pytestmark = pytest.mark.crash


def put(saver: RouterSaver, config: Any, step: int) -> Any:
    checkpoint = empty_checkpoint()
    checkpoint["id"] = str(uuid6(clock_seq=step))
    checkpoint["channel_values"] = {"value": "v" * 5000 + str(step)}
    checkpoint["channel_versions"] = {"value": f"{step:032}.5"}
    versions = checkpoint["channel_versions"]
    return saver.put(config, checkpoint, {"source": "loop", "step": step}, versions)


def root(thread: str) -> Any:
    return {"configurable": {"thread_id": thread, "checkpoint_ns": ""}}


def cut_the_log(router: RunningRouter, directory: Path, keep: int) -> None:
    """SIGKILL, then all of the write-ahead log after `keep` bytes is gone."""
    router.kill()
    (wal,) = directory.glob("*-wal")
    assert wal.stat().st_size > keep, "nothing is lost: the log is shorter than what is kept"
    with wal.open("r+b") as file:
        file.truncate(keep)
    router.start()


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    return tmp_path / "storage"


def test_a_token_notices_what_a_cut_log_lost(storage: Path) -> None:
    with (
        running_router(f"sqlite:{storage}") as router,
        RouterSaver(router.target, timeout_seconds=20) as saver,
        RouterSaver(router.target, timeout_seconds=20) as other,
    ):
        kept = put(saver, root("kept"), 0)
        before = put(saver, root("lost"), 0)
        (wal,) = storage.glob("*-wal")
        size = wal.stat().st_size
        after = put(saver, before, 1)

        cut_the_log(router, storage, size)

        with pytest.raises(Stale, match=r"does not know .*/2 of thread 'lost'"):
            saver.get_tuple(after)
        with pytest.raises(Stale):
            put(saver, after, 2)
        # Who never knew of the lost checkpoint gets what is there, whole.
        found = other.get_tuple(root("lost"))
        assert found is not None
        assert found.config == {**before}
        assert other.get_tuple(after) is None
        # Other threads go on, also for the saver that knows of the loss.
        assert saver.get_tuple(kept) is not None
        put(saver, kept, 1)
        # And so does this one, from a fresh read.
        assert saver.get_tuple(root("lost")) == found
        put(saver, root("lost"), 3)
        assert "missing" in router.log_text()


def test_a_router_whose_log_was_cut_says_so_at_once(storage: Path) -> None:
    with running_router(f"sqlite:{storage}") as router, RouterSaver(router.target) as saver:
        config = put(saver, root("t"), 0)
        (wal,) = storage.glob("*-wal")
        size = wal.stat().st_size
        put(saver, config, 1)
        said = router.log_text()
        cut_the_log(router, storage, size)
        assert "commit" in router.log_text().removeprefix(said)


def test_who_remembers_a_thread_is_told_when_the_next_router_has_another_storage(
    storage: Path,
) -> None:
    with running_router(f"sqlite:{storage}") as one, running_router("memory:") as other:
        both = f"{one.target},{other.target.removeprefix('router://')}"
        with RouterSaver(both, timeout_seconds=20) as saver:
            kept = put(saver, root("t"), 0)
            one.kill()
            with pytest.raises(Stale):
                put(saver, kept, 1)
            with pytest.raises(TokenInvalid, match="another storage"):
                saver.get_tuple(root("t"))
            # It was said; from here on there is what this storage has.
            assert saver.get_tuple(root("t")) is None


class Workers:
    """Four workers that write, each a thread of its own, until a put fails."""

    def __init__(self, target: str) -> None:
        self.gone = threading.Event()
        """Set once the storage is no more where it was."""
        self.acknowledged: list[tuple[Any, bool]] = []
        """Each put: its config, and whether it was begun after that."""
        self.errors: list[Exception] = []
        self._target = target
        self._workers = [
            threading.Thread(target=self._work, args=(f"w{n}",), daemon=True) for n in range(4)
        ]
        for worker in self._workers:
            worker.start()
        until(lambda: len(self.acknowledged) > 40, "puts")

    def join(self) -> None:
        """Until each has met its error."""
        until(lambda: not any(w.is_alive() for w in self._workers), "the workers to be refused")

    def _work(self, thread: str) -> None:
        config = root(thread)
        with RouterSaver(self._target, timeout_seconds=5) as saver:
            for step in range(100_000):
                late = self.gone.is_set()
                try:
                    config = put(saver, config, step)
                except Exception as e:
                    self.errors.append(e)
                    return
                self.acknowledged.append((config, late))


def alarms_of(router: RunningRouter) -> list[str]:
    with grpc.insecure_channel(router.address) as channel:
        stub: Any = admin_grpc.AdminServiceStub(channel)
        return list(stub.GetRouter(admin.GetRouterRequest(), timeout=20).alarms)


LOST = "was removed or renamed under the running router"


def refused(router: RunningRouter, *threads: str) -> None:
    """Nothing is stored or shown, not even what the router has in memory."""
    with RouterSaver(router.target, timeout_seconds=1) as saver:
        for thread in threads:
            with pytest.raises(DeadlineExceeded, match=LOST):
                saver.get_tuple(root(thread))
            with pytest.raises(DeadlineExceeded, match=LOST):
                put(saver, root(thread), 0)
        with pytest.raises(DeadlineExceeded, match=LOST):
            list(saver.list(None))


def taken_away(router: RunningRouter, workers: Workers) -> None:
    """What holds for a router from the moment at which its directory is gone."""
    workers.gone.set()
    workers.join()
    assert [LOST in str(e) for e in workers.errors] == [True] * 4, workers.errors
    assert not [config for config, late in workers.acknowledged if late]
    refused(router, "w0", "fresh")
    (alarm,) = alarms_of(router)
    assert LOST in alarm
    assert router.log_text().count('"event": "storage lost"') == 1


def test_a_directory_that_is_renamed_under_load_ends_all_answers_and_comes_back_whole(
    storage: Path,
) -> None:
    with running_router(f"sqlite:{storage}") as router:
        workers = Workers(router.target)
        storage.rename(storage.with_name("elsewhere"))
        taken_away(router, workers)
        storage.with_name("elsewhere").rename(storage)
        refused(router, "w0", "fresh")
        assert router.stop() == 0
        router.start()
        assert alarms_of(router) == []
        with RouterSaver(router.target, timeout_seconds=20) as saver:
            for config, _ in workers.acknowledged:
                found = saver.get_tuple(config)
                assert found is not None
                assert found.config == config


def test_a_directory_that_is_removed_under_load_ends_all_answers_and_frees_its_path(
    storage: Path,
) -> None:
    with running_router(f"sqlite:{storage}") as router:
        workers = Workers(router.target)
        shutil.rmtree(storage)
        taken_away(router, workers)
        with (
            running_router(f"sqlite:{storage}") as second,
            RouterSaver(second.target, timeout_seconds=20) as saver,
        ):
            config = put(saver, root("w0"), 0)
            refused(router, "w0")
            # Its end must not take away the files that stand in the place of its own.
            assert router.stop() == 0
            after = put(saver, config, 1)
            second.kill()
            second.start()
            found = saver.get_tuple(root("w0"))
            assert found is not None
            assert found.config == after
            assert alarms_of(second) == []


def test_a_disk_that_takes_nothing_is_logged_once_and_is_an_alarm_until_it_does(
    storage: Path,
) -> None:
    with (
        running_router(f"sqlite:{storage}") as router,
        RouterSaver(router.target, timeout_seconds=1) as saver,
    ):
        config = put(saver, root("t"), 0)
        (wal,) = storage.glob("*-wal")
        # Stands for a full disk, which needs one of the test's own.
        before = resource.prlimit(router.pid, resource.RLIMIT_FSIZE)
        limits = (wal.stat().st_size, before[1])
        resource.prlimit(router.pid, resource.RLIMIT_FSIZE, limits)
        for thread in ("a", "b", "c"):
            with pytest.raises(DeadlineExceeded, match="the storage failed at"):
                put(saver, root(thread), 0)
        (alarm,) = alarms_of(router)
        assert alarm.startswith("Writes have failed since ")
        assert "bytes are free on its file system" in alarm
        assert saver.get_tuple(config) is not None
        resource.prlimit(router.pid, resource.RLIMIT_FSIZE, before)
        put(saver, config, 1)
        until(lambda: alarms_of(router) == [], "the alarm to end")
        assert router.log_text().count('"event": "writes fail"') == 1
        assert router.log_text().count('"event": "writes go well again"') == 1


def test_a_directory_that_was_restored_whole_is_not_noticed_but_by_who_knows_more(
    storage: Path,
) -> None:
    with (
        running_router(f"sqlite:{storage}") as router,
        RouterSaver(router.target, timeout_seconds=20) as saver,
        RouterSaver(router.target, timeout_seconds=20) as other,
    ):
        before = put(saver, root("t"), 0)
        router.stop()
        shutil.copytree(storage, storage.with_name("copy"))
        router.start()
        after = put(saver, before, 1)
        router.stop()
        shutil.rmtree(storage)
        storage.with_name("copy").rename(storage)
        router.start()

        assert alarms_of(router) == []
        with pytest.raises(Stale, match=r"does not know .*/2 of thread 't'"):
            saver.get_tuple(after)
        found = other.get_tuple(root("t"))
        assert found is not None
        assert found.config == before
