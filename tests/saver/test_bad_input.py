"""What callers get wrong gets a typed error that names it; nothing is written, the saver lives.

Every case stands in a table with what it must say. After each, the threads of the tenant are the
ones that were there before, and the saver is used again. What strangers send past the saver is
tested in `tests/wire`.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from checkpoint_router.client.sessions import CarriedThreadId
from checkpoint_router.core import limits
from checkpoint_router.core.errors import (
    InvalidArgument,
    LimitExceeded,
    MissingId,
    RouterError,
    SerialisationError,
    Stale,
    TokenInvalid,
    WrongType,
)
from checkpoint_router.testing import running_router

from .calls import Calls, Flavour
from .conftest import MakeSaver
from .shapes import TASK, body, chain, cid, conf, ids, places

pytestmark = [pytest.mark.router_only]

Attempt = Callable[[Calls], Awaitable[object]]
Case = tuple[Attempt, type[RouterError], str]

AT = conf(checkpoint_id=cid(1))
WHOLE: Any = body(cid(2), {"x": 1})
NEW: Any = WHOLE["channel_versions"]
ANY: Any = None


def config(**given: Any) -> Any:
    """The config of the thread that is there, but for what is given."""
    return {"configurable": {**conf()["configurable"], **given}}


def on_config(bad: Any, *, without: tuple[str, ...] = ()) -> dict[str, Attempt]:
    """Each method that takes a config, given a bad one."""
    attempts: dict[str, Attempt] = {
        "get_tuple": lambda calls: calls.get_tuple(bad),
        "list": lambda calls: calls.list(bad),
        "put": lambda calls: calls.put(bad, WHOLE, {}, NEW),
        "put_writes": lambda calls: calls.put_writes(bad, [("x", 1)], TASK),
        "delta_history": lambda calls: calls.delta_history(bad, ["x"]),
    }
    return {name: each for name, each in attempts.items() if name not in without}


def put(**changed: Any) -> Attempt:
    """A put of a checkpoint of which parts are others."""
    whole: Any = {**WHOLE, **changed}
    return lambda calls: calls.put(conf(), whole, {}, NEW)


def channel(name: Any, version: Any = "1") -> Attempt:
    """A put of a checkpoint with one channel."""
    return put(channel_values={name: 1}, channel_versions={name: version})


def writes(bad: Any, task_id: Any = TASK, path: Any = "") -> Attempt:
    """A put of these writes."""
    return lambda calls: calls.put_writes(AT, bad, task_id, path)


def without(key: str) -> Any:
    """A checkpoint that lacks a key."""
    return {k: v for k, v in WHOLE.items() if k != key}


def nested(depth: int) -> list[Any]:
    """A list in a list in a list …"""
    made: list[Any] = []
    for _ in range(depth):
        made = [made]
    return made


# ---- ids ----------------------------------------------------------------------------------------

LONG, NUL, SURROGATE = "x" * 10_000_000, "a\0b", "a\ud800b"
BAD_TEXTS: dict[str, tuple[Any, type[RouterError], str]] = {
    "10 MB": (LONG, LimitExceeded, "has 10000000 bytes"),
    "1025 bytes of UTF-8": ("é" * 512 + "x", LimitExceeded, "has 1025 bytes"),
    "a NUL": (NUL, InvalidArgument, "contains a NUL"),
    "a lone surrogate": (SURROGATE, InvalidArgument, "contains a lone surrogate"),
    "bytes": (b"t", InvalidArgument, "must be text, not bytes"),
    "an object": (object(), InvalidArgument, "must be text, not object"),
    "a bool": (True, InvalidArgument, "must be text, not bool"),
    "a list": (["t"], InvalidArgument, "must be text, not list"),
}


def places_of_ids(bad: Any) -> dict[str, tuple[str, Attempt]]:
    """Where an id may stand outside of a config, what it is called there, and such a call."""
    return {
        "thread to delete": ("thread_id", lambda c: c.delete_thread(bad)),
        "source": ("source_thread_id", lambda c: c.copy_thread(bad, "u")),
        "target": ("target_thread_id", lambda c: c.copy_thread("t", bad)),
        "run": ("run_ids", lambda c: c.delete_for_runs(["r", bad])),
        "thread to prune": ("thread_ids", lambda c: c.prune(["t", bad])),
        "before": ("before", lambda c: c.list(None, before=config(checkpoint_id=bad))),
        "task": ("task_id", writes([("x", 1)], bad)),
        "channel of a write": ("channel", writes([("fine", 1), (bad, 1)])),
        "channel of a history": ("channel", lambda c: c.delta_history(AT, [bad])),
        "id of a checkpoint": ("checkpoint id", put(id=bad)),
    }


def places_of_keys(bad: Any) -> dict[str, tuple[str, Attempt]]:
    """The same for ids that are keys of a dict."""
    return {
        "channel": ("channel", channel(bad)),
        "channel without a version": (
            "channel",
            put(channel_values={bad: 1}, channel_versions={}),
        ),
        "key of metadata": ("metadata key", lambda c: c.put(conf(), WHOLE, {bad: 1}, NEW)),
        "filter": ("filter key", lambda c: c.list(None, filter={bad: 1})),
    }


def cases_of_ids() -> Iterator[tuple[str, Case]]:
    for what, (bad, error, says) in BAD_TEXTS.items():
        for key in ("thread_id", "checkpoint_ns", "checkpoint_id"):
            given = {"checkpoint_id": cid(1), key: bad}
            for method, attempt in on_config(config(**given)).items():
                yield f"{what} as {key} of {method}", (attempt, error, f"{key} {says}")
        places = places_of_ids(bad) | ({} if isinstance(bad, list) else places_of_keys(bad))
        for where, (field, attempt) in places.items():
            yield f"{what} as {where}", (attempt, error, f"{field}.* {says}")


EMPTY: dict[str, Case] = {
    **{
        f"an empty thread_id of {method}": (attempt, InvalidArgument, "thread_id is empty")
        for method, attempt in on_config(config(thread_id="", checkpoint_id=cid(1))).items()
    },
    **{
        f"no thread_id of {method}": (attempt, MissingId, "no thread_id")
        for method, attempt in on_config(config(thread_id=None, checkpoint_id=cid(1))).items()
    },
    "an empty thread to delete": (
        lambda c: c.delete_thread(""), InvalidArgument, "thread_id is empty"),
    "no thread to delete": (lambda c: c.delete_thread(ANY), WrongType, "thread_id must be text"),
    "no thread to copy": (lambda c: c.copy_thread(ANY, "u"), WrongType, "source_thread_id"),
    "a copy onto itself": (lambda c: c.copy_thread("t", "t"), InvalidArgument, "into itself"),
    "an empty id of a checkpoint": (put(id=""), InvalidArgument, "checkpoint id is empty"),
    "no id of a checkpoint": (put(id=None), InvalidArgument, "checkpoint id must be text"),
    "writes of no checkpoint": (
        lambda c: c.put_writes(conf(), [("x", 1)], TASK), MissingId, "checkpoint_id"),
    "no task": (writes([("x", 1)], None), InvalidArgument, "task_id must be text, not NoneType"),
}  # fmt: skip

# ---- types --------------------------------------------------------------------------------------

BAD_CONFIGS: dict[str, tuple[Any, str]] = {
    "a text": ("t", "config must be a dict, not str"),
    "a list": ([1], "config must be a dict, not list"),
    "a number": (3, "config must be a dict, not int"),
    "a text as configurable": (
        {"configurable": "t"}, r"config\['configurable'\] must be a dict, not str"),
    "a list as configurable": (
        {"configurable": ["thread_id"]}, r"config\['configurable'\] must be a dict, not list"),
}  # fmt: skip


def before(bad: Any) -> Attempt:
    """A listing before what a config names."""
    return lambda calls: calls.list(None, before=bad)


def cases_of_configs() -> Iterator[tuple[str, Case]]:
    for what, (bad, says) in BAD_CONFIGS.items():
        for method, attempt in on_config(bad).items():
            yield f"{what} as config of {method}", (attempt, WrongType, says)
        yield f"{what} as before", (before(bad), WrongType, says)
    for name, nothing in (("None", None), ("{}", {}), ("no configurable", {"configurable": None})):
        for method, attempt in on_config(nothing, without=("list",)).items():
            yield f"{name} as config of {method}", (attempt, MissingId, "no thread_id")


def with_metadata(metadata: Any, at: Any = None) -> Attempt:
    """A put with this metadata."""
    return lambda calls: calls.put(at or conf(), WHOLE, metadata, NEW)


def with_versions(new_versions: Any) -> Attempt:
    """A put with these new versions."""
    return lambda calls: calls.put(conf(), WHOLE, {}, new_versions)


LOOP: list[Any] = []
LOOP.append(LOOP)

TYPES: dict[str, Case] = {
    "no checkpoint": (lambda c: c.put(conf(), ANY, {}, NEW), WrongType, "checkpoint must be a d"),
    "a checkpoint without id": (
        lambda c: c.put(conf(), without("id"), {}, NEW), MissingId, "has no 'id'"),
    "a checkpoint without values": (
        lambda c: c.put(conf(), without("channel_values"), {}, NEW), MissingId, "channel_values"),
    "a checkpoint without versions": (
        lambda c: c.put(conf(), without("channel_versions"), {}, {}), MissingId, "channel_version"),
    "values in a list": (put(channel_values=[1]), WrongType, "channel_values must be a dict"),
    "versions in a text": (put(channel_versions="x"), WrongType, "channel_versions must be a d"),
    "no metadata": (with_metadata(None), WrongType, "metadata must be a dict, not NoneType"),
    "metadata in a text": (with_metadata("m"), WrongType, "metadata must be a dict, not str"),
    "metadata in a list": (with_metadata([1]), WrongType, "metadata must be a dict, not list"),
    "metadata of the config in a text": (
        with_metadata({}, {**conf(), "metadata": "m"}), WrongType, r"config\['metadata'\] must"),
    "no new versions": (with_versions(None), WrongType, "new_versions must be a dict"),
    "new versions in a list": (with_versions(["x"]), WrongType, "new_versions must be a dict"),
    "new versions in a text": (with_versions("x"), WrongType, "new_versions must be a dict"),
    "no writes": (writes(None), WrongType, "writes must be a list"),
    "writes in a text": (writes("ab"), WrongType, "writes must be a list"),
    "writes in a dict": (writes({"x": 1}), WrongType, "writes must be a list"),
    "a write of one": (writes([("x", 1), ("y",)]), WrongType, "write 1 must be a pair"),
    "a write of three": (writes([("x", 1, 2)]), WrongType, "write 0 must be a pair"),
    "a write that is a text": (writes(["xy"]), WrongType, "write 0 must be a pair"),
    "a path that is none": (writes([("x", 1)], TASK, None), WrongType, "task_path must be text"),
    "a path of bytes": (writes([("x", 1)], TASK, b"p"), WrongType, "task_path must be text"),
    "a path with a lone surrogate": (
        writes([("x", 1)], TASK, SURROGATE), InvalidArgument, "task_path.* lone surrogate"),
    "channels in a text": (lambda c: c.delta_history(AT, "xy"), WrongType, "channels must be a l"),
    "a number as channels": (lambda c: c.delta_history(AT, 5), WrongType, "channels must be a l"),  # type: ignore[arg-type]
    "a filter in a list": (lambda c: c.list(None, filter=[1]), WrongType, "filter must be a dict"),
    "a filter on an object": (
        lambda c: c.list(None, filter={"k": object()}), InvalidArgument, "filter 'k' asks for a o"),
    "a filter on a lone surrogate": (
        lambda c: c.list(None, filter={"k": SURROGATE}), InvalidArgument, "filter 'k'"),
    "a filter without an end": (
        lambda c: c.list(None, filter={"k": LOOP}), InvalidArgument, "filter 'k'"),
    "runs in a text": (lambda c: c.delete_for_runs("r"), WrongType, "run_ids must be a list"),
    "no runs": (lambda c: c.delete_for_runs(ANY), WrongType, "run_ids must be a list"),
    "threads in a text": (lambda c: c.prune("t"), WrongType, "thread_ids must be a list"),
    "a strategy that is none": (
        lambda c: c.prune(["t"], strategy=ANY), InvalidArgument, "strategy None is unknown"),
    "a strategy of 10 MB": (
        lambda c: c.prune(["t"], strategy=LONG), InvalidArgument, "strategy '.{0,100} is unknown"),
}  # fmt: skip

# ---- numbers and sizes --------------------------------------------------------------------------

LARGE = b"x" * (limits.BLOB_BYTES_MAX + 1)

NUMBERS: dict[str, Case] = {
    "a negative limit": (lambda c: c.list(conf(), limit=-1), InvalidArgument, "limit is -1"),
    "a very negative limit": (lambda c: c.list(None, limit=-(2**70)), InvalidArgument, "limit is"),
    "a limit in a text": (lambda c: c.list(conf(), limit="3"), WrongType, "limit must be a number"),
    "a limit with a fraction": (
        lambda c: c.list(conf(), limit=1.5), WrongType, "limit must be a number"),
    "a limit that is a bool": (
        lambda c: c.list(conf(), limit=True), WrongType, "limit must be a number"),
    "a value over the limit": (
        lambda c: c.put(
            conf(),
            body(cid(2), {"fine": 1, "doc": LARGE}),
            {},
            body(cid(2), {"fine": 1, "doc": LARGE})["channel_versions"],
        ),
        LimitExceeded,
        "channel 'doc' has .* bytes",
    ),
    "a write over the limit": (
        writes([("fine", 1), ("doc", LARGE)]), LimitExceeded, "write 1 to channel 'doc'"),
    "too many writes": (
        writes([("x", 1)] * (limits.WRITE_ROWS_MAX + 1)), LimitExceeded, "10001 writes"),
    "writes that no message can carry": (
        writes([(f"{n:01000}", b"y" * 2000) for n in range(limits.WRITE_ROWS_MAX)]),
        LimitExceeded,
        "the limit",
    ),
    "too many channels": (
        put(channel_values={}, channel_versions={f"c{n}": "1" for n in range(10_001)}),
        LimitExceeded,
        "manifest has 10001",
    ),
    "a large body": (
        put(versions_seen={"n": {"x": "v" * 3_000_000}}), LimitExceeded, "checkpoint.body has"),
    "large metadata": (with_metadata({"k": "m" * 2_000_000}), LimitExceeded, "metadata has"),
    "metadata without an end": (with_metadata({"k": LOOP}), SerialisationError, "key 'k'"),
    "metadata as deep as the sea": (
        with_metadata({"k": nested(5000)}), SerialisationError, "key 'k'"),
    "a number of metadata that is too long": (
        with_metadata({"k": 10**5000}), SerialisationError, "key 'k'"),
    "a value as deep as the sea": (
        put(channel_values={"x": nested(5000)}), SerialisationError, "channel 'x'"),
    "a long path": (writes([("x", 1)], TASK, LONG), LimitExceeded, "task_path has 10000000 bytes"),
    "a long version": (channel("x", "v" * 10_000_000), InvalidArgument, "version 'v{1,100}"),
    "a version with a lone surrogate": (
        channel("x", SURROGATE), InvalidArgument, "version of channel 'x' contains a lone"),
    "a version beyond 64 bits": (channel("x", 2**63), InvalidArgument, "version 9223372036854775"),
    "a version that is none": (channel("x", None), InvalidArgument, "version None"),
    "a version that is a bool": (channel("x", True), InvalidArgument, "version True"),
}  # fmt: skip

CASES: dict[str, Case] = {
    **dict(cases_of_ids()),
    **EMPTY,
    **dict(cases_of_configs()),
    **TYPES,
    **NUMBERS,
}


async def refused(calls: Calls, case: str) -> None:
    """The case gets its error, and a short one."""
    attempt, error, says = CASES[case]
    with pytest.raises(error, match=says) as caught:
        await attempt(calls)
    assert issubclass(type(caught.value), RouterError)
    assert len(str(caught.value)) < 1000


async def untouched(calls: Calls) -> None:
    """What `chain` stored is what there is, and the saver works."""
    (only,) = await calls.list(None)
    assert places([only]) == [("t", "", cid(1))]
    assert (only.checkpoint["channel_values"], only.pending_writes) == ({"n": 1}, [])
    assert await calls.read(conf()) == only


GROUPS = ("10 MB", "1025", "a NUL", "a lone", "bytes", "an object", "a bool", "a list")


@pytest.mark.parametrize("case", [c for c in CASES if not c.startswith(GROUPS)])
async def test_a_bad_argument_gets_an_error_that_names_it_and_nothing_is_written(
    calls: Calls, case: str
) -> None:
    await chain(calls, [1])
    await refused(calls, case)
    await untouched(calls)
    await chain(calls, [3], parent=cid(1))
    assert ids(await calls.list(conf())) == [cid(3), cid(1)]


@pytest.mark.parametrize("group", GROUPS)
async def test_bad_text_gets_an_error_that_names_it_wherever_an_id_may_stand(
    calls: Calls, group: str
) -> None:
    await chain(calls, [1])
    cases = [case for case in CASES if case.startswith(group)]
    assert len(cases) > 20
    for case in cases:
        await refused(calls, case)
    await untouched(calls)
    await chain(calls, [3], parent=cid(1))
    assert ids(await calls.list(conf())) == [cid(3), cid(1)]


async def test_errors_are_also_what_other_savers_would_raise(calls: Calls) -> None:
    """Code that was written for them catches these."""
    for case, kind in (
        ("None as config of put", KeyError),
        ("a checkpoint without id", KeyError),
        ("threads in a text", TypeError),
        ("no metadata", TypeError),
        ("a negative limit", ValueError),
        ("metadata without an end", TypeError),
    ):
        with pytest.raises(kind):
            await CASES[case][0](calls)


async def test_unusual_but_right_arguments_are_taken(calls: Calls) -> None:
    thread = uuid.uuid4()
    await calls.put(conf(thread, None), body(cid(1)), {}, {})
    at = conf(str(thread), "", cid(1))
    await calls.put_writes(at, deque([("x", 1)]), TASK)  # as graphs hold them
    await calls.put_writes(at, [["x", 1], ["y", 2]], TASK, "p\0q")  # type: ignore[list-item]  # JSON's pairs
    found = await calls.read(at)
    assert found.pending_writes == [(TASK, "x", 1), (TASK, "y", 2)]
    await calls.prune((str(thread),))
    assert len(await calls.list(None, filter={}, before={}, limit=2**70)) == 1
    await calls.delete_thread(thread)  # type: ignore[arg-type]
    assert await calls.list({}) == []


# ---- tokens -------------------------------------------------------------------------------------


@pytest.mark.parametrize("bears", ["nothing", "a number", "None", "a run of another saver"])
async def test_a_carrier_made_by_hand_is_plain_text(
    calls: Calls, make_saver: MakeSaver, bears: str
) -> None:
    await chain(calls, [1])
    made: Any = CarriedThreadId("t")
    if bears == "a run of another saver":
        other = Calls(make_saver(), calls.flavour)
        made.run = (await other.read(conf())).config["configurable"]["thread_id"].run
    elif bears != "nothing":
        made.run = {"a number": 5, "None": None}[bears]
    found = await calls.read(conf(made))
    assert found.checkpoint["id"] == cid(1)
    assert ids(await calls.list(conf(made))) == [cid(1)]
    await calls.put(conf(made, "", cid(1)), body(cid(2)), {}, {})
    assert ids(await calls.list(conf())) == [cid(2), cid(1)]


async def test_a_token_of_another_thread_is_refused(calls: Calls) -> None:
    await chain(calls, [1])
    await chain(calls, [1], thread="other")
    elsewhere = (await calls.read(conf("other"))).config["configurable"]["thread_id"]
    made = CarriedThreadId("t")
    made.run = elsewhere.run
    at = conf(made, "", cid(1))
    for attempt in (
        lambda: calls.get_tuple(at),
        lambda: calls.put(at, body(cid(2)), {}, {}),
        lambda: calls.put_writes(at, [("x", 1)], TASK),
    ):
        with pytest.raises(TokenInvalid, match="another thread than 't'"):
            await attempt()
    for thread in ("t", "other"):
        assert ids(await calls.list(conf(thread))) == [cid(1)]
        await chain(calls, [2], parent=cid(1), thread=thread)


async def test_a_forged_token_is_refused_and_does_not_stand_in_the_way(calls: Calls) -> None:
    await chain(calls, [1])
    forged = (await calls.read(conf())).config
    run = forged["configurable"]["thread_id"].run
    run.token = bytes([run.token[0] ^ 1]) + run.token[1:]
    for attempt in (
        lambda: calls.put(forged, body(cid(2)), {}, {}),
        lambda: calls.put_writes(forged, [("x", 1)], TASK),
        lambda: calls.get_tuple(forged),
    ):
        with pytest.raises(TokenInvalid, match="was not made by this system"):
            await attempt()
    await untouched(calls)
    await chain(calls, [2], parent=cid(1))
    assert ids(await calls.list(conf())) == [cid(2), cid(1)]


@pytest.mark.parametrize("first", ["put", "read"])
async def test_after_a_storage_was_lost_a_saver_is_told_once_and_goes_on(
    flavour: Flavour, tenant: str, first: str
) -> None:
    """A storage in memory ends with its router, and with it all tokens."""
    from checkpoint_router import RouterSaver

    with running_router("memory:") as router, RouterSaver(router.target, tenant=tenant) as saver:
        calls = Calls(saver, flavour)
        await chain(calls, [1, 2])
        router.kill()
        router.start()
        with pytest.raises((TokenInvalid, Stale)):
            await (chain(calls, [3]) if first == "put" else calls.get_tuple(conf()))
        assert await calls.get_tuple(conf()) is None
        await chain(calls, [4, 5])
        assert ids(await calls.list(conf())) == [cid(5), cid(4)]
        await saver.aclose()


# ---- chance -------------------------------------------------------------------------------------

TEXTS = st.one_of(
    st.text(max_size=6),
    st.sampled_from(["t", "", "a\0", "\ud800", "x" * 2000, "😀" * 300, "a|b:c", "{t}"]),
    st.characters(categories=("Cs", "Cc", "Co")).map(lambda c: f"t{c}"),
)
VALUES = st.one_of(
    TEXTS,
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.binary(max_size=4),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(TEXTS, st.integers(), max_size=2),
    st.builds(object),
)
CONFIGS = st.one_of(
    VALUES,
    st.fixed_dictionaries(
        {},
        optional={
            "configurable": VALUES
            | st.fixed_dictionaries(
                {},
                optional={
                    "thread_id": VALUES,
                    "checkpoint_ns": VALUES,
                    "checkpoint_id": VALUES,
                    "checkpoint_map": VALUES,
                    "user_id": VALUES,
                },
            ),
            "metadata": VALUES,
            "run_id": VALUES,
        },
    ),
)


@settings(
    max_examples=120,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(bad=CONFIGS, value=VALUES, key=TEXTS)
def test_a_config_of_chance_is_taken_or_named(calls: Calls, bad: Any, value: Any, key: str) -> None:
    """Whatever it is: the call works, or raises one of our errors and nothing else."""
    attempts: tuple[Callable[[], Awaitable[object]], ...] = (
        lambda: calls.put(bad, WHOLE, {key: value}, NEW),
        lambda: calls.put_writes(bad, [(key, 1)], TASK, key),
        lambda: calls.get_tuple(bad),
        lambda: calls.list(bad, filter={key: value}, before=bad, limit=3),
        lambda: calls.delta_history(bad, [key]),
        lambda: calls.delete_thread(value),
        lambda: calls.prune([value]),
    )

    async def example() -> None:
        for attempt in attempts:
            with suppress(RouterError):
                await attempt()
        whole: Any = body(cid(9), {"x": 1})
        await calls.put(conf("sound"), whole, {}, whole["channel_versions"])
        found = await calls.read(conf("sound"))
        assert found.checkpoint["channel_values"] == {"x": 1}

    asyncio.run(example())
