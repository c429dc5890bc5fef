"""What callers hand in, checked for its type before anything looks inside.

Rules: an argument of a wrong type is an error that names it, never a text that is made of it; ids
alone may be integers or UUIDs, which LangGraph's graphs take too. Nothing was sent yet when one of
these raises.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

import msgspec

from checkpoint_router.core import limits
from checkpoint_router.core.errors import InvalidArgument, MissingId, WrongType
from checkpoint_router.core.ids import checked_id
from checkpoint_router.wire.checks import checked_size


class Names(msgspec.Struct, frozen=True, gc=False):
    """The ids of a config, checked."""

    thread: str
    ns: str
    checkpoint_id: str | None
    configurable: Mapping[str, Any]


def configurable_of(config: Any) -> Mapping[str, Any]:
    """The ids of a config, whatever else it has; empty if there is none."""
    whole = checked_mapping("config", config, optional=True)
    return checked_mapping("config['configurable']", whole.get("configurable"), optional=True)


def names_of(config: Any) -> Names:
    """The ids of a config. Raises MissingId (a KeyError) without a thread_id."""
    configurable = configurable_of(config)
    thread = configurable.get("thread_id")
    if thread is None:
        raise MissingId(
            "the config has no thread_id. Give config={'configurable': {'thread_id': …}}.",
            field="thread_id",
        )
    ns = configurable.get("checkpoint_ns")
    return Names(
        id_text("thread_id", thread),
        "" if ns is None else checked_id("checkpoint_ns", ns, empty=True),
        optional_id("checkpoint_id", configurable.get("checkpoint_id")),
        configurable,
    )


def checked_mapping(what: str, value: Any, *, optional: bool = False) -> Mapping[str, Any]:
    """`value` if it is a mapping; an empty one for None where it is optional."""
    if type(value) is dict:
        return value
    if value is None and optional:
        return {}
    if not isinstance(value, Mapping):
        raise _wrong(what, "a dict", value)
    return value


def checked_key(what: str, value: Mapping[str, Any], key: str) -> Any:
    """What stands under `key`. Raises MissingId, which is a KeyError too."""
    if key not in value:
        raise MissingId(f"{what} has no {key!r}. Nothing was written.", field=key)
    return value[key]


def id_text(what: str, value: Any, *, empty: bool = False) -> str:
    """An id as text. Raises InvalidArgument or LimitExceeded, saying what is wrong with it."""
    if isinstance(value, str):
        return checked_id(what, value, empty=empty)
    if isinstance(value, int | UUID) and not isinstance(value, bool):
        value = str(value)
    else:
        raise _wrong(what, "text", value)
    return checked_id(what, value, empty=empty)


def optional_id(what: str, value: Any) -> str | None:
    """As `id_text`; None where LangGraph says that there is none."""
    return None if value is None or value == "" else id_text(what, value)


def id_texts(what: str, values: Any) -> list[str]:
    """Ids as texts. A bare text is a mistake, not a list of its characters."""
    return [id_text(what, value) for value in checked_list(what, values)]


def checked_list(what: str, values: Any) -> Iterable[Any]:
    """`values` if they can be gone through and are no text."""
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise _wrong(what, "a list", values)
    return values


def checked_writes(writes: Any) -> Sequence[tuple[str, Any]]:
    """`writes` if they are pairs of channel and value."""
    if isinstance(writes, str | bytes) or not isinstance(writes, Sequence):
        raise _wrong("writes", "a list of (channel, value)", writes)
    for at, write in enumerate(writes):
        if not isinstance(write, tuple | list) or len(write) != 2:
            raise _wrong(f"write {at}", "a pair of channel and value", write)
    return writes


def checked_path(value: Any) -> str:
    """`value` if it may be the path of a task."""
    if not isinstance(value, str):
        raise _wrong("task_path", "text", value)
    checked_size("task_path", len(encoded("task_path", value)), limits.TASK_PATH_BYTES_MAX)
    return value


def checked_limit(value: Any) -> int | None:
    """`value` if it may be the limit of a listing."""
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool):
        raise _wrong("limit", "a number from 0 on, or None for all", value)
    if value < 0:
        raise InvalidArgument(
            f"limit is {value}; give a number from 0 on, or None for all.", field="limit"
        )
    return value


def encoded(what: str, text: str) -> bytes:
    """UTF-8 of `text`. Raises InvalidArgument where it has none."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise InvalidArgument(
            f"{what} contains a lone surrogate, which has no UTF-8 form. Use valid text.",
            field=what,
        ) from None


def _wrong(what: str, wanted: str, value: Any) -> WrongType:
    return WrongType(
        f"{what} must be {wanted}, not {type(value).__name__}. Nothing was written.", field=what
    )
