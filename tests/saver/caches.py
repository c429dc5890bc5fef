"""Savers whose cache is of no use, or nearly: none at all, and one that always makes room.

Values of tests are mostly so short that they stand in their record, and no cache ever sees them.
`Long` makes each of them long, so that all travel by name, and a small cache has room for one.
"""

from __future__ import annotations

from typing import Any, Final

from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from checkpoint_router.core import limits

EVICTING: Final = 64 * limits.KIB
"""Bytes of a cache that keeps one of `Long`'s values, and drops it for the next."""

_FILLER: Final = b"\0" * (EVICTING // 2)


class Long(JsonPlusSerializer):
    """LangGraph's serialiser, with as many bytes before each value as half a small cache has.

    A checkpoint's own part stays as it is: it is in the record whatever its size.
    """

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        tag, data = super().dumps_typed(obj)
        whole = isinstance(obj, dict) and "versions_seen" in obj
        return tag, data if whole else _FILLER + data

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        tag, given = data
        return super().loads_typed((tag, given.removeprefix(_FILLER)))


SMALL: Final = {"uncached": 0, "evicting": EVICTING}
"""By the name of a test with it: bytes of the cache."""


def options_of(name: str) -> dict[str, Any]:
    """What a saver of a test is made with besides, by the test's storage or cache."""
    if name in SMALL:
        return {"cache_bytes": SMALL[name], "serde": Long()}
    return {"serde": Long()} if name == "memory" else {}
