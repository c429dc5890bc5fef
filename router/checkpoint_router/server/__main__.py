"""`python -m checkpoint_router.server`: a router without the command line's comforts."""

import argparse
import sys

from checkpoint_router.core.errors import RouterError
from checkpoint_router.server.serve import run
from checkpoint_router.server.settings import Settings, load


def main() -> int:
    """Exit codes: 0 ended by a signal, 2 bad settings, 4 refused to start."""
    parser = argparse.ArgumentParser(prog="python -m checkpoint_router.server")
    parser.add_argument("--config", help="a TOML file with settings")
    for name in Settings.model_fields:
        parser.add_argument(f"--{name.replace('_', '-')}")
    flags = vars(parser.parse_args())
    try:
        loaded = load(flags, file=flags.pop("config"))
    except RouterError as e:
        sys.stderr.write(f"{e}\n")
        return 2
    try:
        return run(loaded.settings)
    except RouterError as e:
        sys.stderr.write(f"{e}\n")
        return 4


if __name__ == "__main__":
    sys.exit(main())
