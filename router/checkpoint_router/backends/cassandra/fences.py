"""Fence groups: how a put learns that a thread was deleted or pruned elsewhere.

Owner of the truth: one row for each of 16 groups of slots, raised by conditional writes. A put
reads its group's row after its batch was answered; puts that wait together share the read. As
long as the version is the one at which a thread's state was read, nobody ended or pruned anything
in the group since. The row names the threads of the last raises, so a delete makes the routers
look again at one thread and not at a sixteenth of all.
"""

import asyncio
from typing import Final

import xxhash

from checkpoint_router.backends.cassandra.gather import Gather
from checkpoint_router.backends.cassandra.session import Session
from checkpoint_router.backends.cassandra.statements import Name
from checkpoint_router.core import limits
from checkpoint_router.core.errors import Unavailable
from checkpoint_router.core.ids import ThreadKey, slot_of

GROUPS: Final = 16
"""More: fewer puts share a read. Fewer: a raise is noticed by more threads than it concerns."""

RECENT_MAX: Final = 64
"""Raises that a group names by their thread."""

_RAISES_MAX: Final = 100
"""Tries to raise a group that others raise too."""


def group_of(thread: ThreadKey) -> int:
    """The fence group of the thread's slot."""
    return slot_of(thread.thread) * GROUPS // limits.SLOTS


def _short(thread: ThreadKey) -> bytes:
    name = f"{thread.tenant}\x00{thread.thread}".encode()
    return xxhash.xxh3_64_digest(name)


class Fences:
    """All groups."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._seen: dict[int, int] = {}
        self._recent: dict[int, list[bytes]] = {}
        self._reads: dict[int, Gather[None, int]] = {}

    def seen(self, thread: ThreadKey) -> int | None:
        """The version that was last read, which may be old; None if none was."""
        return self._seen.get(group_of(thread))

    async def read(self, thread: ThreadKey) -> int:
        """The version, read after this was called."""
        group = group_of(thread)
        if group not in self._reads:
            self._reads[group] = Gather(lambda asked: self._read(group, len(asked)))
        return await self._reads[group].ask(None)

    def concerns(self, thread: ThreadKey, since: int | None) -> bool:
        """Whether a raise after that version may have been for this thread."""
        group = group_of(thread)
        raises = 0 if since is None else self._seen[group] - since
        recent = self._recent[group]
        if since is None or raises > len(recent):
            return True
        return raises > 0 and _short(thread) in recent[-raises:]

    async def lift(self, thread: ThreadKey) -> None:
        """Raises the version of the thread's group, naming the thread. Durable on return: every
        read that begins later sees it."""
        group = group_of(thread)
        for _ in range(_RAISES_MAX):
            version, recent = await self._look(group)
            raised = [*recent, _short(thread)][-RECENT_MAX:]
            values = (version + 1, raised, group, version or None)
            if await self._session.condition((Name.FENCE_RAISE, values)):
                return
            await asyncio.sleep(0)
        raise Unavailable(
            f"fence group {group} kept being raised by others. Nothing was removed. Try again."
        )

    async def _read(self, group: int, askers: int) -> list[int]:
        version, recent = await self._look(group)
        # A read never goes back: an older answer would hide what a newer one has shown.
        if version >= self._seen.get(group, 0):
            self._seen[group], self._recent[group] = version, recent
        return [self._seen[group]] * askers

    async def _look(self, group: int) -> tuple[int, list[bytes]]:
        rows = await self._session.read(Name.FENCE, group)
        if not rows or rows[0][0] is None:
            return 0, []
        version, recent = rows[0]
        return version, list(recent or ())
