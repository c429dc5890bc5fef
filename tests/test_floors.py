"""The contracts between the floors are kept, and each of them can be broken.

Owner: `[tool.importlinter]` in pyproject.toml has the contracts. Here a copy of the package gets
forbidden imports, and every contract must notice.
"""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "router" / "checkpoint_router"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CONTRACTS = PROJECT["tool"]["importlinter"]["contracts"]
LINT = "from importlinter.cli import lint_imports_command as main; main()"

PLANTED = {
    "unheard_of/__init__.py": "",
    "core/planted.py": "import time",
    "wire/planted.py": "import asyncio",
    "engine/planted.py": "import grpc, sqlite3",
    "backends/second/__init__.py": "import checkpoint_router.backends.sqlite",
    "client/planted.py": "def later():\n    import structlog",
    "server/planted.py": "import langgraph",
    "cli/planted.py": "import checkpoint_router.engine.engine",
}
"""File to what is written into it. Between them they break every contract."""


def verdicts(package: Path) -> dict[str, str]:
    """Contract to KEPT or BROKEN for the package that stands in that folder."""
    done = subprocess.run(
        [sys.executable, "-c", LINT, "--no-cache", "--config", str(ROOT / "pyproject.toml")],
        cwd=package.parent,
        env={**os.environ, "PYTHONPATH": str(package.parent), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    found = re.findall(r"^(.+) (KEPT|BROKEN)(?: \(.*\))?$", done.stdout, re.MULTILINE)
    assert len(found) == len(CONTRACTS), done.stdout + done.stderr
    return dict(found)


def test_every_floor_keeps_its_contract() -> None:
    assert set(verdicts(PACKAGE).values()) == {"KEPT"}, "`make lint` says where"


@pytest.mark.timeout(200)
def test_every_contract_can_be_broken(tmp_path: Path) -> None:
    package = tmp_path / PACKAGE.name
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    for name, text in PLANTED.items():
        path = package / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f'"""Planted."""\n{text}\n')
    assert set(verdicts(package).values()) == {"BROKEN"}
