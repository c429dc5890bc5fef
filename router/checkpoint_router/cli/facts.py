"""What a checkpoint's metadata says to a person: its step, its source, its run, what it ran in.

Rules: metadata is JSON text, or an opaque value that stays closed. A user may have stored anything
under LangGraph's own keys, so a wrong type reads as absent.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from checkpoint_router.core.records import MetadataEntry

_KEYS: Final = {"step", "source", "run_id", "parents"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The keys of LangGraph that a screen shows."""

    step: int | None = None
    source: str | None = None
    """`input`, `loop`, `update` or `fork`."""
    run_id: str | None = None
    parents: Mapping[str, str] = field(default_factory=dict)
    """Namespace of an enclosing graph to the checkpoint of it that this one ran in."""


def facts_of(metadata: Iterable[MetadataEntry]) -> Facts:
    """What `metadata` says."""
    found = {
        entry.key: parsed(entry.value)
        for entry in metadata
        if entry.key in _KEYS and isinstance(entry.value, str)
    }
    step, source, run_id = found.get("step"), found.get("source"), found.get("run_id")
    parents = found.get("parents")
    return Facts(
        step=step if type(step) is int else None,
        source=source if isinstance(source, str) else None,
        run_id=run_id if isinstance(run_id, str) else None,
        parents={k: v for k, v in parents.items() if isinstance(v, str)}
        if isinstance(parents, dict)
        else {},
    )


def parsed(text: str) -> Any:
    """The value of JSON text. NaN and its like become text, which strict JSON can carry again;
    text that is no JSON, or nests too deep to be read, stays text."""
    try:
        return json.loads(text, parse_constant=str)
    except (ValueError, RecursionError):
        return text


def metadata_document(metadata: Iterable[MetadataEntry]) -> dict[str, Any]:
    """All of `metadata` as one JSON object; an opaque value as its type and size."""
    return {
        entry.key: parsed(entry.value)
        if isinstance(entry.value, str)
        else {"opaque_type": entry.value.tag, "bytes": len(entry.value.data)}
        for entry in metadata
    }
