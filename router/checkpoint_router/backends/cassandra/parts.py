"""Parts of lists that are renewed, so that no read walks over all that was ever removed.

A part of a list is a partition. What is removed from it leaves a tombstone, over which every read
goes, and which Cassandra cannot drop as long as rows of the same timestamp come to that partition.
So who has removed many rows copies those that are left into the part's next version, which is a
partition of its own, and drops the one before as a whole.

Owner of the truth: the table `part`, by conditions, with the versions that have to be read: `low`
to `now`, which are two only while rows are copied, and 0 where there is no row. Rules: the fence is
raised between the new version and the copying, so a put that was acknowledged either has its row in
a version that will be copied, or has seen that there is a newer one (`Parts.sure`, after it read
the fence). Who removes does it in all versions, and again in those that came meanwhile. Every step
may be done twice, and by anybody: a router that dies leaves two versions, and the next one to renew
goes on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from checkpoint_router.backends.cassandra.fences import Fences
from checkpoint_router.backends.cassandra.session import Change, Session
from checkpoint_router.backends.cassandra.statements import ENDED, ROW, Name
from checkpoint_router.core.ids import ThreadKey

RENEW_EACH: Final = {"t": 125, "c": 2_000}
"""Rows that one router removes from a part before it renews it, or as many as were left the last
time, if that is more; by how the part's name begins. Larger: reads walk over more. Smaller: more is
copied. A list of threads reads sixteen parts at once, so each of them has a sixteenth."""

RENEWED: Final = tuple(RENEW_EACH)
"""How the names of those parts begin from which rows are removed."""

KNOWN_MAX: Final = 10_000
"""Parts whose versions are remembered. One that is not costs a read."""

_ROWS: Final = 200
"""Rows in one request."""

Part = tuple[str, str]
"""tenant, part."""


@dataclass(frozen=True, slots=True)
class Versions:
    """Those of a part that may have rows."""

    low: int = 0
    now: int = 0

    def names(self, part: Part) -> list[str]:
        """Of the partitions, the newest last."""
        return [name_of(part[1], version) for version in range(self.low, self.now + 1)]


def name_of(part: str, version: int) -> str:
    """The name of a part's partition. A part begins with a letter."""
    return f"{version}{part}" if version else part


def part_of(name: str) -> str:
    """The part of which a partition is a version."""
    return name.lstrip("0123456789")


class Parts:
    """The versions of all parts, as they are known to this process."""

    def __init__(self, session: Session, fences: Fences) -> None:
        self._session = session
        self._fences = fences
        self._known: dict[Part, tuple[Versions, int | None]] = {}
        """With the fence before which they were read, or below which nothing concerned them."""
        self._removed: dict[Part, int] = {}
        self._left: dict[Part, int] = {}
        """Rows that were copied when it was last renewed."""

    async def versions(self, part: Part) -> Versions:
        """As they were when the part was last looked at."""
        known = self._known.get(part)
        return await self.look(part) if known is None else known[0]

    async def versions_of(self, tenant: str, parts: Sequence[str]) -> dict[str, Versions]:
        """The same for several parts of a tenant."""
        known = [self._known.get((tenant, part)) for part in parts]
        found = {part: one[0] for part, one in zip(parts, known, strict=True) if one is not None}
        return found if len(found) == len(parts) else await self.look_at(tenant, parts)

    async def look(self, part: Part) -> Versions:
        """As a quorum has them."""
        return (await self.look_at(part[0], [part[1]]))[part[1]]

    async def look_at(self, tenant: str, parts: Sequence[str]) -> dict[str, Versions]:
        """The same for several parts of a tenant."""
        fence = self._fences.seen
        rows = await self._session.read(Name.PARTS, tenant, parts)
        found = dict.fromkeys(parts, Versions()) | {p: Versions(low, now) for p, low, now in rows}
        if len(self._known) >= KNOWN_MAX:
            self._known.clear()
        self._known |= {(tenant, part): (versions, fence) for part, versions in found.items()}
        return found

    def sure(self, part: Part) -> bool:
        """Whether what is known of the part still held when the fence was last read."""
        known = self._known.get(part)
        if known is None or self._fences.concerns(_raise_of(part), known[1]):
            return False
        self._known[part] = (known[0], self._fences.seen)
        return True

    def removed(self, part: Part, rows: int) -> bool:
        """Counts rows that this process removed: whether the part had better be renewed."""
        count = self._removed[part] = self._removed.get(part, 0) + rows
        return count >= max(RENEW_EACH[part[1][0]], self._left.get(part, 0))

    async def renew(self, part: Part) -> None:
        """Copies what is left of a part into its next version, and drops what was before."""
        self._removed.pop(part, None)
        found = await self.look(part)
        if found.low == found.now:
            begin = (found.low, found.now + 1, *part, found.now or None)
            if not await self._session.condition((Name.PART_BEGIN, begin)):
                return
            found = Versions(found.low, found.now + 1)
        await self._fences.lift(_raise_of(part))
        for version in range(found.low, found.now):
            await self._copy(part, version, found.now)
        await self._session.condition(
            (Name.PART_END, (found.now, *part, found.low, found.now)),
        )
        # One more than is needed: a router that died here leaves what nobody reads.
        for version in range(max(0, found.low - 1), found.now):
            await self._session.write(Name.LIST_DROP, ENDED, part[0], name_of(part[1], version))
        await self.look(part)

    async def _copy(self, part: Part, version: int, to: int) -> None:
        tenant, after, left = part[0], ("", "", ""), 0
        source, target = name_of(part[1], version), name_of(part[1], to)
        while rows := await self._session.read(Name.LIST_AFTER_ROW, tenant, source, *after, _ROWS):
            copies: list[Change] = [(Name.LIST_PUT, (tenant, target, *row, ROW)) for row in rows]
            await self._session.together(copies)
            after, left = rows[-1], left + len(rows)
        self._left[part] = left


def _raise_of(part: Part) -> ThreadKey:
    """What the fence names when the part is renewed: no thread of that name need be there."""
    return ThreadKey(part[0], f"\x00{part[1]}")
