"""A SQLite shard's file: held by one process, migrated forward, watched over restarts."""

import asyncio
import gc
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import weakref
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from threading import current_thread

import pytest

from checkpoint_router.backends.sqlite import SqliteStorage, schema, writer
from checkpoint_router.core.errors import InvalidArgument, Refused, StorageInUse, Unavailable
from checkpoint_router.core.ids import ThreadKey
from checkpoint_router.storage.port import Duplicate, MissingBlobs, Stored
from tests import builders as b

from .sqlite_shard import checkpoint, fill, on_writer, shard, tables

ROOT = Path(__file__).parents[2]


def holder(directory: Path, task: str, number: int = 1) -> "subprocess.Popen[str]":
    """Another process that holds the shard, after its first answer."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.contract.child", f"sqlite:{directory}", task, str(number)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("ack")
    return process


def kill(process: "subprocess.Popen[str]") -> None:
    """SIGKILL, and the wait for its effect."""
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=20)


class TestOneHolder:
    async def test_a_second_process_is_refused_and_told_who_holds_it(self, tmp_path: Path) -> None:
        process = holder(tmp_path, "append")
        try:
            with pytest.raises(StorageInUse, match=f"id {process.pid}") as caught:
                await SqliteStorage(tmp_path).open()
            assert caught.value.attributes["pid"] == str(process.pid)
        finally:
            kill(process)
        async with shard(tmp_path) as storage:
            assert len((await storage.image(b.THREAD)).entries) == 1

    async def test_a_second_storage_in_one_process_is_refused_too(self, tmp_path: Path) -> None:
        async with shard(tmp_path) as storage:
            second = SqliteStorage(tmp_path)
            with pytest.raises(StorageInUse, match=str(os.getpid())):
                await second.open()
            await second.close()
            await fill(storage, 1, 1)

    async def test_a_refused_open_lets_go_of_the_lock(self, tmp_path: Path) -> None:
        (tmp_path / "shard-0.sqlite3").write_bytes(b"no database at all" * 100)
        for _ in range(2):
            with pytest.raises(Unavailable, match="not a database"):
                await SqliteStorage(tmp_path).open()


class TestWhereItIs:
    async def test_the_directory_is_made(self, tmp_path: Path) -> None:
        async with shard(tmp_path / "a" / "b") as storage:
            assert storage.file.exists()

    async def test_a_home_directory_is_expanded(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        assert SqliteStorage("~/data").directory == tmp_path / "data"

    async def test_a_file_in_the_place_of_the_directory_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(Refused, match="may be written"):
            await SqliteStorage(tmp_path / "file").open()

    async def test_a_name_with_characters_of_urls_is_a_name(self, tmp_path: Path) -> None:
        async with shard(tmp_path / "a?mode=memory#%20 é") as storage:
            await fill(storage, 1, 1)
            assert storage.file.stat().st_size

    async def test_a_database_of_another_program_is_left_as_it_is(self, tmp_path: Path) -> None:
        file = tmp_path / "shard-0.sqlite3"
        conn = sqlite3.connect(file)
        conn.execute("CREATE TABLE theirs (x)")
        conn.close()
        before = file.read_bytes()
        with pytest.raises(Refused, match="another program"):
            await SqliteStorage(tmp_path).open()
        assert file.read_bytes() == before


class TestFormats:
    MORE = (
        *schema.MIGRATIONS,
        "CREATE TABLE extra (x);\nALTER TABLE actor ADD COLUMN note TEXT;\n",
    )

    async def test_an_older_file_is_migrated_and_keeps_its_data(self, tmp_path: Path) -> None:
        async with shard(tmp_path) as storage:
            await fill(storage, 1, 5)
            before = await storage.image(b.THREAD)
        newer = SqliteStorage(tmp_path, steps=self.MORE)
        await newer.open()
        assert await newer.image(b.THREAD) == before
        assert (await newer.facts()).details["format"] == str(len(self.MORE))
        await newer.close()
        with tables(newer) as conn:
            assert conn.execute("SELECT count(*), count(note) FROM actor").fetchone() == (2, 0)

    async def test_a_newer_file_is_refused_and_not_changed(self, tmp_path: Path) -> None:
        newer = SqliteStorage(tmp_path, steps=self.MORE)
        await newer.open()
        await newer.close()
        before = newer.file.read_bytes()
        with pytest.raises(Refused, match="format 2; this version knows up to 1"):
            await SqliteStorage(tmp_path).open()
        assert newer.file.read_bytes() == before
        again = SqliteStorage(tmp_path, steps=self.MORE)
        await again.open()
        await again.close()

    async def test_a_step_that_fails_leaves_the_older_format_whole(self, tmp_path: Path) -> None:
        async with shard(tmp_path) as storage:
            await fill(storage, 1, 2)
        broken = (*schema.MIGRATIONS, "CREATE TABLE extra (x);\nINSERT INTO nowhere VALUES (1);\n")
        with pytest.raises(Unavailable, match="nowhere"):
            await SqliteStorage(tmp_path, steps=broken).open()
        async with shard(tmp_path) as storage:
            assert len((await storage.image(b.THREAD)).entries) == 2
        with tables(storage) as conn:
            assert not conn.execute("SELECT 1 FROM sqlite_schema WHERE name = 'extra'").fetchall()


class TestOlderFiles:
    async def test_a_file_that_was_put_back_is_noticed_and_the_loss_is_counted(
        self, tmp_path: Path
    ) -> None:
        async with shard(tmp_path / "s") as storage:
            await fill(storage, 1, 3)
        shutil.copy(storage.file, tmp_path / "copy")
        async with shard(tmp_path / "s") as storage:
            await fill(storage, 4, 10)
        shutil.copy(tmp_path / "copy", storage.file)
        async with shard(tmp_path / "s") as storage:
            assert storage.gap is not None
            # Seven events and the start of the process that wrote them.
            assert storage.gap.missing == 8
            (alarm,) = (await storage.facts()).alarms
            assert "8 acknowledged commits are missing" in alarm
            assert "Put back the newest copy" in alarm
            assert len((await storage.image(b.THREAD)).entries) == 3
            assert isinstance(await storage.append(checkpoint(4)), Stored)

    async def test_a_file_that_was_used_elsewhere_meanwhile_is_noticed(
        self, tmp_path: Path
    ) -> None:
        async with shard(tmp_path / "s") as storage:
            await fill(storage, 1, 3)
        (tmp_path / "elsewhere").mkdir()
        shutil.copy(storage.file, tmp_path / "elsewhere")
        async with shard(tmp_path / "s") as storage:
            await fill(storage, 4, 6)
        async with shard(tmp_path / "elsewhere") as elsewhere:
            await fill(elsewhere, 4, 40)
        shutil.copy(elsewhere.file, storage.file)
        async with shard(tmp_path / "s") as storage:
            assert storage.gap is not None
            assert "older file, or another one" in storage.gap.text

    async def test_the_same_start_that_went_another_way_is_noticed(self, tmp_path: Path) -> None:
        process = holder(tmp_path / "s", "append")
        kill(process)
        storage = SqliteStorage(tmp_path / "s")
        shutil.copytree(tmp_path / "s", tmp_path / "elsewhere")
        process = holder(tmp_path / "s", "append", 2)
        kill(process)
        async with shard(tmp_path / "elsewhere") as elsewhere:
            await fill(elsewhere, 4, 9)
        for name in ("shard-0.sqlite3-wal", "shard-0.sqlite3-shm"):
            (tmp_path / "s" / name).unlink(missing_ok=True)
        shutil.copy(elsewhere.file, storage.file)
        async with shard(tmp_path / "s") as storage:
            assert storage.gap is not None

    async def test_a_log_that_was_cut_is_noticed_and_what_is_before_the_cut_is_whole(
        self, tmp_path: Path
    ) -> None:
        process = holder(tmp_path, "flood")
        assert process.stdout is not None
        for _ in range(60):
            process.stdout.readline()
        kill(process)
        wal = tmp_path / "shard-0.sqlite3-wal"
        os.truncate(wal, len(wal.read_bytes().rstrip(b"\0")) * 2 // 3)  # of what was written
        async with shard(tmp_path) as storage:
            assert storage.gap is not None
            assert storage.gap.missing is not None
            assert storage.gap.missing > 0
            assert "write-ahead log was cut" in storage.gap.text
            image = await storage.image(b.THREAD)
            ids = [e.id for e in image.entries]
            assert set(await storage.events(b.THREAD, 1, ids)) == set(ids)

    async def test_a_killed_process_leaves_nothing_to_complain_about(self, tmp_path: Path) -> None:
        process = holder(tmp_path, "flood")
        kill(process)
        async with shard(tmp_path) as storage:
            assert storage.gap is None
            assert (await storage.facts()).alarms == ()

    async def test_a_mark_that_is_behind_means_nothing(self, tmp_path: Path) -> None:
        async with shard(tmp_path) as storage:
            await fill(storage, 1, 3)
            mark = (tmp_path / "shard-0.mark").read_bytes()
            await fill(storage, 4, 9)
        (tmp_path / "shard-0.mark").write_bytes(mark)
        async with shard(tmp_path) as storage:
            assert storage.gap is None

    @pytest.mark.parametrize("damage", ["missing", "torn"])
    async def test_a_mark_that_cannot_be_read_is_said(self, tmp_path: Path, damage: str) -> None:
        async with shard(tmp_path) as storage:
            await fill(storage, 1, 3)
        mark = tmp_path / "shard-0.mark"
        mark.write_bytes(b"" if damage == "missing" else mark.read_bytes().replace(b"0", b"1", 1))
        async with shard(tmp_path) as storage:
            (alarm,) = (await storage.facts()).alarms
            assert "mark beside the database is missing or torn" in alarm
        async with shard(tmp_path) as storage:
            assert (await storage.facts()).alarms == ()

    @pytest.mark.parametrize("number", [3, 4], ids=["a repeat", "a new call"])
    async def test_a_file_that_loses_rows_while_it_is_open_costs_the_actor_not_a_dot(
        self, tmp_path: Path, number: int
    ) -> None:
        async with shard(tmp_path) as storage:
            await fill(storage, 1, 3)
            first = storage.actor
            with tables(storage) as conn:
                conn.execute("DELETE FROM event WHERE n > 1")
            with pytest.raises(Unavailable, match="changed from outside"):
                await storage.append(checkpoint(number))
            answer = await storage.append(checkpoint(number))
            assert isinstance(answer, Stored)
            assert answer.dot.actor == storage.actor != first
            assert answer.dot.n == 1
            (alarm,) = (await storage.facts()).alarms
            assert "changed from outside" in alarm


class TestFacts:
    async def test_they_are_read_from_the_engine(self, tmp_path: Path) -> None:
        async with shard(tmp_path) as storage:
            facts = await storage.facts()
            assert facts.details["journal_mode"] == "wal"
            assert facts.details["synchronous"] == "full"
            assert "loss of power" in facts.promise
            assert int(facts.details["file_bytes"]) > 0
            on_writer(storage, "PRAGMA synchronous = NORMAL")
            facts = await storage.facts()
            assert facts.details["synchronous"] == "normal"
            assert "not a loss of power" in facts.promise

    async def test_every_connection_that_writes_the_file_is_synced(self, tmp_path: Path) -> None:
        async with shard(tmp_path) as storage:
            await storage.image(b.THREAD)
            for conn in storage._connections:
                assert conn.execute("PRAGMA journal_mode").fetchone() == ("wal",)
                assert conn.execute("PRAGMA synchronous").fetchone() == (2,)

    async def test_the_log_is_copied_into_the_file_while_writes_go_on(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("checkpoint_router.backends.sqlite.writer.WAL_BYTES_MAX", 256 << 10)
        async with shard(tmp_path) as storage:
            for first in range(1, 400, 10):
                await fill(storage, first, first + 9, size=2000)
                # The worker beside the writer has done what it was asked for.
                await asyncio.wrap_future(storage._checkpointer.submit(int))
            details = (await storage.facts()).details
            # 13 MB went through it.
            assert int(details["wal_bytes"]) < 3 << 20
            assert int(details["file_bytes"]) > 10 << 20

    async def test_a_commit_seldom_makes_the_log_grow_and_nothing_is_read_behind_its_end(
        self, tmp_path: Path
    ) -> None:
        sizes = []
        async with shard(tmp_path / "a") as storage:
            wal = storage.file.with_name(storage.file.name + "-wal")
            for number in range(1, 101):
                await fill(storage, number, number, size=800)
                sizes.append(wal.stat().st_size)
            # Of what a crash now would leave.
            shutil.copytree(tmp_path / "a", tmp_path / "b")
        assert sizes[-1] > 2 << 20
        late = [size for size in sizes if size > writer.WAL_STEP_BYTES]
        assert len(late) > 50
        assert len(set(late)) <= 10
        async with shard(tmp_path / "b") as storage:
            assert storage.gap is None
            assert len((await storage.image(b.THREAD)).entries) == 100

    async def test_the_log_stays_small_under_removals_and_after_a_large_one(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("checkpoint_router.backends.sqlite.writer.WAL_BYTES_MAX", 1 << 20)
        large, *small = (ThreadKey("acme", f"t{n}") for n in range(15))
        async with shard(tmp_path) as storage:
            wal = storage.file.with_name(storage.file.name + "-wal")
            await fill(storage, 1, 250, size=2000, thread=large)
            for thread in small:
                await fill(storage, 1, 20, size=2000, thread=thread)
            await storage.delete(large, None, b"")
            assert wal.stat().st_size > 6 << 20
            sizes = []
            for thread in small:
                await storage.delete(thread, None, b"")
                assert storage._giving_back is not None
                await storage._giving_back
                # The writer has asked for a copy before it takes up anything else.
                await storage._open_writer.do(lambda _: None)
                await asyncio.wrap_future(storage._checkpointer.submit(int))
                sizes.append(wal.stat().st_size)
            # These wrote 10 MB, and moved pages; the log was copied and begun anew between them.
            assert max(sizes[3:]) < 8 << 20


async def test_space_goes_back_to_the_disk_after_a_large_removal_while_others_write(
    tmp_path: Path,
) -> None:
    large, other = ThreadKey("acme", "large"), ThreadKey("acme", "other")
    async with shard(tmp_path) as storage:
        await fill(storage, 1, 400, size=2000, thread=large)
        await fill(storage, 1, 20, thread=other)
        storage._open_writer.copy_wal()
        await storage.delete(large, None, b"")
        await fill(storage, 21, 40, thread=other)
        deadline = asyncio.get_running_loop().time() + 20
        while int((await storage.facts()).details["file_bytes"]) > 2 << 20:
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.02)
        ids = [checkpoint(number, thread=other).entry.id for number in range(1, 41)]
        assert set(await storage.events(other, 1, ids)) == set(ids)
        with tables(storage) as conn:
            assert conn.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


async def test_a_little_free_space_is_left_for_what_comes_next(tmp_path: Path) -> None:
    async with shard(tmp_path) as storage:
        for name in ("a", "b", "c", "d", "e", "f"):
            await fill(storage, 1, 100, size=2000, thread=ThreadKey("acme", name))
        with tables(storage) as conn:
            pages = conn.execute("PRAGMA page_count").fetchone()
            await storage.delete(ThreadKey("acme", "a"), None, b"")
            assert storage._giving_back is not None
            await storage._giving_back
            assert conn.execute("PRAGMA page_count").fetchone() == pages
        assert int((await storage.facts()).details["free_pages"]) > 500


async def test_the_pages_of_a_file_that_was_killed_under_load_are_sound(tmp_path: Path) -> None:
    process = holder(tmp_path, "flood")
    assert process.stdout is not None
    for _ in range(100):
        process.stdout.readline()
    kill(process)
    async with shard(tmp_path) as storage:
        pass
    with tables(storage) as conn:
        assert conn.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


async def test_calls_of_one_transaction_see_what_those_before_them_stored(tmp_path: Path) -> None:
    value = b.new_blob(b"\x91" + b"v" * 2_000)
    longer = b.new_blob(value.value.data + b"w" * 100, continues=value)
    first = b.append(b.checkpoint_event(blobs=[value], head=b.header()), blobs=[value])
    own = ((first.entry.id.segment, ((1, 1),)),)
    second = b.append(b.checkpoint_event(index=2, checkpoint_id="c2", blobs=[value]), needs=own)
    third = b.append(
        b.checkpoint_event(index=3, checkpoint_id="c3", blobs=[longer]), blobs=[longer], needs=own
    )
    async with shard(tmp_path) as storage:
        found = await asyncio.gather(*(storage.append(a) for a in (first, second, third, first)))
        assert [type(answer) for answer in found] == [Stored, Stored, Stored, Duplicate]
        read = await storage.blobs(b.THREAD, 1, [value.hash, longer.hash], 10_000)
        assert read.found == {value.hash: value.value, longer.hash: longer.value}
        with tables(storage) as conn:
            assert conn.execute("SELECT count(DISTINCT seq) FROM event").fetchone() == (1,)
            assert conn.execute("SELECT count(*) FROM log").fetchone() == (1,)
        other = b.append(b.checkpoint_event("s2", head=b.header(), blobs=[value]), blobs=[value])
        _, ended = await asyncio.gather(storage.append(other), storage.delete(b.THREAD, 1))
        assert ended == 2
        with tables(storage) as conn:
            left = "SELECT (SELECT count(*) FROM event), (SELECT count(*) FROM blob)"
            assert conn.execute(left).fetchone() == (0, 0)
        again = b.append(b.checkpoint_event("s3", gen=2, head=b.header(), blobs=[value]))
        assert await storage.append(again) == MissingBlobs((value.hash,))


async def test_the_loop_lends_its_thread_what_may_take_long_and_nothing_else(
    tmp_path: Path,
) -> None:
    async with shard(tmp_path) as storage:
        writer, commits = storage._open_writer, list[str]()
        here, there = current_thread().name, "sqlite-writer"

        def heard(statement: str) -> None:
            if statement == "COMMIT":
                commits.append(current_thread().name)

        async def who(*, small: bool = True, bytes: int = 0) -> str:
            return await writer.do(lambda _: current_thread().name, small=small, bytes=bytes)

        async def both(seconds: float, *calls: Callable[[], Awaitable[str]]) -> tuple[str, str]:
            """Who ran the statements of these calls, who committed; after commits so slow."""
            writer._commit_seconds = seconds
            commits.clear()
            (statements,) = set(await asyncio.gather(*(call() for call in calls)))
            (commit,) = commits
            return statements, commit

        writer.conn.set_trace_callback(heard)
        large, huge = partial(who, bytes=1 << 17), partial(who, bytes=1 << 20)
        assert await both(0.0, who) == (here, here)
        assert await both(0.0, who, who, who) == (here, there)
        assert await both(0.0, large) == (here, there)
        assert await both(0.05, who) == (here, there)
        assert await both(0.0, huge) == (there, there)
        assert await both(0.0, partial(who, small=False)) == (there, there)
        assert await both(10.0, who) == (there, there)


async def test_a_value_whose_name_begins_as_that_of_another_is_refused_and_not_taken_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fake: 64 bits that agree cannot be waited for."""
    monkeypatch.setattr("checkpoint_router.backends.sqlite.storing.key", lambda _: 1)
    monkeypatch.setattr("checkpoint_router.backends.sqlite.values.key", lambda _: 1)
    value, other = b.new_blob(b"v" * 2_000), b.new_blob(b"o" * 2_000)
    grown = b.new_blob(value.value.data + b"w" * 100, continues=value)
    async with shard(tmp_path) as storage:
        first = b.append(b.checkpoint_event(blobs=[value], head=b.header()), blobs=[value])
        assert isinstance(await storage.append(first), Stored)
        own = ((first.entry.id.segment, ((1, 1),)),)
        for blob in (other, grown):
            event = b.checkpoint_event(index=2, checkpoint_id="c2", blobs=[blob])
            with pytest.raises(InvalidArgument, match="begins as that of another value"):
                await storage.append(b.append(event, blobs=[blob], needs=own))
        again = b.checkpoint_event(index=2, checkpoint_id="c2", blobs=[value])
        assert isinstance(await storage.append(b.append(again, blobs=[value], needs=own)), Stored)
    async with shard(tmp_path) as storage:
        third = b.checkpoint_event(index=3, checkpoint_id="c3", blobs=[value])
        assert isinstance(await storage.append(b.append(third, blobs=[value], needs=own)), Stored)
        read = await storage.blobs(b.THREAD, 1, [value.hash], 10_000)
        assert read.found == {value.hash: value.value}
        with tables(storage) as conn:
            assert conn.execute("SELECT count(*) FROM blob").fetchone() == (1,)


async def test_a_call_that_failed_leaves_nothing_in_memory(tmp_path: Path) -> None:
    class Brought:
        """What a call brought."""

    def failing(brought: Brought) -> Callable[[object], None]:
        def work(_: object, brought: Brought = brought) -> None:
            raise ValueError(f"no {brought}")

        return work

    async with shard(tmp_path) as storage:
        left = []
        for _ in range(20):
            brought = Brought()
            left.append(weakref.ref(brought))
            with pytest.raises(ValueError, match="no "):
                await storage._open_writer.do(failing(brought))
        gc.collect()
        assert sum(one() is not None for one in left) <= 1
