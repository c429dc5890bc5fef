"""The process of `tests.contract.child`, with a writer that answers a group before its COMMIT.

Run as that one is. A group is committed when the next one comes; nobody waits for it meanwhile.
"""

import asyncio
import sys
from typing import Any

from checkpoint_router.backends.sqlite.writer import Job, Outcome, Writer
from tests.contract import child


def plant() -> None:
    commit, end = Writer._commit, Writer._end

    def late(self: Writer, *, changed: bool) -> None:
        self._changes.committed()

    def answered_early(self: Writer, group: list[Job]) -> list[Outcome]:
        if self.conn.in_transaction:
            end(self, changed=True)
        return commit(self, group)

    patched: Any = Writer
    patched._end, patched._commit = late, answered_early


if __name__ == "__main__":
    plant()
    asyncio.run(child.main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
