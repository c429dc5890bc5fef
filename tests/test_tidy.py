"""The project's own style, checked over every tracked file; and each rule shown to find faults."""

import subprocess
from functools import cache
from pathlib import Path

import pytest

from tests import tidy_rules
from tests.tidy_rules import (
    CORE,
    GENERATED,
    LIMITS,
    PRODUCT,
    RULES,
    Rule,
    Source,
    dead_links,
    sleeps,
)

ROOT = Path(__file__).resolve().parent.parent

LONG_NAME = "x" * 101
LONG_FUNCTION = "def f():\n" + "    pass\n" * 70
LONG_FILE = "pass\n" * 601


@cache
def sources() -> tuple[Source, ...]:
    """Every text file that is in the repository, or would be after `git add`."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    paths = [path for path in sorted(set(listed.split("\0"))) if (ROOT / path).is_file()]
    found = []
    for path in paths:
        content = (ROOT / path).read_bytes()
        if b"\0" not in content:
            found.append(Source(path=path, text=content.decode()))
    return tuple(found)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_every_file_keeps(rule: Rule) -> None:
    complaints = [f"{s.path}: {complaint}" for s in sources() for complaint in rule(s)]
    assert not complaints, "\n".join(["", *complaints])


def test_the_search_sees_the_files_that_matter() -> None:
    paths = {s.path for s in sources()}
    assert {LIMITS, "pyproject.toml", "Makefile", "tests/test_tidy.py"} <= paths
    assert any(path.startswith(GENERATED) for path in paths)


def test_a_file_that_may_sleep_does_sleep() -> None:
    by_path = {s.path: s for s in sources()}
    idle = [path for path in tidy_rules.MAY_SLEEP if not list(sleeps(by_path[path]))]
    assert not idle, "these no longer need their exception"


def test_every_link_leads_somewhere() -> None:
    paths = {s.path for s in sources()}
    dead = [f"{s.path}: {complaint}" for s in sources() for complaint in dead_links(s, paths)]
    assert not dead, "\n".join(["", *dead])


def test_a_dead_link_is_found() -> None:
    text = "[a](../b.md#c) [d](https://example.org/d) [here](e.md) [gone](no.md) [up](../f)"
    source = Source(path="docs/a.md", text=text)
    assert list(dead_links(source, {"b.md", "docs/e.md", "f/g.md"})) == ["no.md leads nowhere"]


BAD = {
    "a long line": ("lines_are_short", "demo/a.py", LONG_NAME),
    "a long line of a proto": ("lines_are_short", "proto/a.proto", LONG_NAME),
    "a long file": ("files_are_short", "demo/a.py", LONG_FILE),
    "a long function": ("functions_are_short", "demo/a.py", LONG_FUNCTION),
    "a long coroutine": ("functions_are_short", "demo/a.py", "async " + LONG_FUNCTION),
    "a word in a path": ("words_are_ours", "docs/utils.md", ""),
    "a word in a folder": ("words_are_ours", "tests/common/a.py", ""),
    "a word in a function": ("words_are_ours", "demo/a.py", "def parse_helper(): ..."),
    "a word in a class": ("words_are_ours", "demo/a.py", "class LinkManager: ..."),
    "a word in an argument": ("words_are_ours", "demo/a.py", "lambda master: 0"),
    "a word in a variable": ("words_are_ours", "demo/a.py", "for Slaves in (): ..."),
    "a word in an attribute": ("words_are_ours", "demo/a.py", "self.bucket_id = 1"),
    "a word in an alias": ("words_are_ours", "demo/a.py", "import a as util"),
    "a word in a message": ("words_are_ours", "a.proto", "message BucketList {"),
    "a word in a field": ("words_are_ours", "a.proto", "  repeated string helpers = 1;"),
    "no docstring": ("modules_say_what_they_are_for", PRODUCT + "a.py", "x = 1"),
    "an empty package": ("modules_say_what_they_are_for", PRODUCT + "a/__init__.py", ""),
    "a clock in the core": ("core_is_pure", CORE + "a.py", "import time"),
    "a wall clock in the core": ("core_is_pure", CORE + "a.py", "from datetime import datetime"),
    "chance in the core": (
        "core_is_pure",
        CORE + "a.py",
        "def f():\n    from random import random",
    ),
    "a log in the core": ("core_is_pure", CORE + "a.py", "import re, logging"),
    "a loop in the core": ("core_is_pure", CORE + "a.py", "import asyncio.tasks"),
    "a coroutine in the core": ("core_is_pure", CORE + "a.py", "async def f(): ..."),
    "a file in the core": ("core_is_pure", CORE + "a.py", "x = open('a')"),
    "a print in the core": ("core_is_pure", CORE + "a.py", "print(1)"),
    "a hash that differs": ("core_is_pure", CORE + "a.py", "x = hash('a')"),
    "a note to oneself": ("nothing_is_left_over", "docs/a.md", "TO" + "DO: say more"),
    "a repair to come": ("nothing_is_left_over", "demo/a.py", "x = 1  # FIX" + "ME"),
    "somebody's folder": ("no_machine_is_named", "docs/a.md", "cd /ho" + "me/ann/project"),
    "root's folder": ("no_machine_is_named", "a.toml", 'x = "/ro' + 'ot/x"'),
    "a registry": ("no_machine_is_named", "constraints.txt", "--index-url https://py" + "pi.org/"),
    "where its files are": ("no_machine_is_named", "a.lock", "files.pythonhost" + "ed.org"),
    "a bare noqa": ("excuses_have_reasons", "tests/a.py", "x = 1  # noqa"),
    "a noqa without reason": ("excuses_have_reasons", "tests/a.py", "x = 1  # noqa: S603, T201"),
    "a bare ignore": ("excuses_have_reasons", "tests/a.py", "x = 1  # type: ignore"),
    "an ignore without reason": (
        "excuses_have_reasons",
        "demo/a.py",
        "x = 1  # type: ignore[misc, arg-type]",
    ),
    "a sleep": ("tests_do_not_sleep", "tests/a.py", "time.sleep(1)"),
    "a sleep on the loop": (
        "tests_do_not_sleep",
        "tests/a.py",
        "async def f():\n    await asyncio.sleep(delay)",
    ),
    "a sleep in a loop that does not look": (
        "tests_do_not_sleep",
        "tests/a.py",
        "while True:\n    time.sleep(1)",
    ),
    "a sleep by its own name": ("tests_do_not_sleep", "tests/a.py", "sleep(0.01)"),
    "a limit without reason": ("limits_say_why", LIMITS, 'A: Final = 1\n"""Why."""\nB: Final = 2'),
    "a limit before another": ("limits_say_why", LIMITS, 'A: Final = 1\nB = 2\n"""Why."""'),
}


@pytest.mark.parametrize(("rule", "path", "text"), BAD.values(), ids=list(BAD))
def test_a_rule_finds(rule: str, path: str, text: str) -> None:
    assert list(getattr(tidy_rules, rule)(Source(path=path, text=text)))


def test_every_rule_is_shown_to_find_something() -> None:
    assert {rule.__name__ for rule in RULES} == {rule for rule, _, _ in BAD.values()}


GOOD = {
    "the line that just fits": ("demo/a.py", "x" * 100),
    "a long line of generated code": (GENERATED + "a_pb2.py", LONG_NAME),
    "a function that just fits": ("demo/a.py", "def f():\n" + "    pass\n" * 69),
    "another's name that has a word": ("demo/a.py", "from a import ContextManager\nhelper()"),
    "a word inside a word": ("demo/a.py", "commonly = utility = 1"),
    "a word in a sentence": ("tests/a.py", "def test_two_forks_have_a_past_in_common(): ..."),
    "a word in a comment of a proto": ("a.proto", "// A bucket (of rain) holds = water.\n"),
    "a coroutine above the core": (PRODUCT + "a.py", '"""A."""\nasync def f(): ...'),
    "a pure core": (CORE + "a.py", '"""A."""\nfrom hashlib import blake2b\nfrom . import ids'),
    "an excuse with its reason": ("demo/a.py", "x = 1  # noqa: S603 - our own program"),
    "an ignore with its reason": ("demo/a.py", "x = 1  # type: ignore[misc]  # bound now"),
    "a wrong type in a test": ("tests/a.py", "f(1)  # type: ignore[arg-type]"),
    "an excuse in a text": ("demo/a.py", 'x = "# noqa"'),
    "a pause between two looks": ("tests/a.py", "while not done():\n    time.sleep(0.01)"),
    "a yield to the loop": ("tests/a.py", "asyncio.sleep(0)"),
    "a sleep outside of tests": ("demo/a.py", "time.sleep(1)"),
    "a path in an address": ("docs/a.md", "https://example.org/home/page and a/work/b"),
    "a limit with its reason": (LIMITS, '"""A."""\nA: Final = 1\n"""Why."""\nassert A < 2'),
}


@pytest.mark.parametrize(("path", "text"), GOOD.values(), ids=list(GOOD))
def test_no_rule_minds(path: str, text: str) -> None:
    source = Source(path=path, text=text)
    assert not [complaint for rule in RULES for complaint in rule(source)]
