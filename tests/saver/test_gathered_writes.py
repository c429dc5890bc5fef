"""Write calls of a run that come at once share an event; each is answered, and shown, by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Annotated, Any, TypedDict, cast

import pytest
from langgraph.channels.delta import DeltaChannel
from langgraph.graph import START, StateGraph
from langgraph.types import Command, Send, interrupt

from checkpoint_router.client.calls import Prepared
from checkpoint_router.client.links import Links
from checkpoint_router.client.writing import Writing
from checkpoint_router.core import errors, limits

from .calls import Calls
from .hosts import extend
from .likeness import THREAD, Alike, Compile, story
from .proxy import Proxy
from .shapes import body, chain, cid, conf

pytestmark = pytest.mark.router_only

NAMES = [f"{number:032x}" for number in range(20)]
VALUE = "v" * 5000
"""A row of its own."""


def inside(config: dict[str, Any], runtime: object) -> dict[str, Any]:
    """The config of a call that a graph's run makes."""
    return {"configurable": {**config["configurable"], "__pregel_runtime": runtime}}


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the calls that savers make."""
    made: list[str] = []
    call, acall = Links.call, Links.acall

    def note(self: Links, name: str, *rest: Any, **named: Any) -> Any:
        made.append(name)
        return call(self, name, *rest, **named)

    def anote(self: Links, name: str, *rest: Any, **named: Any) -> Any:
        made.append(name)
        return acall(self, name, *rest, **named)

    monkeypatch.setattr(Links, "call", note)
    monkeypatch.setattr(Links, "acall", anote)
    return made


async def a_run(calls: Calls, reader: Calls) -> dict[str, Any]:
    """A run that has read, and stored its first checkpoint: the config of its writes there."""
    runtime = SimpleNamespace(control=object())
    await calls.get_tuple(inside(conf(), runtime))
    stored = await calls.put(inside(conf(), runtime), body(cid(1)), {"source": "input"}, {})
    assert (await reader.read(conf())).checkpoint["id"] == cid(1)
    return inside(stored, runtime)


async def at_once(calls: Calls, config: dict[str, Any], names: Sequence[str]) -> list[Any]:
    """What each call gives, all of them under way together."""
    made = (calls.put_writes(config, [("x", name), ("y", VALUE + name)], name) for name in names)
    return await asyncio.gather(*made, return_exceptions=True)


async def written(reader: Calls) -> list[Any]:
    """The pending writes of the newest checkpoint."""
    return list((await reader.read(conf())).pending_writes or ())


async def a_deadline(calls: Calls, proxy: Proxy) -> None:
    """As much time as a call of this saver has."""
    proxy.hold_answers()
    with pytest.raises(errors.DeadlineExceeded):
        await calls.get_tuple(conf())


def expected(names: Sequence[str]) -> list[tuple[str, str, str]]:
    return [
        (name, channel, value)
        for name in sorted(names)
        for channel, value in (("x", name), ("y", VALUE + name))
    ]


async def test_calls_at_once_are_few_events_and_all_of_them_are_there(
    calls: Calls, another: Callable[..., Calls], sent: list[str]
) -> None:
    config = await a_run(calls, another())
    sent.clear()
    assert await at_once(calls, config, NAMES) == [None] * len(NAMES)
    assert 1 < sent.count("put_writes") < len(NAMES)
    for reader in (calls, another()):
        assert await written(reader) == expected(NAMES)
    await calls.put_writes(config, [("z", 1)], "f" * 32)
    assert len(await written(another())) == 2 * len(NAMES) + 1


@pytest.mark.parametrize("flavour", ["async"])  # a worker that waits cannot be cancelled
async def test_a_caller_that_is_cancelled_takes_nobody_with_it(
    another: Callable[..., Calls], router: Any
) -> None:
    with Proxy(router.target) as proxy:
        calls, reader = another(target=proxy.target), another()
        config = await a_run(calls, reader)
        proxy.hold_answers()
        first, *others = (
            asyncio.ensure_future(calls.put_writes(config, [("x", name)], name))
            for name in NAMES[:5]
        )
        while len(await written(reader)) < 1:
            assert not first.done()
        # The first has made its call, the others wait for it, and then the third makes theirs.
        others[0].cancel()
        await asyncio.sleep(0)
        first.cancel()
        while len(await written(reader)) < 5:
            assert not any(each.done() for each in others[1:])
        others[1].cancel()  # It has made the call of all that waited.
        for _ in range(10):
            await asyncio.sleep(0)
        assert not any(each.done() for each in others[2:]), "nobody has told them"
        proxy.pass_all()
        await asyncio.gather(*others[2:])
        for gone in (first, *others[:2]):
            with pytest.raises(asyncio.CancelledError):
                await gone
    assert await written(another()) == [(name, "x", name) for name in NAMES[:5]]


async def test_a_batch_that_a_broken_connection_holds_up_is_stored_once(
    another: Callable[..., Calls], router: Any
) -> None:
    with Proxy(router.target) as proxy:
        calls = another(target=proxy.target)
        config = await a_run(calls, another())
        proxy.cut_after(3000)  # in the middle of the second call
        assert await at_once(calls, config, NAMES) == [None] * len(NAMES)
        assert not proxy.is_to_cut
    assert await written(another()) == expected(NAMES)


async def test_without_an_answer_all_of_them_end_at_the_deadline(
    another: Callable[..., Calls], router: Any
) -> None:
    with Proxy(router.target) as proxy:
        calls = another(target=proxy.target, timeout_seconds=1.0)
        config = await a_run(calls, another())
        proxy.hold_answers()
        ended = await at_once(calls, config, NAMES[:4])
    assert [type(each) for each in ended] == [errors.DeadlineExceeded] * 4


async def test_of_a_deleted_thread_each_call_is_told(
    calls: Calls, another: Callable[..., Calls]
) -> None:
    config = await a_run(calls, another())
    await another().call("delete_thread", "t")
    ended = await at_once(calls, config, NAMES[:4])
    assert [type(each) for each in ended] == [errors.ThreadDeleted] * 4


async def test_a_value_that_fills_a_batch_delays_none_behind_it(
    calls: Calls, another: Callable[..., Calls]
) -> None:
    config = await a_run(calls, another())
    large = "l" * (limits.WRITE_SET_BYTES_MAX + 1)
    values = [large if number % 3 == 1 else "small" for number in range(9)]
    await asyncio.gather(
        *(
            calls.put_writes(config, [("x", value)], name)
            for name, value in zip(NAMES, values, strict=False)
        )
    )
    assert await written(another()) == [
        (name, "x", value) for name, value in zip(NAMES, values, strict=False)
    ]


async def test_a_value_that_is_pruned_on_its_way_is_sent_again_beside_the_others(
    calls: Calls, another: Callable[..., Calls], sent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    large = "l" * (limits.INLINE_BLOBS_BYTES_MAX + 1)  # It goes ahead of the event that names it.
    config = await a_run(calls, another())
    await calls.put_writes(config, [("x", large)], "f" * 32)
    stored = await calls.put(config, body(cid(2)), {"source": "loop"}, {})
    pruning, ahead = another().saver, Writing._ahead

    def overtaken(self: Writing, *given: Any) -> Any:
        left = yield from ahead(self, *given)
        if "prune" not in sent:  # It takes the same value away, with the write that named it.
            pruning.prune(["t"])
        return left

    monkeypatch.setattr(Writing, "_ahead", overtaken)
    sent.clear()
    values = [large if number == 2 else VALUE for number in range(6)]
    config["configurable"] |= stored["configurable"]
    await asyncio.gather(
        *(
            calls.put_writes(config, [("x", value)], name)
            for name, value in zip(NAMES, values, strict=False)
        )
    )
    assert sent.count("put_blobs") == 2
    assert await written(another()) == [
        (name, "x", value) for name, value in zip(NAMES, values, strict=False)
    ]


async def test_a_value_that_a_task_wrote_travels_once_unless_it_is_gone(
    calls: Calls, another: Callable[..., Calls], sent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def noted(self: Prepared, *given: Any) -> bytes:
        sizes.append(len(self.request))
        return encoded(self, *given)

    encoded = Prepared.encoded
    config = await a_run(calls, another())
    for number, puts in ((1, 1), (2, 2)):
        values = {"doc": f"{number}" * 50_000}
        await calls.put_writes(config, list(values.items()), NAMES[number])
        if puts == 2:
            # The checkpoint of the write is not the newest any more: both go, and the value.
            newer = await calls.put(config, body(cid(12)), {}, {})
            config["configurable"] |= newer["configurable"]
            await another().call("prune", ["t"])
        sent.clear()
        checkpoint = body(cid(10 * number), values)
        with monkeypatch.context() as patch:
            patch.setattr(Prepared, "encoded", noted)
            stored = await calls.put(config, checkpoint, {}, checkpoint["channel_versions"])
        assert sent == ["put"] * puts
        assert (max(sizes) > 50_000) is (puts == 2)
        config["configurable"] |= stored["configurable"]
        found = await another().read(conf())
        assert found.checkpoint["channel_values"] == values


class Changes(TypedDict, total=False):
    """A list that is stored as its changes, with a snapshot now and then."""

    changes: Annotated[list[str], DeltaChannel(extend, snapshot_frequency=5)]


async def test_a_delta_channel_has_what_parallel_tasks_wrote(alike: Alike, sent: list[str]) -> None:
    tasks = 12

    def work(task: dict[str, Any]) -> Changes:
        answer = interrupt("?") if task["number"] == 3 else VALUE
        return {"changes": [f"{task['turn']} {task['number']} {answer}"]}

    async def scenario(compiled: Compile) -> list[Any]:
        builder = StateGraph(Changes)
        builder.add_node("work", cast("Any", work))  # what it is sent is no state
        builder.add_node("end", lambda state: {"changes": ["end"]})
        builder.add_edge("work", "end")
        builder.add_conditional_edges(
            START,
            lambda state: [
                Send("work", {"turn": len(state["changes"]), "number": number})
                for number in range(tasks)
            ],
            ["work"],
        )
        graph = compiled(builder)
        seen: list[Any] = []
        for turn in ("one", "two", "three"):
            await graph.invoke({"changes": [turn]}, THREAD)
            seen.append((await graph.get_state(THREAD)).next)
            seen.append(await graph.invoke(Command(resume="yes"), THREAD))
        return [*seen, *await story(graph)]

    found = await alike(scenario)
    assert len(found[5]["changes"]) == 3 * (tasks + 2)
    assert 0 < sent.count("put_writes") < 3 * tasks


@pytest.mark.parametrize("flavour", ["async"])  # there are not so many workers
async def test_small_values_fill_a_batch_too(
    calls: Calls, another: Callable[..., Calls], sent: list[str]
) -> None:
    config = await a_run(calls, another())
    sent.clear()
    names = [f"{number:032x}" for number in range(200)]
    value = "v" * 2000  # It stands in the row itself.
    await asyncio.gather(*(calls.put_writes(config, [("x", value)], name) for name in names))
    assert sent.count("put_writes") == 1 + -(-199 * len(value) // limits.WRITE_SET_BYTES_MAX)
    assert await written(another()) == [(name, "x", value) for name in names]


async def test_outside_a_run_each_call_is_an_event(calls: Calls, sent: list[str]) -> None:
    await chain(calls, [1])
    sent.clear()
    await asyncio.gather(
        *(calls.put_writes(conf(checkpoint_id=cid(1)), [("x", 1)], name) for name in NAMES)
    )
    assert sent.count("put_writes") == len(NAMES)


@pytest.mark.parametrize("flavour", ["async"])
async def test_a_call_that_is_never_awaited_or_cancelled_at_once_holds_up_nobody(
    calls: Calls, another: Callable[..., Calls]
) -> None:
    config = await a_run(calls, another())
    unused = calls.saver.aput_writes(config, [("x", "unused")], NAMES[0])  # type: ignore[arg-type]
    gone, *others = (
        asyncio.ensure_future(calls.saver.aput_writes(config, [("x", name)], name))  # type: ignore[arg-type]
        for name in NAMES[1:5]
    )
    gone.cancel()
    ended = await asyncio.gather(gone, *others, return_exceptions=True)  # which keeps its traceback
    assert isinstance(ended[0], asyncio.CancelledError)
    assert ended[1:] == [None] * 3
    unused.close()
    assert [task for task, _, _ in await written(another())] == NAMES[2:5]


@pytest.mark.parametrize("flavour", ["async"])
async def test_the_time_of_a_call_begins_when_it_is_awaited(
    another: Callable[..., Calls], router: Any
) -> None:
    calls = another(timeout_seconds=1.0)
    config = await a_run(calls, another())
    late = calls.saver.aput_writes(config, [("x", 1)], NAMES[0])  # type: ignore[arg-type]
    with Proxy(router.target) as proxy:  # A graph that bounds what runs at once lets it wait.
        await a_deadline(another(target=proxy.target, timeout_seconds=1.1), proxy)
    await late
    assert await written(another()) == [(NAMES[0], "x", 1)]


@pytest.mark.parametrize("flavour", ["async"])
async def test_who_joins_late_has_its_own_time(another: Callable[..., Calls], router: Any) -> None:
    with Proxy(router.target) as proxy:
        calls = another(target=proxy.target, timeout_seconds=2.0)
        config = await a_run(calls, another())
        proxy.hold_answers()
        early = [
            asyncio.ensure_future(calls.put_writes(config, [("x", name)], name))
            for name in NAMES[:3]
        ]
        await a_deadline(another(target=proxy.target, timeout_seconds=1.0), proxy)
        late = asyncio.ensure_future(calls.put_writes(config, [("x", 1)], NAMES[3]))
        for each in early:
            with pytest.raises(errors.DeadlineExceeded, match=r"within 2 s"):
                await each
        assert not late.done()
        proxy.pass_all()
        await late
    assert await written(another()) == [
        *((name, "x", name) for name in NAMES[:3]),
        (NAMES[3], "x", 1),
    ]
