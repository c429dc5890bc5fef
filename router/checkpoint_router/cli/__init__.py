"""Floor 7: the command `checkpoint-router`.

Noun, then verb. Data on standard output, talk on standard error; exit codes in `cli.exits`.
"""

import sys


def main() -> None:
    """Runs one command and ends the process with its exit code."""
    try:
        # Before the commands, which import gRPC: it reads its settings once.
        import checkpoint_router.wire  # noqa: F401 - for what importing it does
        from checkpoint_router.cli.app import run
    except ModuleNotFoundError as e:
        if e.name is not None and e.name.startswith("checkpoint_router"):
            raise
        sys.stderr.write(
            f"error: the command line needs {e.name}, which an agent does not.\n"
            "next:  pip install '.[server]', in the directory of checkpoint-router's source.\n"
        )
        sys.exit(2)
    run()
