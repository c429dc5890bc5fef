"""The architecture's page names files and functions; this keeps those names true."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "ARCHITECTURE.md").read_text()
PACKAGE = ROOT / "router" / "checkpoint_router"

# `engine/engine.py: Engine.put` or `engine/engine.py`, also broken over two lines.
NAMES = [
    (file, " ".join(name.split()) if name else "")
    for file, name in re.findall(r"`([a-z0-9_/]+\.py)(?::\s+([A-Za-z_.]+))?`", PAGE)
    if not file.startswith("tests/")
]


def defined(file: Path) -> set[str]:
    """Top-level names of a file, and `Class.member` for what its classes define."""
    found: set[str] = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {
                f"{node.name}.{member.name}"
                for member in node.body
                if isinstance(member, ast.FunctionDef | ast.AsyncFunctionDef)
            }
    return found


@pytest.mark.parametrize(("file", "name"), sorted(set(NAMES)))
def test_what_the_architecture_names_is_there(file: str, name: str) -> None:
    path = PACKAGE / file
    assert path.is_file(), f"docs/ARCHITECTURE.md names {file}, which is not there"
    if name:
        assert name in defined(path), f"docs/ARCHITECTURE.md names {name}, not in {file}"


def test_the_walks_name_enough_to_follow() -> None:
    assert len(set(NAMES)) > 30


def test_a_name_that_is_gone_would_be_seen() -> None:
    assert "Engine.put" in defined(PACKAGE / "engine" / "engine.py")
    assert "Engine.set" not in defined(PACKAGE / "engine" / "engine.py")
