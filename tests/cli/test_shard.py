"""`shard check` as an operator has it: what it says, what it changes, how it ends."""

import asyncio
import json
import os
import pty
import re
import select
import signal
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from checkpoint_router import RouterSaver
from checkpoint_router.core.ids import ThreadKey
from checkpoint_router.storage.open import storage_from_url
from checkpoint_router.testing import running_router
from tests import builders as b

from .conftest import COMMAND, SECONDS_MAX, environment, put, run
from .terminal import on_terminal


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    """A storage with a thread in it, and no router."""
    with running_router(f"sqlite:{tmp_path}") as router, RouterSaver(router.target) as saver:
        put(saver, "a", "c1", text="x" * 50_000)
        put(saver, "b\x1b[2J", "c1", text="y")
    return tmp_path


def break_it(shard: Path, statement: str) -> None:
    with closing(sqlite3.connect(shard / "shard-0.sqlite3")) as conn, conn:
        conn.execute(statement)


def contents(shard: Path) -> bytes:
    return (shard / "shard-0.sqlite3").read_bytes()


def test_what_is_whole_is_0_and_is_not_changed(shard: Path) -> None:
    before = contents(shard)
    said = run("shard", "check", env={"CHECKPOINT_ROUTER_STORAGE": f"sqlite:{shard}"})
    assert (said.returncode, said.stderr) == (0, "Nothing is broken.\n")
    assert said.stdout == "read: 2 threads, 2 events, 1 value\n"
    assert contents(shard) == before


def test_what_is_lost_is_1_and_repair_does_not_touch_it(shard: Path) -> None:
    break_it(shard, "UPDATE event SET body = substr(body, 1, length(body) - 1)")
    before = contents(shard)
    for words in ((), ("--repair",)):
        said = run("shard", "check", "--storage", f"sqlite:{shard}", *words)
        assert (said.returncode, said.stderr) == (1, "Something is broken.\n")
        _, first, second, summary = said.stdout.splitlines()
        assert first.startswith("record  thread a of tenant default, event ")
        assert second.startswith("record  thread b\\x1b[2J of tenant default, event ")
        assert first.endswith(": it fails its checksum")
        assert summary.startswith("record: 2 found; lost: restore the storage from a backup")
    assert contents(shard) == before


def test_an_index_is_said_to_be_repairable_and_is_repaired(shard: Path) -> None:
    break_it(shard, "DROP INDEX event_newest")
    break_it(shard, "UPDATE event SET cid = 'another' WHERE t = 1")
    where = ("shard", "check", "--storage", f"sqlite:{shard}")
    said = run(*where)
    assert said.returncode == 1
    assert (
        said.stdout.splitlines()[-1] == "index: 2 found; --repair makes them anew from the records"
    )
    document = json.loads(run(*where, "--repair", "--output", "json").stdout)
    assert document["whole"]
    assert [
        (f["kind"], f["tenant"], f["thread_id"], f["mended"]) for f in document["findings"]
    ] == [
        ("index", None, None, True),
        ("index", "default", "a", True),
    ]
    assert run(*where).stdout == "read: 2 threads, 2 events, 1 value\n"


def test_an_index_of_sqlite_that_lacks_a_row_is_made_anew(shard: Path) -> None:
    with closing(sqlite3.connect(shard / "shard-0.sqlite3", isolation_level=None)) as conn:
        # A write that SQLite does not put into the index: it does not know that it has one.
        conn.execute("PRAGMA writable_schema = ON")
        row = conn.execute("SELECT * FROM sqlite_schema WHERE name = 'event_id'").fetchone()
        conn.execute("DELETE FROM sqlite_schema WHERE name = 'event_id'")
    with closing(sqlite3.connect(shard / "shard-0.sqlite3", isolation_level=None)) as conn:
        conn.execute("PRAGMA writable_schema = ON")
        conn.execute("UPDATE event SET idx = idx + 1 WHERE t = 1")
        conn.execute("INSERT INTO sqlite_schema VALUES (?, ?, ?, ?, ?)", row)
    where = ("shard", "check", "--storage", f"sqlite:{shard}")
    said = run(*where)
    assert said.returncode == 1
    assert "missing from index event_id" in said.stdout
    assert "read: 0 threads" in said.stdout, "what it would find by that index misleads"
    assert run(*where, "--repair").returncode == 0
    assert run(*where).stdout == "read: 2 threads, 2 events, 1 value\n"


def test_beside_a_router_it_reads_and_does_not_repair(tmp_path: Path) -> None:
    with running_router(f"sqlite:{tmp_path}") as router, RouterSaver(router.target) as saver:
        put(saver, "a", "c1", text="x")
        where = ("shard", "check", "--storage", f"sqlite:{tmp_path}")
        said = run(*where)
        assert said.returncode == 0
        assert "read: 1 thread, 1 event, 0 values" in said.stdout
        assert "note    the file: a router has it" in said.stdout
        refused = run(*where, "--repair")
        assert refused.returncode == 4
        assert f"the process with id {router.pid} uses" in refused.stderr


def test_what_is_no_storage_is_refused_and_not_changed(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "shard-0.sqlite3")) as conn:
        conn.execute("CREATE TABLE theirs (x)")
    before = contents(tmp_path)
    said = run("shard", "check", "--storage", f"sqlite:{tmp_path}", "--repair")
    assert said.returncode == 4
    assert "another program" in said.stderr
    assert contents(tmp_path) == before


def test_pages_that_make_no_sense_are_1(shard: Path) -> None:
    file = shard / "shard-0.sqlite3"
    whole = file.read_bytes()
    with closing(sqlite3.connect(file)) as conn:
        (root,) = conn.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'event'").fetchone()
    for page, said in ((root, "record  the file: "), (1, "is damaged: ")):
        at = (page - 1) * 4096
        file.write_bytes(whole[:at] + b"\xff" * 4096 + whole[at + 4096 :])
        ended = run("shard", "check", "--storage", f"sqlite:{shard}", "--repair")
        assert ended.returncode == 1, ended.stderr
        assert said in ended.stdout + ended.stderr


def test_events_of_no_thread_are_named(shard: Path) -> None:
    break_it(shard, "DELETE FROM thread WHERE id = 1")
    ended = run("shard", "check", "--storage", f"sqlite:{shard}")
    assert ended.returncode == 1
    assert "log     events of no thread: there are 1, which nobody can read" in ended.stdout


def test_a_terminal_sees_how_far_it_is(shard: Path) -> None:
    screen = on_terminal("shard", "check", "--storage", f"sqlite:{shard}").screen
    assert "threads" in screen.partition("read:")[0]
    assert "2/2" in screen


THREADS = 3000
"""More than a look reads before it shows that it has begun."""


async def write_threads(shard: Path) -> None:
    storage = storage_from_url(f"sqlite:{shard}")
    await storage.open()
    threads = [ThreadKey("default", f"t{number}") for number in range(THREADS)]
    events = [b.checkpoint_event("s", head=b.header(b.token(thread))) for thread in threads]
    each = zip(events, threads, strict=True)
    await asyncio.gather(*(storage.append(b.append(e, thread=t)) for e, t in each))
    await storage.close()


def interrupted(number: signal.Signals, *arguments: str) -> tuple[int, str, str]:
    """Exit code, output and last words of a command that gets a signal when its terminal shows that
    it has read a hundred threads."""
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [*COMMAND, *arguments],
        env=environment({"TERM": "xterm-256color", "COLUMNS": "200"}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
    )
    os.close(theirs)
    try:
        screen = b""
        while not re.search(rb"[1-9]\d\d+/", screen):
            assert select.select([ours], [], [], SECONDS_MAX)[0], screen
            screen += os.read(ours, 4096)
        child.send_signal(number)
        said, _ = child.communicate(timeout=SECONDS_MAX)
        return child.returncode, said, os.read(ours, 65536).decode()
    finally:
        child.kill()
        child.wait()
        os.close(ours)


def test_a_look_that_is_interrupted_says_from_where_to_go_on(tmp_path: Path) -> None:
    asyncio.run(write_threads(tmp_path))
    break_it(tmp_path, "UPDATE event SET body = x'00' WHERE t = (SELECT max(id) FROM thread)")
    where = ("shard", "check", "--storage", f"sqlite:{tmp_path}")
    code, said, last_words = interrupted(signal.SIGTERM, *where, "-o", "json")
    first = json.loads(said)
    assert first["findings"] == []
    assert (code, first["whole"], first["stopped"]) == (5, True, "it was interrupted.")
    assert f"Go on with --from {first['cursor']}" in last_words
    code, said, _ = interrupted(signal.SIGINT, *where, "--from", first["cursor"], "-o", "json")
    second = json.loads(said)
    assert (code, second["from"]) == (5, first["cursor"])
    ended = run(*where, "--from", second["cursor"])
    assert ended.returncode == 1
    left = THREADS - first["threads"] - second["threads"]
    assert 0 < left < THREADS
    part = f"(a part: from {second['cursor']} to the end)"
    assert f"read: {left:,} threads, {left:,} events, 0 values {part}" in ended.stdout
    assert "thread t2999 of tenant default, event " in ended.stdout
