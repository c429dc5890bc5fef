"""One of several agents on one thread: `python -m tests.probe.rival TARGET LOG NUMBER`.

Each turn reads the thread, and goes on from there with a checkpoint whose value is the line of
those before it, and the write of a task. Notes every acknowledged call in LOG until its standard
input is closed.
"""

import hashlib
import json
import select
import sys
from pathlib import Path
from typing import Any

from langgraph.checkpoint.base import empty_checkpoint, uuid6

from checkpoint_router import RouterSaver
from tests.probe.load import PATIENCE_SECONDS, bytes_of

THREAD = "shared"


def digest(line: list[str]) -> str:
    """Stands for a line in a note: all of them in full are the square of their number."""
    return hashlib.sha256(json.dumps(line).encode()).hexdigest()


def turn(saver: RouterSaver, number: int, count: int, out: Any) -> None:
    """One run."""
    root: Any = {"configurable": {"thread_id": THREAD, "checkpoint_ns": ""}}
    found = saver.get_tuple(root)
    line = [] if found is None else list(found.checkpoint["channel_values"]["line"])
    checkpoint = empty_checkpoint()
    checkpoint["id"] = id = str(uuid6(clock_seq=number))
    version = f"{len(line) + 1:032}.{number}"
    checkpoint["channel_values"] = {"line": [*line, id], "own": bytes_of(id, 2000)}
    checkpoint["channel_versions"] = {"line": version, "own": version}
    metadata: Any = {"source": "loop", "step": len(line)}
    config = saver.put(
        root if found is None else found.config,
        checkpoint,
        metadata,
        checkpoint["channel_versions"],
    )
    out.write(json.dumps(["put", id, [digest(line), line[-1:]]]) + "\n")
    saver.put_writes(config, [("out", bytes_of(id, 500))], f"task-{number}-{count}")
    out.write(json.dumps(["writes", id, f"task-{number}-{count}"]) + "\n")


def main() -> None:
    target, log, number = sys.argv[1:]
    count = 0
    with (
        RouterSaver(target, tenant="load", timeout_seconds=PATIENCE_SECONDS) as saver,
        Path(log).open("a", buffering=1) as out,
    ):
        while not select.select([sys.stdin], [], [], 0)[0]:
            turn(saver, int(number), count, out)
            count += 1


if __name__ == "__main__":
    main()
