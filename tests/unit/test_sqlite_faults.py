"""What breaks in a SQLite file hits the record it breaks, with its name, and nothing else."""

import asyncio
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from checkpoint_router.backends.sqlite import SqliteStorage
from checkpoint_router.core.answers import NewBlob
from checkpoint_router.core.errors import DataLoss, Unavailable
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
                conn.execute("DELETE FROM record WHERE id = 1")
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
