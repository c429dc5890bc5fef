"""Generates `router/checkpoint_router/v1` from `proto/checkpoint_router/v1`.

The generated modules are committed, so that nobody needs a compiler to use the project. With
`--check` nothing is changed, and the exit code says whether what is committed is what the sources
make (1: it is not; the differing files are named).
"""

import argparse
import shutil
import sys
import sysconfig
import tempfile
from importlib import resources
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "proto" / "checkpoint_router" / "v1"
TARGET = ROOT / "router" / "checkpoint_router" / "v1"
INIT = (
    '"""Floor 1: generated from `proto/checkpoint_router/v1`. Do not edit; run `make proto`."""\n'
)


def generate(out: Path) -> Path:
    """Generates everything under `out`; returns the folder with the modules."""
    names = sorted(p.relative_to(ROOT / "proto").as_posix() for p in SOURCES.glob("*.proto"))
    arguments = [
        "protoc",
        f"--proto_path={ROOT / 'proto'}",
        f"--proto_path={resources.files('grpc_tools') / '_proto'}",
        f"--python_out={out}",
        f"--grpc_python_out={out}",
        *_plugin("mypy", out),
        *_plugin("mypy_grpc", out),
        *names,
    ]
    if protoc.main(arguments):
        raise SystemExit("generate_proto: protoc failed; see its messages above.")
    modules = out / "checkpoint_router" / "v1"
    (modules / "__init__.py").write_text(INIT)
    for path in modules.glob("types_pb2_grpc.py*"):
        path.unlink()  # it defines no service
    return modules


def _plugin(name: str, out: Path) -> list[str]:
    program = Path(sysconfig.get_path("scripts")) / f"protoc-gen-{name}"
    return [f"--plugin=protoc-gen-{name}={program}", f"--{name}_out=quiet:{out}"]


def main() -> int:
    """Generates or checks; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="change nothing, compare")
    check = parser.parse_args().check
    with tempfile.TemporaryDirectory() as scratch:
        made = {p.name: p.read_bytes() for p in generate(Path(scratch)).iterdir()}
    if check:
        held = {p.name: p.read_bytes() for p in TARGET.glob("*.py*") if p.is_file()}
        differing = sorted(n for n in made.keys() | held.keys() if made.get(n) != held.get(n))
        for name in differing:
            print(f"{TARGET.relative_to(ROOT) / name} is not what the sources make: `make proto`")
        return 1 if differing else 0
    shutil.rmtree(TARGET, ignore_errors=True)
    TARGET.mkdir(parents=True)
    for name, content in made.items():
        (TARGET / name).write_bytes(content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
