"""The fence: how a put learns that a thread was deleted or pruned elsewhere.

Owner of the truth: one row, raised by conditional writes. A put reads it after its batch was
answered; puts that wait together share the read. As long as the version is the one at which a
thread's state was read, nobody ended or pruned anything since. The row names the threads of the
last raises, so a delete makes the routers look again at one thread and not at all of them. Who
removes several things at once raises it once for all.
"""

import asyncio
from typing import Final

import xxhash

from checkpoint_router.backends.cassandra.gather import Gather
from checkpoint_router.backends.cassandra.session import Session
from checkpoint_router.backends.cassandra.statements import Name
from checkpoint_router.core.errors import Unavailable
from checkpoint_router.core.ids import ThreadKey

ROW: Final = 0
"""Where it stands. More rows: fewer puts share a read, and a read is half of what a put asks."""

RECENT_MAX: Final = 64
"""Raises that it names by their thread."""

_RAISES_MAX: Final = 100
"""Tries to raise what others raise too."""


def _short(thread: ThreadKey) -> bytes:
    return xxhash.xxh3_64_digest(f"{thread.tenant}\x00{thread.thread}".encode())


class Fences:
    """The fence of one shard."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.seen: int | None = None
        """The version that was last read, which may be old; None if none was."""
        self._recent: list[bytes] = []
        self._reads: Gather[None, int] = Gather(self._read)
        self._lifts: Gather[ThreadKey, None] = Gather(self._lift, most=RECENT_MAX)

    async def read(self) -> int:
        """The version, read after this was called."""
        return await self._reads.ask(None)

    def concerns(self, thread: ThreadKey, since: int | None) -> bool:
        """Whether a raise after that version may have been for this thread."""
        raises = 0 if since is None or self.seen is None else self.seen - since
        if since is None or raises > len(self._recent):
            return True
        return raises > 0 and _short(thread) in self._recent[-raises:]

    async def lift(self, thread: ThreadKey) -> None:
        """Raises the version, naming the thread. Durable on return: every read that begins later
        sees it."""
        await self._lifts.ask(thread)

    async def _lift(self, threads: list[ThreadKey]) -> list[None]:
        for _ in range(_RAISES_MAX):
            version, recent = await self._look()
            raised = [*recent, *(_short(thread) for thread in threads)][-RECENT_MAX:]
            values = (version + len(threads), raised, ROW, version or None)
            if await self._session.condition((Name.FENCE_RAISE, values)):
                return [None] * len(threads)
            await asyncio.sleep(0)
        raise Unavailable(
            "the fence kept being raised by other routers. Nothing was removed. Try again."
        )

    async def _read(self, asked: list[None]) -> list[int]:
        version, recent = await self._look()
        # A read never goes back: an older answer would hide what a newer one has shown.
        if self.seen is None or version >= self.seen:
            self.seen, self._recent = version, recent
        return [self.seen] * len(asked)

    async def _look(self) -> tuple[int, list[bytes]]:
        rows = await self._session.read(Name.FENCE, ROW)
        if not rows or rows[0][0] is None:
            return 0, []
        version, recent = rows[0]
        return version, list(recent or ())
