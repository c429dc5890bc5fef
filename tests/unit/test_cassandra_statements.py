"""What is sent to Cassandra, looked at without one: timestamps, conditions, URLs, secrets."""

import re
from pathlib import Path

import pytest

from checkpoint_router.backends.cassandra.facts import MUTATION_BYTES_MIN, _bytes
from checkpoint_router.backends.cassandra.statements import STATEMENTS, TABLES, Name, Statement
from checkpoint_router.backends.cassandra.target import login, parse
from checkpoint_router.core.errors import InvalidArgument

BY_TIMESTAMP = {"thread", "listing"}
"""Tables whose rows and removals are ordered by timestamps of ours."""

FOLDER = Path(parse.__code__.co_filename).parent


def complaints(statements: dict[Name, Statement]) -> list[str]:
    """Statements that write without what their table lives by."""
    found = []
    for name, statement in statements.items():
        text = statement.text
        writes = re.match(r"(?:INSERT INTO|UPDATE|DELETE FROM) (\w+)", text)
        if writes is None:
            assert text.startswith("SELECT ")
            continue
        stamped = "USING TIMESTAMP ?" in text
        conditional = " IF " in text
        if writes[1] in BY_TIMESTAMP and (not stamped or conditional):
            found.append(f"{name}: needs USING TIMESTAMP, and no condition")
        if writes[1] not in BY_TIMESTAMP and stamped:
            found.append(f"{name}: {writes[1]} lives by conditions")
        if writes[1] not in BY_TIMESTAMP | {"state"} and not conditional:
            found.append(f"{name}: needs a condition")
        if "TTL" in text:
            found.append(f"{name}: nothing may expire")
    return found


def test_every_statement_keeps_to_the_one_clock_of_its_table() -> None:
    assert complaints(STATEMENTS) == []
    # One statement of `state` has no condition of its own: it rides in a batch that has.
    alone = [n for n, s in STATEMENTS.items() if "INTO state" in s.text and " IF " not in s.text]
    assert alone == [Name.OPERATION_DONE]


@pytest.mark.parametrize(
    "text",
    [
        "INSERT INTO thread (tenant) VALUES (?)",
        "DELETE FROM thread WHERE tenant = ?",
        "UPDATE thread USING TIMESTAMP ? SET body = ? WHERE tenant = ? IF body = null",
        "INSERT INTO listing (tenant) VALUES (?) USING TTL 5 AND TIMESTAMP ?",
        "UPDATE fence SET version = ? WHERE id = ?",
        "UPDATE fence USING TIMESTAMP ? SET version = ? WHERE id = ?",
        "INSERT INTO meta (key) VALUES (?)",
    ],
)
def test_a_statement_without_what_its_table_lives_by_is_noticed(text: str) -> None:
    assert complaints({Name.META: Statement(text)})


def test_every_statement_is_sent_by_somebody() -> None:
    others = "".join(f.read_text() for f in FOLDER.glob("*.py") if f.name != "statements.py")
    assert [name.name for name in STATEMENTS if f"Name.{name.name}" not in others] == []
    assert set(STATEMENTS) == set(Name)


def test_nothing_but_those_statements_and_the_schema_is_sent() -> None:
    """Others send text of their own: what makes tables, and questions to the server's tables."""
    for file in FOLDER.glob("*.py"):
        for line in file.read_text().splitlines():
            if re.search(r"INSERT INTO|UPDATE \w+ SET|DELETE FROM", line):
                assert file.name == "statements.py" or "INSERT INTO meta" in line, (file, line)
    assert all("default_time_to_live" not in table for table in TABLES)
    (thread,) = [table for table in TABLES if "EXISTS thread " in table]
    assert "read_repair = 'BLOCKING'" in thread


@pytest.mark.parametrize(
    ("rest", "hosts", "port"),
    [
        ("//a/ks?dc=dc1", ("a",), 9042),
        ("//a,b.c,10.0.0.1:9999/ks_2?dc=eu-west.1", ("a", "b.c", "10.0.0.1"), 9999),
        ("//[::1]:9042/ks?dc=d", ("::1",), 9042),
    ],
)
def test_a_url_names_hosts_keyspace_and_datacentre(
    rest: str, hosts: tuple[str, ...], port: int
) -> None:
    target = parse(rest)
    assert (target.hosts, target.port, target.url) == (hosts, port, f"cassandra:{rest}")


@pytest.mark.parametrize(
    "rest",
    ["", "//", "//a/ks", "//a/?dc=d", "//a/K;S?dc=d", "//a/ks?dc=d'x", "//a:b/ks?dc=d", "a/ks?dc=d",
     "//a/ks?dc=d&more=1", "///ks?dc=d"],
)  # fmt: skip
def test_a_url_that_lacks_something_is_refused_with_its_usage(rest: str) -> None:
    with pytest.raises(InvalidArgument, match=r"cassandra://HOST,HOST:PORT/KEYSPACE\?dc="):
        parse(rest)


def test_a_secret_in_a_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(InvalidArgument, match="PASSWORD_FILE") as refused:
        parse("//me:s3cret@a/ks?dc=d")
    assert "s3cret" not in str(refused.value)


def test_credentials_and_tls_come_from_files_or_the_environment(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("s3cret\n")
    prefix = "CHECKPOINT_ROUTER_CASSANDRA_"
    found = login({f"{prefix}USERNAME": "me", f"{prefix}PASSWORD_FILE": str(secret)})
    assert (found.username, found.password, found.tls) == ("me", "s3cret", None)
    for name, file in (
        ("CA_FILE", "nowhere.pem"),
        ("PASSWORD_FILE", "nowhere"),
        ("CA_FILE", "password"),
    ):
        named = {f"{prefix}USERNAME": "me", f"{prefix}{name}": str(tmp_path / file)}
        with pytest.raises(InvalidArgument, match=rf"{name}=\S+/{file} cannot be used"):
            login(named)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["PASSWORD"], "PASSWORD is set, and CHECKPOINT_ROUTER_CASSANDRA_USERNAME is not"),
        (["CERTIFICATE_FILE"], "_CA_FILE is not"),
        (["CA_FILE", "KEY_FILE"], "_CERTIFICATE_FILE is not"),
        (["USERNAME", "PASSWORD", "PASSWORD_FILE"], "one is enough"),
    ],
)
def test_what_would_be_ignored_of_credentials_is_refused(names: list[str], said: str) -> None:
    with pytest.raises(InvalidArgument, match=said):
        login({f"CHECKPOINT_ROUTER_CASSANDRA_{name}": "x" for name in names})


@pytest.mark.parametrize(
    ("text", "size"),
    [("8192KiB", 8 << 20), ("16MiB", 16 << 20), ("1GiB", 1 << 30), ("5B", 5), ("7", 7)],
)
def test_sizes_of_settings_are_read_as_cassandra_prints_them(text: str, size: int) -> None:
    assert _bytes(text) == size
    assert _bytes("unknown") > MUTATION_BYTES_MIN
