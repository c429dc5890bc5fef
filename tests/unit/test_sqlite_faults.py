"""What breaks in a SQLite file hits the record it breaks, with its name, and nothing else."""

import asyncio
import os
import re
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from checkpoint_router.backends.sqlite import SqliteStorage, watch
from checkpoint_router.core.answers import NewBlob
from checkpoint_router.core.errors import DataLoss, RouterError, Unavailable
from checkpoint_router.core.ids import Dot, ThreadKey
from checkpoint_router.storage.port import Append, Erase, Stored
from tests import builders as b

from .sqlite_shard import OTHER, checkpoint, fill, on_writer, shard, tables


def flip(file: Path, text: bytes, at: int = 0) -> None:
    """Changes one byte of the file, where `text` stands."""
    data = bytearray(file.read_bytes())
    place = data.find(text)
    assert place >= 0
    data[place + at] ^= 0xFF
    file.write_bytes(data)


def wreck(file: Path, text: bytes, page: int = 8192) -> None:
    """Overwrites the whole page on which `text` stands."""
    data = bytearray(file.read_bytes())
    start = data.find(text) // page * page
    assert start > 0
    data[start : start + page] = b"\xa5" * page
    file.write_bytes(data)


async def others_go_on(storage: SqliteStorage, number: int) -> None:
    """Another thread reads what it had, writes, and reads that."""
    before = checkpoint(1, thread=OTHER)
    after = checkpoint(number, thread=OTHER)
    assert isinstance(await storage.append(after), Stored)
    read = await storage.events(OTHER, 1, [before.entry.id, after.entry.id])
    assert read == {x.entry.id: x.packed for x in (before, after)}
    blobs = await storage.blobs(OTHER, 1, [*before.names, *after.names], 1 << 20)
    assert len(blobs.found) == 2
    assert before.entry in (await storage.image(OTHER)).entries


class TestDamage:
    async def test_a_flipped_byte_of_an_event_is_named(self, tmp_path: Path) -> None:
        async with shard(tmp_path) as storage:
            await fill(storage, 1, 3)
            await fill(storage, 1, 3, thread=OTHER)
        flip(storage.file, b"<body t1 2>", 5)
        async with shard(tmp_path) as storage:
            good, bad = checkpoint(1).entry.id, checkpoint(2).entry.id
            with pytest.raises(DataLoss, match=f"event {bad} of thread 't1'.*checksum") as caught:
                await storage.events(b.THREAD, 1, [good, bad])
            assert caught.value.attributes["thread"] == "t1"
            assert list(await storage.events(b.THREAD, 1, [good])) == [good]
            assert isinstance(await storage.append(checkpoint(9)), Stored)
            await others_go_on(storage, 9)

    async def test_a_flipped_byte_of_a_value_is_named(self, tmp_path: Path) -> None:
        async with shard(tmp_path) as storage:
            await fill(storage, 1, 3)
            await fill(storage, 1, 3, thread=OTHER)
        flip(storage.file, b"<blob t1 2>", 5)
        async with shard(tmp_path) as storage:
            (good,), (bad,) = checkpoint(1).names, checkpoint(2).names
            with pytest.raises(DataLoss, match=f"value {bad.hex()[:16]} of thread 't1'"):
                await storage.blobs(b.THREAD, 1, [good, bad], 1 << 20)
            assert list((await storage.blobs(b.THREAD, 1, [good], 1 << 20)).found) == [good]
            await others_go_on(storage, 9)

    async def test_a_flipped_byte_of_a_log_is_named_for_each_value_that_needs_it(
        self, tmp_path: Path
    ) -> None:
        first = b.new_blob(b"\x91" + b"begin" * 500)
        second = b.new_blob(first.value.data + b"<tail>" * 100, continues=first)
        async with shard(tmp_path) as storage:
            await storage.put_blobs(b.THREAD, 1, [first, second])
        flip(storage.file, b"<tail>")
        async with shard(tmp_path) as storage:
            assert (await storage.blobs(b.THREAD, 1, [first.hash], 1 << 20)).found
            with pytest.raises(DataLoss, match=f"value {second.hash.hex()[:16]}"):
                await storage.blobs(b.THREAD, 1, [second.hash], 1 << 20)

    async def test_a_flipped_byte_of_an_index_entry_is_named(self, tmp_path: Path) -> None:
        async with shard(tmp_path) as storage:
            await fill(storage, 1, 3)
            await fill(storage, 1, 3, thread=OTHER)
        with tables(storage) as conn:
            (entry,) = conn.execute("SELECT entry FROM event WHERE t = 1 AND idx = 2").fetchone()
            broken = entry[:40] + bytes([entry[40] ^ 1]) + entry[41:]
            conn.execute("UPDATE event SET entry = ? WHERE t = 1 AND idx = 2", (broken,))
        async with shard(tmp_path) as storage:
            bad = checkpoint(2)
            with pytest.raises(DataLoss, match=f"index entry of event {bad.entry.id}"):
                await storage.image(b.THREAD)
            with pytest.raises(DataLoss, match=f"index entry of event {bad.entry.id}"):
                await storage.append(bad)
            await others_go_on(storage, 9)

    async def test_an_event_whose_record_is_gone_is_named(self, tmp_path: Path) -> None:
        async with shard(tmp_path) as storage:
            await fill(storage, 1, 2)
            with tables(storage) as conn:
                conn.execute("UPDATE event SET body = NULL WHERE id = 1")
            with pytest.raises(DataLoss, match=r"event .*/1 of thread 't1'.*not there"):
                await storage.events(b.THREAD, 1, [checkpoint(1).entry.id])

    async def test_a_wrecked_page_is_named_and_other_threads_go_on(self, tmp_path: Path) -> None:
        async with shard(tmp_path) as storage:
            await fill(storage, 1, 40)
            await fill(storage, 1, 40, thread=OTHER)
        wreck(storage.file, b"<body t1 7>")
        async with shard(tmp_path) as storage:
            bad = checkpoint(7)
            with pytest.raises(DataLoss, match=f"event {bad.entry.id} of thread 't1'.*damaged"):
                await storage.events(b.THREAD, 1, [bad.entry.id])
            await others_go_on(storage, 41)

    async def test_a_write_that_meets_a_wrecked_page_fails_alone(self, tmp_path: Path) -> None:
        blob = checkpoint(7).blobs[0]
        async with shard(tmp_path) as storage:
            await fill(storage, 1, 40)
            await fill(storage, 1, 40, thread=OTHER)
        wreck(storage.file, b"<blob t1 7>")
        async with shard(tmp_path) as storage:
            grown = b.new_blob(blob.value.data + b"more", continues=blob)
            bad = b.append(b.checkpoint_event("s", 99, blobs=[grown]), blobs=[grown])
            good = [checkpoint(n, thread=OTHER) for n in range(41, 61)]
            broken, *answers = await asyncio.gather(
                storage.append(bad), *(storage.append(x) for x in good), return_exceptions=True
            )
            assert isinstance(broken, DataLoss)
            assert f"event {bad.entry.id} of thread 't1'" in broken.message
            assert answers == [Stored(Dot(storage.actor, n)) for n in range(1, 21)]


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """No file of this process may grow beyond `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def free_pages(patch: pytest.MonkeyPatch, number: int) -> None:
    """Stands for a disk that is filling, which needs one of the test's own: what the system says
    of each is that so many of a million pages are free."""
    said = (4096, 4096, 1_000_000, number, number, 1000, 1000, 1000, 0, 255)
    patch.setattr(os, "statvfs", lambda _: os.statvfs_result(said))


class TestFullDisk:
    async def test_what_does_not_fit_fails_alone_and_can_be_repeated(self, tmp_path: Path) -> None:
        async with shard(tmp_path) as storage:
            await fill(storage, 1, 3)
            # Stands for a full disk: a page that is not there yet cannot be had.
            on_writer(storage, "PRAGMA max_page_count = 60")
            large = checkpoint(4, size=200_000)
            small = [checkpoint(n, thread=OTHER, size=1) for n in range(1, 11)]
            full, *answers = await asyncio.gather(
                storage.append(large), *(storage.append(x) for x in small), return_exceptions=True
            )
            assert isinstance(full, Unavailable)
            assert "free some space" in full.message
            assert f"event {large.entry.id} of thread 't1'" in full.message
            assert answers == [Stored(Dot(storage.actor, n)) for n in range(1, 11)]
            assert len((await storage.image(b.THREAD)).entries) == 3
            assert await storage.missing_blobs(b.THREAD, 1, large.names) == large.names
            on_writer(storage, "PRAGMA max_page_count = 1000000")
            assert await storage.append(large) == Stored(Dot(storage.actor, 4))

    async def test_a_commit_that_cannot_be_written_fails_its_group_and_can_be_repeated(
        self, tmp_path: Path
    ) -> None:
        async with shard(tmp_path) as storage:
            await fill(storage, 1, 3)
            wal = storage.file.with_name(storage.file.name + "-wal")
            puts = [checkpoint(n, size=5000) for n in range(4, 20)]
            with file_size_limit(wal.stat().st_size + 10_000):
                failed = await asyncio.gather(
                    *(storage.append(x) for x in puts), return_exceptions=True
                )
            assert all(isinstance(x, Unavailable) for x in failed)
            image = await storage.image(b.THREAD)
            assert len(image.entries) == 3
            answers = [await storage.append(x) for x in puts]
            assert answers == [Stored(Dot(storage.actor, n)) for n in range(4, 20)]
        async with shard(tmp_path) as storage:
            assert len((await storage.image(b.THREAD)).entries) == 19
            assert storage.gap is None
        with tables(storage) as conn:
            assert conn.execute("PRAGMA integrity_check").fetchall() == [("ok",)]

    async def test_it_is_logged_once_and_is_an_alarm_until_writes_go_well_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with capture_logs() as logged:
            async with shard(tmp_path) as storage:
                await fill(storage, 1, 3)
                on_writer(storage, "PRAGMA max_page_count = 60")
                for number in range(4, 8):
                    with pytest.raises(Unavailable):
                        await storage.append(checkpoint(number, size=200_000))
                    # A small one fits in between, and is not the end of it.
                    await fill(storage, number + 10, number + 10, size=1)
                (alarm,) = (await storage.facts()).alarms
                assert re.match(r"Writes have failed since .*free some space.* bytes are", alarm)
                on_writer(storage, "PRAGMA max_page_count = 1000000")
                monkeypatch.setattr(watch, "QUIET_SECONDS", 0.0)
                await fill(storage, 4, 5)
                assert (await storage.facts()).alarms == ()
        events = [(line["event"], line["log_level"]) for line in logged]
        assert events == [("writes fail", "error"), ("writes go well again", "warning")]
        assert "free some space" in logged[0]["text"]
        assert logged[0]["free_bytes"] > 0

    async def test_a_disk_that_is_nearly_full_is_said_before_writes_fail(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(watch, "LOOK_SECONDS", 0.0)
        with capture_logs() as logged:
            async with shard(tmp_path) as storage:
                await fill(storage, 1, 1)
                assert (await storage.facts()).alarms == ()
                free_pages(monkeypatch, 3)
                await fill(storage, 2, 4)
                (alarm,) = (await storage.facts()).alarms
                assert f"12,288 bytes are free on its file system ({tmp_path})" in alarm
        assert [(line["event"], line["text"]) for line in logged] == [("alarm", alarm)]

    @pytest.mark.parametrize("limit", [0, 8192])
    async def test_a_start_on_it_says_that_it_is_full(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int
    ) -> None:
        with monkeypatch.context() as patch, file_size_limit(limit):
            free_pages(patch, 0)
            with pytest.raises(RouterError, match=r"The disk is full: 0 bytes are free"):
                await SqliteStorage(tmp_path).open()
        async with shard(tmp_path) as storage:
            await fill(storage, 1, 1)

    async def test_a_first_event_that_failed_leaves_no_half_known_thread(
        self, tmp_path: Path
    ) -> None:
        async with shard(tmp_path) as storage:
            on_writer(storage, "PRAGMA max_page_count = 30")
            with pytest.raises(Unavailable):
                await storage.append(checkpoint(1, size=200_000))
            on_writer(storage, "PRAGMA max_page_count = 1000000")
            assert await storage.append(checkpoint(1)) == Stored(Dot(storage.actor, 1))
            assert await storage.threads("acme", "", 9) == ["t1"]


async def test_a_file_that_may_not_be_written_can_still_be_read(tmp_path: Path) -> None:
    async with shard(tmp_path) as storage:
        await fill(storage, 1, 3)
        # Stands for a file system that was mounted read-only after an error.
        on_writer(storage, "PRAGMA query_only = ON")
        with pytest.raises(Unavailable, match="permissions and its mount"):
            await storage.append(checkpoint(4))
        with pytest.raises(Unavailable, match="permissions and its mount"):
            await storage.delete(b.THREAD, 1)
        assert len((await storage.image(b.THREAD)).entries) == 3
        on_writer(storage, "PRAGMA query_only = OFF")
        assert await storage.append(checkpoint(4)) == Stored(Dot(storage.actor, 4))


async def test_a_lock_of_another_program_is_waited_for_then_named(tmp_path: Path) -> None:
    async with shard(tmp_path) as storage:
        await fill(storage, 1, 1)
        on_writer(storage, "PRAGMA busy_timeout = 1")
        with tables(storage) as conn:
            conn.execute("BEGIN IMMEDIATE")
            with pytest.raises(Unavailable, match="Another process holds"):
                await storage.append(checkpoint(2))
            conn.execute("ROLLBACK")
        assert await storage.append(checkpoint(2)) == Stored(Dot(storage.actor, 2))


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def rename(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))


def replace(path: Path) -> None:
    copy = path.with_name("copy")
    (shutil.copytree if path.is_dir() else shutil.copy)(path, copy)
    rename(path)
    copy.rename(path)


class TestLostFiles:
    @pytest.mark.parametrize("harm", [remove, rename, replace], ids=lambda harm: harm.__name__)
    @pytest.mark.parametrize("name", ["", "shard-0.sqlite3", "shard-0.sqlite3-wal", "shard-0.lock"])
    async def test_nothing_is_acknowledged_or_shown_once_a_file_is_not_the_one_that_was_opened(
        self, tmp_path: Path, name: str, harm: Callable[[Path], None]
    ) -> None:
        directory = tmp_path / "storage"
        with capture_logs() as logged:
            async with shard(directory) as storage:
                await fill(storage, 1, 3)
                harm(directory / name)
                for verb in (
                    lambda: storage.append(checkpoint(4)),
                    lambda: storage.append(checkpoint(1)),
                    lambda: storage.put_blobs(b.THREAD, 1, checkpoint(5).blobs),
                    lambda: storage.delete(b.THREAD, 1),
                    lambda: storage.image(b.THREAD),
                    lambda: storage.threads("acme", "", 9),
                ):
                    with pytest.raises(Unavailable, match="under the running router") as caught:
                        await verb()
                    assert str(directory) in caught.value.message
                with pytest.raises(Unavailable, match="start the router again") as caught:
                    storage.check()
                assert caught.value.message in (await storage.facts()).alarms
        (line,) = logged
        assert (line["event"], line["log_level"]) == ("storage lost", "error")

    async def test_a_relative_directory_is_watched_where_it_was(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "here").mkdir()
        monkeypatch.chdir(tmp_path / "here")
        async with shard(Path("storage")) as storage:
            await fill(storage, 1, 1)
            (tmp_path / "here").rename(tmp_path / "elsewhere")
            with pytest.raises(Unavailable, match="was removed or renamed"):
                await storage.append(checkpoint(2))

    async def test_a_database_that_is_a_link_is_watched_where_it_leads(
        self, tmp_path: Path
    ) -> None:
        async with shard(tmp_path / "storage") as storage:
            await fill(storage, 1, 1)
        real = tmp_path / "real.sqlite3"
        storage.file.rename(real)
        storage.file.symlink_to(real)
        async with shard(tmp_path / "storage") as storage:
            await fill(storage, 2, 2)
            real.rename(tmp_path / "elsewhere")
            with pytest.raises(Unavailable, match="was removed or renamed"):
                await storage.append(checkpoint(3))

    async def test_facts_find_it_without_a_write(self, tmp_path: Path) -> None:
        async with shard(tmp_path / "storage") as storage:
            await fill(storage, 1, 3)
            shutil.rmtree(tmp_path / "storage")
            facts = await storage.facts()
            assert "was removed or renamed under the running router" in facts.alarms[0]
            assert facts.details["file_bytes"] == "0"

    async def test_a_reader_that_comes_late_does_not_show_another_database(
        self, tmp_path: Path
    ) -> None:
        async with shard(tmp_path / "other") as other:
            await fill(other, 1, 3)
        async with shard(tmp_path / "storage") as storage:
            shutil.copy(other.file, tmp_path / "copy")
            (tmp_path / "copy").rename(storage.file)
            with pytest.raises(Unavailable, match="replaced by another file"):
                await storage.image(b.THREAD)

    async def test_a_directory_that_came_back_is_whole_at_the_next_start(
        self, tmp_path: Path
    ) -> None:
        directory = tmp_path / "storage"
        async with shard(directory) as storage:
            await fill(storage, 1, 3)
            directory.rename(tmp_path / "elsewhere")
            with pytest.raises(Unavailable):
                await storage.append(checkpoint(4))
            (tmp_path / "elsewhere").rename(directory)
            with pytest.raises(Unavailable, match="under the running router"):
                await storage.append(checkpoint(4))
        async with shard(directory) as storage:
            entries = (await storage.image(b.THREAD)).entries
            assert {checkpoint(n).entry.id for n in range(1, 4)} <= {e.id for e in entries}
            assert storage.gap is None
            assert (await storage.facts()).alarms == ()


def values(thread: ThreadKey) -> list[NewBlob]:
    """Small, large and growing values, each with the thread's name all through."""
    text = f"<{thread.thread} secret>".encode()
    small = b.new_blob(text)
    large = b.new_blob(b"\x91" + text * 8_000)
    grown = b.new_blob(large.value.data + text * 2_000, continues=large)
    forked = b.new_blob(large.value.data + b"fork" + text * 500, continues=large)
    return [small, large, grown, forked]


def everything_in(directory: Path) -> bytes:
    """The bytes of all files."""
    return b"".join(f.read_bytes() for f in directory.iterdir())


class TestErasure:
    """I14, in one storage."""

    async def fill(self, storage: SqliteStorage, thread: ThreadKey) -> list[Append]:
        """Thirty events with payload in records, entries and every kind of value."""
        text = f"<{thread.thread} secret>"
        appends = []
        for number in range(1, 31):
            event = b.checkpoint_event(
                "s",
                number,
                checkpoint_id=f"c{number}",
                blobs=values(thread),
                body=text.encode() * (1 + number * 20),
            )
            appends.append(b.append(event, thread=thread, blobs=values(thread)))
            assert isinstance(await storage.append(appends[-1]), Stored)
        return appends

    async def test_a_deleted_thread_leaves_no_byte_of_payload_in_the_file(
        self, tmp_path: Path
    ) -> None:
        async with shard(tmp_path) as storage:
            await self.fill(storage, b.THREAD)
            await self.fill(storage, OTHER)
            await storage.delete(b.THREAD, 1)
        data = everything_in(tmp_path)
        assert data.count(b"<t2 secret>") > 10_000
        assert data.count(b"<t1 secret>") == 0

    async def test_pruned_events_leave_no_byte_of_payload_in_the_file(self, tmp_path: Path) -> None:
        async with shard(tmp_path) as storage:
            appends = await self.fill(storage, b.THREAD)
            await self.fill(storage, OTHER)
            erase = Erase(
                thread=b.THREAD,
                gen=1,
                operation=b"o" * 16,
                events=tuple(x.entry.id for x in appends),
                blobs=appends[0].names,
                stored=30,
            )
            assert await storage.erase(erase)
        data = everything_in(tmp_path)
        assert data.count(b"<t2 secret>") > 10_000
        assert data.count(b"<t1 secret>") == 0
