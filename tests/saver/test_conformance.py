"""The released conformance suite, each of its tests a test of ours, for both halves of the saver.

Its own verdict "FULL" says only that no *detected* capability failed; here all eight must be
detected and passed. It calls async methods alone, so the sync half is run through `SyncHalf`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple
from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.checkpoint.conformance.capabilities import Capability
from langgraph.checkpoint.conformance.spec import (
    test_copy_thread,
    test_delete_for_runs,
    test_delete_thread,
    test_get_tuple,
    test_list,
    test_prune,
    test_put,
    test_put_writes,
)

from .calls import METHODS, Flavour
from .conftest import MakeSaver

pytestmark = pytest.mark.asyncio

ConformanceTest = Callable[[Any], Coroutine[Any, Any, None]]

SUITE: tuple[ConformanceTest, ...] = (
    *test_put.ALL_PUT_TESTS,
    *test_put_writes.ALL_PUT_WRITES_TESTS,
    *test_get_tuple.ALL_GET_TUPLE_TESTS,
    *test_list.ALL_LIST_TESTS,
    *test_delete_thread.ALL_DELETE_THREAD_TESTS,
    *test_delete_for_runs.ALL_DELETE_FOR_RUNS_TESTS,
    *test_copy_thread.ALL_COPY_THREAD_TESTS,
    *test_prune.ALL_PRUNE_TESTS,
)


class SyncHalf(BaseCheckpointSaver[Any]):
    """Answers each async call with the sync method of the saver it was given."""

    def __init__(self, inner: BaseCheckpointSaver[Any]) -> None:
        super().__init__(serde=inner.serde)
        self.inner = inner

    def get_next_version(self, current: Any, channel: None) -> Any:
        return self.inner.get_next_version(current, channel)

    async def aget_tuple(self, config: Any) -> CheckpointTuple | None:
        return await asyncio.to_thread(self.inner.get_tuple, config)

    async def alist(self, config: Any, **kwargs: Any) -> AsyncIterator[CheckpointTuple]:
        for found in await asyncio.to_thread(lambda: list(self.inner.list(config, **kwargs))):
            yield found

    async def aput(self, *args: Any, **kwargs: Any) -> Any:
        return await asyncio.to_thread(self.inner.put, *args, **kwargs)

    async def aput_writes(self, *args: Any, **kwargs: Any) -> None:
        await asyncio.to_thread(self.inner.put_writes, *args, **kwargs)

    async def adelete_thread(self, thread_id: str) -> None:
        await asyncio.to_thread(self.inner.delete_thread, thread_id)

    async def adelete_for_runs(self, run_ids: Any) -> None:
        await asyncio.to_thread(self.inner.delete_for_runs, run_ids)

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        await asyncio.to_thread(self.inner.copy_thread, source_thread_id, target_thread_id)

    async def aprune(self, thread_ids: Any, *, strategy: str = "keep_latest") -> None:
        await asyncio.to_thread(self.inner.prune, thread_ids, strategy=strategy)


def half_of(saver: BaseCheckpointSaver[Any], flavour: Flavour) -> BaseCheckpointSaver[Any]:
    """The saver as the suite can call it: itself, or its sync half."""
    return saver if flavour == "async" else SyncHalf(saver)


async def test_the_suite_has_the_81_tests_of_its_release() -> None:
    assert len(SUITE) == 81


@pytest.mark.parametrize("conformance_test", SUITE, ids=lambda test: test.__name__)
async def test_a_conformance_test_passes(
    conformance_test: ConformanceTest, saver: BaseCheckpointSaver[Any], flavour: Flavour
) -> None:
    await conformance_test(half_of(saver, flavour))


async def test_all_eight_capabilities_are_detected_and_pass(
    make_saver: MakeSaver, flavour: Flavour
) -> None:
    number = 0

    @checkpointer_test(name=f"router-{flavour}")
    async def registered() -> AsyncGenerator[BaseCheckpointSaver[Any], None]:
        nonlocal number
        number += 1
        # A saver that is not closed here: `make_saver` closes all of a test's savers at its end.
        yield half_of(make_saver(tenant=f"conformance-{flavour}-{number}"), flavour)

    report = await validate(registered)
    seen = {
        name: (each.detected, each.passed, each.failures) for name, each in report.results.items()
    }
    assert seen == {each.value: (True, True, []) for each in Capability}


async def test_both_halves_of_every_method_stand_on_the_class(
    saver: BaseCheckpointSaver[Any],
) -> None:
    for name in (*METHODS, *("a" + method for method in METHODS)):
        ours = getattr(type(saver), name)
        assert ours is not getattr(BaseCheckpointSaver, name), f"{name} is the base class's default"
