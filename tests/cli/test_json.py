"""The JSON documents have exactly the fields that docs/reference/cli-json.md describes."""

import asyncio
import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from checkpoint_router import RouterSaver
from checkpoint_router.backends.sqlite import SqliteStorage
from checkpoint_router.cli.documents import metadata_of, plain
from checkpoint_router.testing import RunningRouter
from checkpoint_router.v1.types_pb2 import MetadataEntry, Value

from .conftest import Cli, put, rivals, run, write
from .drawn import BEGUN_UNIX_MS, node
from .drawn import write as write_of

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "cli-json.md"
EVERYWHERE = {"schema_version", "kind"}
FREE = {"metadata"}
"""Whose keys are the user's."""
BY_NAME = {"settings", "packages"}
"""Objects whose keys are names of things."""


def described() -> dict[str, set[str]]:
    """Fields by kind, as the page has them."""
    sections = PAGE.read_text().split("\n## ")[1:]
    return {
        section.split("\n", 1)[0]: set(re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE))
        for section in sections
    }


def fields(value: Any, path: str = "") -> Iterator[str]:
    """The path of each field of a document."""
    if isinstance(value, dict):
        for key, inner in value.items():
            step = "*" if path in BY_NAME else key
            at = f"{path}.{step}" if path else step
            yield from (at,) if key in FREE else fields(inner, at)
    elif not isinstance(value, list) or (value and not isinstance(value[0], dict)):
        yield path
    else:
        for inner in value:
            yield from fields(inner, f"{path}[]")


async def _opened_once(storage: SqliteStorage) -> None:
    await storage.open()
    await storage.close()


def damaged_storage(directory: Path) -> str:
    """The URL of one that lacks an index."""
    storage = SqliteStorage(directory)
    asyncio.run(_opened_once(storage))
    with closing(sqlite3.connect(storage.file)) as conn:
        conn.execute("DROP INDEX event_run")
    return f"sqlite:{directory}"


def documents(
    cli: Cli, router: RunningRouter, saver: RouterSaver, tenant: str, damaged: str
) -> Iterator[Any]:
    """One of each kind, with something in every list."""
    rivals(router.target, tenant, "disputed")
    first = put(saver, "plain", "c1", a=1)
    write(saver, first, "agent", ("a", 1))
    unknown = put(saver, "plain", "c9", after=first.config, a=2)
    assert unknown.config.get("configurable")
    unknown.config["configurable"]["checkpoint_id"] = "not-there-yet"
    write(saver, unknown, "early", ("a", 2))
    for arguments in (
        ("thread", "list"),
        ("thread", "show", "plain"),
        ("thread", "history", "plain"),
        ("thread", "conflicts", "disputed"),
        ("thread", "delete", "plain", "--yes"),
        ("doctor",),
        ("shard", "check", "--storage", damaged, "--repair"),
        ("config", "show", "--storage", "memory:"),
        ("version",),
    ):
        said = cli(*arguments, "--output", "json")
        assert said.returncode == 0, said.stderr
        yield json.loads(said.stdout)


def test_each_document_has_the_fields_that_the_page_describes(
    cli: Cli, router: RunningRouter, saver: RouterSaver, tenant: str, tmp_path: Path
) -> None:
    page = described()
    seen = set()
    for document in documents(cli, router, saver, tenant, damaged_storage(tmp_path)):
        kind = document["kind"]
        seen.add(kind)
        optional = {"storage"} if kind == "doctor" else set()
        assert set(fields(document)) - EVERYWHERE == page[kind] - optional, kind
        assert document["schema_version"] == 1
    assert seen == set(page)


def test_each_field_of_an_answer_becomes_what_the_rules_of_the_page_say() -> None:
    one = node("c1", step=3, source="loop", writes=[write_of("agent", "a")], loser=True)
    one.metadata.append(MetadataEntry(key="opaque", opaque=Value(type="msgpack", data=b"abc")))
    one.metadata.append(MetadataEntry(key="run_id", json="7"))
    assert plain(one) == {
        "checkpoint_ns": "",
        "checkpoint_id": "c1",
        "parent_id": None,
        "step": 3,
        "source": "loop",
        "run_id": None,
        "metadata": {
            "step": 3,
            "source": "loop",
            "parents": {},
            "opaque": {"opaque_type": "msgpack", "bytes": 3},
            "run_id": 7,
        },
        "record_bytes": 100,
        "value_bytes": 2048,
        "new_bytes": 10,
        "writes": [
            {
                "task_id": "11112222-3333",
                "task_path": "~__pregel_pull, agent",
                "task": "agent",
                "channel": "a",
                "bytes": 7,
            }
        ],
        "hlc": str(BEGUN_UNIX_MS << 16),
        "written_unix_ms": BEGUN_UNIX_MS,
        "head": False,
        "on_winner": False,
        "loser": True,
        "segment": (b"s" * 16).hex(),
    }


def test_doctor_of_a_storage_names_it_instead_of_a_target() -> None:
    document = json.loads(run("doctor", "--storage", "memory:", "--output", "json").stdout)
    assert document["storage"] == "memory:"
    assert "target" not in document


def test_the_examples_on_the_page_are_documents_of_their_kind() -> None:
    page = described()
    found = re.findall(r"^\{\n.*?^\}$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    examples = [json.loads(text) for text in found]
    assert {e["kind"] for e in examples} == set(page)
    for example in examples:
        assert set(fields(example)) - EVERYWHERE <= page[example["kind"]]


@pytest.mark.parametrize("text", ["NaN", "Infinity", '{"a": -Infinity}', "[" * 5000])
def test_metadata_that_strict_json_cannot_carry_stays_text(text: str) -> None:
    document = metadata_of([MetadataEntry(key="odd", json=text)])
    assert json.loads(json.dumps(document, allow_nan=False)) == document
