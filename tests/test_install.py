"""What is installed: the pins, the wheel, and what each half of the product may load.

These look at the running interpreter's own imports, so a lazy import deep inside is seen too.
"""

import importlib.metadata
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

import checkpoint_router

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "router" / "checkpoint_router"
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
CONSTRAINTS = (ROOT / "constraints.txt").read_text()

MODULE_OF_SERVER_DEPENDENCY = {
    "grpcio-health-checking": "grpc_health",
    "grpcio-reflection": "grpc_reflection",
    "grpcio-status": "grpc_status",
    "lz4": "lz4",
    "opentelemetry-exporter-otlp-proto-grpc": "opentelemetry.exporter.otlp.proto.grpc",
    "opentelemetry-sdk": "opentelemetry.sdk",
    "rich": "rich",
    "structlog": "structlog",
    "typer": "typer",
    "uhashring": "uhashring",
}

ALSO_OF_LANGGRAPH = {"pydantic"}
"""What the router needs and an agent has anyway, by way of LangGraph."""

USE_THE_SAVER = """
from checkpoint_router import RouterSaver
with RouterSaver("router://127.0.0.1:1", tenant="acme") as saver:
    assert saver.get_next_version(None, None)
"""

LOAD_THE_ROUTER = """
import importlib, pkgutil, sys
for name in ("backends", "engine", "server", "storage", "telemetry", "wire"):
    package = importlib.import_module(f"checkpoint_router.{name}")
    for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(found.name)
loaded = {name.split(".")[0] for name in sys.modules}
print(sorted(loaded & {"langgraph", "langchain_core", "langsmith"}))
"""


def name_of(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement)[0].lower()


def python(program: str) -> str:
    """Runs a program in an interpreter of its own; returns what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_each_module_of_the_server_extra_is_known_here() -> None:
    extra = {name_of(r) for r in PROJECT["project"]["optional-dependencies"]["server"]}
    assert extra - ALSO_OF_LANGGRAPH == MODULE_OF_SERVER_DEPENDENCY.keys()


def test_an_agent_needs_nothing_of_the_server_extra() -> None:
    absent = dict.fromkeys(MODULE_OF_SERVER_DEPENDENCY.values())
    python(f"import sys\nsys.modules.update({absent})\n{USE_THE_SAVER}")


@pytest.mark.parametrize("module", ["structlog", "opentelemetry.sdk"])
def test_a_module_that_is_taken_away_is_missed(module: str) -> None:
    with pytest.raises(AssertionError, match=f"import of {re.escape(module)} halted"):
        python(f"import sys\nsys.modules[{module!r}] = None\nimport {module}")


def test_a_router_loads_nothing_that_could_deserialise_a_users_object() -> None:
    assert python(LOAD_THE_ROUTER) == "[]"


def test_all_that_the_project_asks_for_is_pinned() -> None:
    groups = PROJECT["dependency-groups"].values()
    extras = PROJECT["project"]["optional-dependencies"].values()
    asked = [r for rs in (PROJECT["project"]["dependencies"], *groups, *extras) for r in rs]
    pinned = set(re.findall(r"^([\w.-]+)==\S+", CONSTRAINTS, re.MULTILINE))
    assert {name_of(r) for r in asked} - pinned == set(), "run `make constraints`"


def test_every_pin_has_hashes_and_no_address() -> None:
    entries = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", CONSTRAINTS)).splitlines()
    assert entries
    assert not [e for e in entries if not re.search(r"--hash=sha256:[0-9a-f]{64}", e)]
    assert "://" not in CONSTRAINTS


def test_the_version_is_the_same_wherever_it_stands() -> None:
    version = PROJECT["project"]["version"]
    assert version == checkpoint_router.__version__
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text()
    assert version == importlib.metadata.version("langgraph-checkpoint-router")


def test_the_wheel_holds_the_package_and_nothing_else(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.iterdir()
    names = {n for n in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in n}
    there = (p for p in PACKAGE.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    assert names == {p.relative_to(PACKAGE.parent).as_posix() for p in there}
    assert {"checkpoint_router/py.typed", "checkpoint_router/v1/types_pb2.pyi"} <= names
