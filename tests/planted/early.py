"""The process of `tests.contract.child`, with a writer that answers a group before its COMMIT.

Run as that one is. A group is committed when the next one comes; nobody waits for it meanwhile.
"""

import asyncio
import sys
from typing import Any

from checkpoint_router.backends.sqlite.writer import Job, Writer
from tests.contract import child


def plant() -> None:
    commit, opened = Writer._commit, Writer._opened

    def late(self: Writer) -> None:
        """The transaction stays open."""

    def answered_early(self: Writer, group: list[Job]) -> Any:
        if self.conn.in_transaction:
            commit(self)
        return opened(self, group)

    patched: Any = Writer
    patched._opened, patched._commit = answered_early, late


if __name__ == "__main__":
    plant()
    asyncio.run(child.main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
