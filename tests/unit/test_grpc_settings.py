"""What importing us does to gRPC, seen from a process that did nothing else."""

import os
import subprocess
import sys

IMPORT = "import os; before = dict(os.environ); import checkpoint_router.{side} as _; "


def said(program: str, **variables: str) -> str:
    """All that a process says which runs `program` with these variables and no others of gRPC."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("GRPC_")}
    run = subprocess.run(
        [sys.executable, "-c", program],
        env=clean | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=True,
    )
    return run.stdout


def test_the_installed_grpc_knows_the_experiments_that_are_switched_off() -> None:
    """Else it would say so on the standard error of every agent. And they are asked for at all:
    a version that was not measured is left alone, and must be looked at when it is pinned."""
    look = "from checkpoint_router import wire; print(wire._SETTINGS['GRPC_EXPERIMENTS'])"
    asked = "-event_engine_client,-event_engine_listener\n"
    assert said(IMPORT.format(side="client") + look) == asked


def test_nothing_of_it_stays_in_the_environment() -> None:
    for side in ("client", "server"):
        look = "print({k for k in os.environ.keys() - before.keys() if 'EXP' in k or 'FORK' in k})"
        assert said(IMPORT.format(side=side) + look) == "set()\n"


def test_who_has_chosen_experiments_keeps_them() -> None:
    text = said(IMPORT.format(side="client"), GRPC_EXPERIMENTS="of_the_user")
    assert "Unknown experiment: of_the_user" in text


def test_every_program_of_ours_chooses_before_grpc_is_imported() -> None:
    """A module that imports gRPC by itself, before us, would get its defaults in silence."""
    watch = (
        "import sys, os, importlib.abc\n"
        "class Watch(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'grpc':\n"
        "            print('chosen' if 'GRPC_EXPERIMENTS' in os.environ else 'not chosen')\n"
        "sys.meta_path.insert(0, Watch())\n"
    )
    programs = {
        "command": "sys.argv[1:] = ['--help']\n"
        "from contextlib import redirect_stdout, suppress\n"
        "from checkpoint_router.cli import main\n"
        "with suppress(SystemExit), redirect_stdout(sys.stderr): main()",
        "router": "import checkpoint_router.server.__main__",
        "router of tests": "import checkpoint_router.testing.child",
        "agent": "from checkpoint_router import RouterSaver",
    }
    heard = {name: said(watch + text).splitlines()[0] for name, text in programs.items()}
    assert heard == dict.fromkeys(programs, "chosen")
