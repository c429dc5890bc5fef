"""Questions over many threads: one sorted set for each slot in which a tenant has been, merged.

A tenant's slots are bits that are set before its first write there, and never cleared, so they may
name a slot in which nothing is left; what an answer names comes from the slots themselves.
"""

import heapq
from collections.abc import Iterable, Sequence
from typing import Any, Final

from checkpoint_router.backends.redis import layout
from checkpoint_router.backends.redis.link import Link
from checkpoint_router.core.ids import ThreadKey

_AT_ONCE: Final = 1000
"""Commands of one journey."""

_RUNS_MAX: Final = 64
"""Runs that are looked up one by one; for more, all that a tenant has are read."""

Command = tuple[Any, ...]


class Listing:
    """Reads of sorted sets. See `storage.port.Storage` for each verb."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def threads(self, tenant: str, after: str, limit: int) -> list[str]:
        """See `Storage.threads`."""
        low = b"(" + after.encode() if after else b"-"
        asked = [
            ("ZRANGEBYLEX", layout.of_tenant("t", slot, tenant), low, "+", "LIMIT", 0, limit)
            for slot in await self._slots(tenant)
        ]
        found = [name.decode() for page in await self._all(asked) for name in page]
        return sorted(found)[:limit]

    async def slot_threads(
        self, slot: int, after: tuple[int, str, str] | None, limit: int
    ) -> list[tuple[int, ThreadKey]]:
        """See `Storage.slot_threads`."""
        low = b"-" if after is None else b"(" + layout.leaf_member(*after)
        key = layout.by_leaf(slot)
        (page,) = await self._all([("ZRANGEBYLEX", key, low, "+", "LIMIT", 0, limit)])
        out = []
        for member in page:
            tenant, _, name = member[2:].partition(b"\0")
            out.append(
                (int.from_bytes(member[:2], "big"), ThreadKey(tenant.decode(), name.decode()))
            )
        return out

    async def newest(
        self, tenant: str, before: tuple[str, str] | None, limit: int
    ) -> list[tuple[str, str]]:
        """See `Storage.newest`."""
        high = b"+" if before is None else b"(" + "\0".join(before).encode()
        bounds = {layout.of_tenant("n", s, tenant): high for s in await self._slots(tenant)}
        found: dict[bytes, dict[tuple[str, str], None]] = {key: {} for key in bounds}
        while bounds:
            asked = [
                ("ZREVRANGEBYLEX", key, bound, "-", "LIMIT", 0, limit)
                for key, bound in bounds.items()
            ]
            for key, page in zip(list(bounds), await self._all(asked), strict=True):
                ones = [member.split(b"\0", 2)[:2] for member in page]
                found[key] |= dict.fromkeys((cid.decode(), name.decode()) for cid, name in ones)
                # One checkpoint may be stored more than once: go on below the last one.
                if len(page) < limit or len(found[key]) >= limit:
                    del bounds[key]
                else:
                    bounds[key] = b"(" + b"\0".join(ones[-1])
        return heapq.nlargest(limit, (one for names in found.values() for one in names))

    async def threads_of_runs(self, tenant: str, runs: Sequence[str]) -> list[str]:
        """See `Storage.threads_of_runs`."""
        wanted = {layout.run_hash(run) for run in runs}
        ranges = [(b"[" + run, b"(" + run + b"\xff") for run in wanted]
        if len(wanted) > _RUNS_MAX:
            ranges = [(b"-", b"+")]
        asked: Iterable[Command] = (
            ("ZRANGEBYLEX", layout.of_tenant("r", slot, tenant), low, high)
            for slot in (await self._slots(tenant) if wanted else ())
            for low, high in ranges
        )
        members = [m for page in await self._all(list(asked)) for m in page if m[:16] in wanted]
        return sorted({m[16:].partition(b"\0")[0].decode() for m in members})

    async def _slots(self, tenant: str) -> list[int]:
        bits = await self._link.do("get", layout.slots_key(tenant)) or b""
        return [8 * i + j for i, byte in enumerate(bits) for j in range(8) if byte >> (7 - j) & 1]

    async def _all(self, asked: Sequence[Command]) -> list[list[bytes]]:
        answers: list[list[bytes]] = []
        for start in range(0, len(asked), _AT_ONCE):
            answers += await self._link.all(asked[start : start + _AT_ONCE])
        return answers
