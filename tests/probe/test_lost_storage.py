"""A storage that lost what it had acknowledged is noticed, said, and never half shown.

The loss is made by hand, between a kill and a start: the write-ahead log is cut, which is what a
disk that lied about syncing leaves behind. So is another storage, which never had it.
"""

from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.base import empty_checkpoint, uuid6

from checkpoint_router import RouterSaver
from checkpoint_router.core.errors import Stale, TokenInvalid
from checkpoint_router.testing import RunningRouter, running_router

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
