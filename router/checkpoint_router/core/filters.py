"""Metadata filters: what "contains" means, over JSON, as PostgreSQL's `@>` defines it.

All conditions must hold. A scalar equals (numbers by value, true is not 1), an object is
contained if each of its keys is there and contains likewise, an array if each of its elements is
contained in some element. A null asks for a null that is there. Opaque metadata never matches.
"""

import json
from collections.abc import Iterable
from typing import Any

from checkpoint_router.core.answers import MetadataFilter
from checkpoint_router.core.records import MetadataEntry


def matches(metadata: Iterable[MetadataEntry], filters: Iterable[MetadataFilter]) -> bool:
    """Whether every filter holds of `metadata`."""
    conditions = tuple(filters)
    if not conditions:
        return True
    values = {m.key: m.value for m in metadata}
    for condition in conditions:
        text = values.get(condition.key)
        if not isinstance(text, str):
            return False
        if text != condition.json and not contains(json.loads(text), json.loads(condition.json)):
            return False
    return True


def contains(value: Any, wanted: Any) -> bool:
    """Whether JSON `value` contains JSON `wanted`."""
    if isinstance(wanted, dict):
        return isinstance(value, dict) and all(
            k in value and contains(value[k], w) for k, w in wanted.items()
        )
    if isinstance(wanted, list):
        return isinstance(value, list) and all(any(contains(v, w) for v in value) for w in wanted)
    if isinstance(value, bool) or isinstance(wanted, bool):
        return value is wanted
    return bool(value == wanted)
