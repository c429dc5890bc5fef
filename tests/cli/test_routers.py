"""`serve`, `dev`, `doctor`, `config` and `version` as real processes."""

import json
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from checkpoint_router import RouterSaver, __version__
from checkpoint_router.testing import running_router
from scripts.redis_server import Server
from tests.contract.servers import need_redis

from .conftest import COMMAND, SECONDS_MAX, Cli, environment, masked, put, run
from .stand_in import facts, stand_in


@contextmanager
def begun(*arguments: str, env: dict[str, str] | None = None) -> Iterator[Any]:
    """A command that goes on until it is told to end."""
    child = subprocess.Popen(
        [*COMMAND, *arguments],
        env=environment(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stderr is not None
    with child.stdout, child.stderr:
        try:
            yield child
        finally:
            child.kill()
            child.wait()


@contextmanager
def started(*arguments: str, env: dict[str, str] | None = None) -> Iterator[Any]:
    """The same; gives the child and its first line."""
    with begun(*arguments, env=env) as child:
        yield child, child.stdout.readline()


def ended(child: Any) -> tuple[int, str]:
    """SIGTERM; exit code, and all that was on stderr."""
    child.send_signal(signal.SIGTERM)
    code = child.wait(SECONDS_MAX)
    return code, child.stderr.read()


def test_serve_says_where_it_listens_answers_and_ends_in_order(tmp_path: Path) -> None:
    with started("serve", "--storage", f"sqlite:{tmp_path}", "--listen", "127.0.0.1:0") as (
        child,
        line,
    ):
        assert re.fullmatch(r"listening on 127\.0\.0\.1:\d+\n", line), child.stderr.read()
        target = "router://" + line.split()[-1]
        assert run("thread", "list", "--target", target).returncode == 0
        code, log = ended(child)
    assert code == 0
    assert '"event": "stopped"' in log


def test_serve_lists_every_bad_setting_at_once(tmp_path: Path) -> None:
    file = tmp_path / "router.toml"
    file.write_text('storage = "tape"\nspeed = 3\n')
    said = run("serve", "--config", str(file), "--listen", "x", "--drain-seconds", "0")
    assert said.returncode == 2
    for part in ("storage (file", "speed", "listen (flag --listen)", "drain_seconds"):
        assert part in said.stderr


def test_serve_refuses_a_storage_and_an_address_that_are_taken(tmp_path: Path) -> None:
    with running_router(f"sqlite:{tmp_path}") as router:
        pid = router.pid
        twice = run("serve", "--storage", f"sqlite:{tmp_path}", "--listen", "127.0.0.1:0")
        fresh = tmp_path / "fresh"
        beside = run("serve", "--storage", f"sqlite:{fresh}", "--listen", router.address)
    assert twice.returncode == 4
    assert f"in use by the process with id {pid}" in twice.stderr
    assert beside.returncode == 4
    (line,) = beside.stderr.splitlines()
    assert line.startswith(f"error: {router.address} is taken (")
    assert line.endswith("Choose another address with --listen, or port 0 for a free one.")
    assert not fresh.exists()


@pytest.mark.parametrize("listen", ["192.0.2.1:7070", "no..host:7070"])
def test_serve_refuses_an_address_that_this_machine_has_not(tmp_path: Path, listen: str) -> None:
    said = run("serve", "--storage", f"sqlite:{tmp_path}/fresh", "--listen", listen)
    assert said.returncode == 4
    (line,) = said.stderr.splitlines()
    assert line.startswith(f"error: cannot listen on {listen}: ")
    assert not (tmp_path / "fresh").exists()


def test_serve_refuses_a_storage_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "shard-0.sqlite3").write_bytes(b"not a database, though it is long enough" * 30)
    said = run("serve", "--storage", f"sqlite:{tmp_path}", "--listen", "127.0.0.1:0")
    assert said.returncode == 4
    assert "not a database" in said.stderr
    assert "checkpoint-router dev" not in said.stderr


def test_serve_waits_for_a_storage_that_does_not_answer_and_says_so(tmp_path: Path) -> None:
    need_redis()
    server = Server(tmp_path / "redis")
    words = ("serve", "--storage", server.url, "--listen", "127.0.0.1:0")
    with begun(*words) as child:
        assert "does not answer yet" in child.stderr.readline()
        code, log = ended(child)
        assert code == 4
        assert log.count("does not answer yet") < 10, "it went on after SIGTERM"
        assert f":{server.port}/0 failed" in log.splitlines()[-1]
    for look in ("doctor",), ("shard", "check"):
        said = run(*look, "--storage", server.url)
        assert (said.returncode, said.stderr.count("\n")) == (4, 1), "no advice to start a router"
    with begun(*words) as child:
        assert "does not answer yet" in child.stderr.readline()
        server.start()
        try:
            assert child.stdout.readline().startswith("listening on")
            assert ended(child)[0] == 0
        finally:
            server.stop()


def test_dev_prints_a_line_that_works_when_it_is_pasted_and_leaves_nothing() -> None:
    with taken_port(7070), started("dev") as (child, line):
        pasted: dict[str, Any] = {}
        exec(f"from checkpoint_router import RouterSaver\n{line}", pasted)  # noqa: S102 - as an agent would
        with pasted["checkpointer"] as saver:
            put(saver, "a", "c1", a=1)
        code, talk = ended(child)
    assert code == 0
    assert line.startswith('checkpointer = RouterSaver("router://127.0.0.1:')
    assert ":7070" not in line
    assert "Port 7070 is taken, so a free one is used." in talk
    directory = re.search(r"sqlite:(\S+) \(temporary", talk)
    assert directory is not None
    assert not Path(directory.group(1)).exists()
    assert "its storage is removed" in talk


def test_dev_keeps_what_it_was_given(tmp_path: Path) -> None:
    given = ("dev", "--storage", f"sqlite:{tmp_path}", "--listen", "127.0.0.1:0")
    for number in range(2):
        with started(*given) as (child, line):
            found = re.search(r'"(router://.*)"', line)
            assert found is not None, child.stderr.read()
            with RouterSaver(found.group(1)) as saver:
                if not number:
                    put(saver, "a", "c1", a=1)
                assert saver.get_tuple({"configurable": {"thread_id": "a", "checkpoint_ns": ""}})
            assert ended(child)[0] == 0


@contextmanager
def taken_port(port: int) -> Iterator[None]:
    """Nobody else can have the port meanwhile, whoever has it now."""
    with socket.socket() as holder:
        try:
            holder.bind(("127.0.0.1", port))
            holder.listen()
        except OSError:
            pass
        yield


def test_doctor_finds_a_healthy_router_healthy(cli: Cli) -> None:
    said = cli("doctor")
    assert said.returncode == 0
    assert said.stderr == "No problem found.\n"
    lines = masked(said.stdout)
    assert re.fullmatch(r"good  reachable: <address> answered in \d+ ms", lines[0])
    assert {"good  protocol: 1, as here", f"good  version: {__version__}"} <= set(lines)
    assert "good  alarms: none" in lines


def test_doctor_says_no_to_an_alarm_and_to_another_protocol() -> None:
    wrong = facts(protocol=99, alarms=["the disk is full."])
    with stand_in(GetRouter=lambda request: wrong) as target:
        said = run("doctor", "--target", target, "--output", "json")
    assert said.returncode == 1
    assert said.stderr == "2 problems found.\n"
    report = json.loads(said.stdout)
    assert not report["healthy"]
    bad = {f["what"]: f["text"] for f in report["findings"] if f["verdict"] == "bad"}
    assert bad["alarm"] == "the disk is full."
    assert "Upgrade the older one" in bad["protocol"]


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    """A storage with a thread in it, and no router."""
    with running_router(f"sqlite:{tmp_path}") as router, RouterSaver(router.target) as saver:
        put(saver, "a", "c1", text="x" * 50_000)
    return tmp_path


def test_doctor_looks_at_a_storage_that_no_router_uses_and_changes_nothing(shard: Path) -> None:
    before = contents(shard)
    said = run("doctor", "--storage", f"sqlite:{shard}")
    assert said.returncode == 0, said.stdout
    assert {
        "good  lock: no router uses it",
        "good  content: 1 thread, 1 event, 1 value, commit 2",
        "good  last commit: the database has every commit that was acknowledged",
        "good  integrity: SQLite's own check passes",
    } <= set(said.stdout.splitlines())
    assert contents(shard) == before


def contents(directory: Path) -> dict[str, bytes]:
    """By name; without what SQLite itself puts beside a database that is read."""
    return {
        p.name: p.read_bytes() for p in directory.iterdir() if not p.name.endswith(("-wal", "-shm"))
    }


def test_doctor_reads_beside_a_running_router_what_costs_it_nothing(tmp_path: Path) -> None:
    with running_router(f"sqlite:{tmp_path}") as router:
        said = run("doctor", "--storage", f"sqlite:{tmp_path}")
        note = f"note  lock: in use by the process with id {router.pid}, so the file is not read"
        assert note in said.stdout
        assert said.returncode == 0
        assert "integrity" not in said.stdout


def test_doctor_notices_a_database_that_went_back(shard: Path) -> None:
    old = (shard / "shard-0.sqlite3").read_bytes()
    with running_router(f"sqlite:{shard}") as router, RouterSaver(router.target) as saver:
        put(saver, "b", "c1", a=1)
    (shard / "shard-0.sqlite3").write_bytes(old)
    said = run("doctor", "--storage", f"sqlite:{shard}")
    assert said.returncode == 1
    assert "bad   last commit:" in said.stdout


def test_doctor_says_no_to_what_is_no_storage(tmp_path: Path) -> None:
    missing = run("doctor", "--storage", f"sqlite:{tmp_path}/none")
    assert missing.returncode == 1
    assert "does not exist" in missing.stdout
    assert not (tmp_path / "none").exists()
    (tmp_path / "shard-0.sqlite3").write_bytes(b"not a database, though it is long enough" * 30)
    garbage = run("doctor", "--storage", f"sqlite:{tmp_path}")
    assert garbage.returncode == 1
    assert "SQLite cannot read it" in garbage.stdout


@pytest.mark.parametrize("output", ["table", "json"])
def test_config_shows_no_password(output: str) -> None:
    said = run(*("config", "show", "--output", output), *("--storage", "redis://u:secret@host/0"))
    assert said.returncode == 0, said.stderr
    assert "host/0" in said.stdout
    assert "secret" not in said.stdout


def test_config_shows_where_each_value_comes_from(tmp_path: Path) -> None:
    file = tmp_path / "router.toml"
    file.write_text('storage = "memory:"\nlog_level = "error"\ndrain_seconds = 2.5\n')
    said = run(
        *("config", "show", "--origin", "--config", str(file), "--listen", "127.0.0.1:9"),
        env={"CHECKPOINT_ROUTER_LOG_LEVEL": "debug"},
    )
    assert said.returncode == 0, said.stderr
    rows = {line.split()[0]: line.split(maxsplit=2)[1:] for line in said.stdout.splitlines()}
    assert rows["storage"] == ["memory:", f"file {file} (storage)"]
    assert rows["log_level"] == ["debug", "environment CHECKPOINT_ROUTER_LOG_LEVEL"]
    assert rows["listen"] == ["127.0.0.1:9", "flag --listen"]
    assert rows["reflection"] == ["True", "default"]


def test_version_names_what_a_bug_report_needs() -> None:
    said = json.loads(run("version", "--output", "json").stdout)
    assert said["version"] == __version__
    assert said["packages"]["grpcio"]
