"""Help, completion, colour, and what the command line does without."""

import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from checkpoint_router import RouterSaver
from checkpoint_router.cli.app import app
from checkpoint_router.testing import RunningRouter

from .conftest import SECONDS_MAX, Cli, environment, put, run
from .terminal import on_terminal

ESCAPE = "\x1b["
COLOUR = re.compile(r"\x1b\[[0-9;]*3[0-7]m")


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command below `group`, by its words."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


ALL = dict(commands(typer.main.get_command(app)))


def test_the_commands_are_those_that_are_documented() -> None:
    assert {" ".join(words) for words in ALL} == {
        "serve",
        "dev",
        "thread list",
        "thread show",
        "thread history",
        "thread conflicts",
        "thread delete",
        "shard check",
        "config show",
        "doctor",
        "version",
    }


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_help_has_examples_of_the_command_itself(words: tuple[str, ...]) -> None:
    command = ALL[words]
    context = command.make_context(" ".join(words), [], resilient_parsing=True)
    text = command.get_help(context)
    after = text.split("Examples:\n", 1)[1].split("Options:", 1)[0]
    name = " ".join(("checkpoint-router", *words))
    assert after.count(name) >= 2, text
    for option in command.params:
        assert option.name == "help" or option.help, f"{option.name} is not explained"


def test_help_goes_to_stdout_and_has_the_exit_codes() -> None:
    said = run("--help")
    assert said.returncode == 0
    assert "Exit codes: 0 done" in said.stdout
    assert said.stderr == ""


def test_colour_is_for_terminals_that_want_it(
    router: RunningRouter, saver: RouterSaver, tenant: str, cli: Cli
) -> None:
    put(saver, "a", "c1", a=1)
    where = ("--target", router.target, "--tenant", tenant)
    coloured = on_terminal("thread", "show", "a", *where).screen
    sober = on_terminal("thread", "show", "a", *where, env={"NO_COLOR": "1"}).screen
    assert COLOUR.search(coloured)
    assert not COLOUR.search(sober)
    assert "step 0" in coloured
    assert "step 0" in sober
    assert ESCAPE not in cli("thread", "show", "a", env={"FORCE_COLOR": "1"}).stdout


def test_a_shell_completes_thread_ids(cli: Cli, saver: RouterSaver) -> None:
    for thread in ("trip-1", "trip-2", "other"):
        put(saver, thread, "c1", a=1)
    said = cli(
        env={
            "_CHECKPOINT_ROUTER_COMPLETE": "complete_bash",
            "COMP_WORDS": "checkpoint-router thread show trip",
            "COMP_CWORD": "3",
        }
    )
    assert said.stdout.split() == ["trip-1", "trip-2"]


def test_a_shell_is_not_told_of_errors() -> None:
    said = run(
        env={
            "CHECKPOINT_ROUTER_TARGET": "router://127.0.0.1:1",
            "_CHECKPOINT_ROUTER_COMPLETE": "complete_bash",
            "COMP_WORDS": "checkpoint-router thread show trip",
            "COMP_CWORD": "3",
        }
    )
    assert (said.stdout.strip(), said.stderr) == ("", "")


def test_threads_are_looked_at_without_langgraph() -> None:
    """The router's machine need not have it, and nothing can be deserialised without it."""
    code = (
        "import sys, checkpoint_router.cli.app\n"
        "print([m for m in sys.modules if m.startswith(('langgraph', 'langchain', 'sqlite3'))])"
    )
    said = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=True,
    )
    assert said.stdout.strip() == "[]"


def test_an_installation_without_the_extra_says_what_to_install() -> None:
    code = "import sys; sys.modules['typer'] = None\nfrom checkpoint_router.cli import main; main()"
    said = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    assert said.returncode == 2
    assert said.stderr.splitlines() == [
        "error: the command line needs typer, which an agent does not.",
        "next:  pip install '.[server]', in the directory of checkpoint-router's source.",
    ]


def test_a_terminal_that_knows_no_unicode_still_gets_a_tree(cli: Cli, saver: RouterSaver) -> None:
    put(saver, "straße", "c1", a=1)
    said = cli("thread", "show", "straße", env={"PYTHONIOENCODING": "ascii"})
    assert said.returncode == 0, said.stderr
    assert said.stdout.startswith("thread stra\\xdfe")
    assert said.stdout.isascii()
    assert "head" in said.stdout
