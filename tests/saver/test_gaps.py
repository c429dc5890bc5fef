"""Calls that were never stored leave gaps in a run for ever; the thread lives with them."""

from typing import Any

from langgraph.checkpoint.base import empty_checkpoint, uuid6

from checkpoint_router import RouterSaver
from checkpoint_router.core import limits
from checkpoint_router.testing import RunningRouter


async def test_a_run_with_many_gaps_can_be_read_and_gone_on_from(
    checkpoint_router: RunningRouter,
) -> None:
    config: Any = {"configurable": {"thread_id": "gaps", "checkpoint_ns": ""}}
    async with RouterSaver(checkpoint_router.target, tenant="gaps") as saver:
        at = config
        for step in range(2 * limits.RANGES_MAX + 10):
            checkpoint = empty_checkpoint()
            checkpoint["id"] = str(uuid6(clock_seq=step))
            at = await saver.aput(at, checkpoint, {"step": step}, {})
            # A call takes its index when it is made; this one is never sent.
            saver.aput_writes(at, [("channel", step)], f"task-{step}").close()
        async with RouterSaver(checkpoint_router.target, tenant="gaps") as other:
            found = await other.aget_tuple(config)
            assert found is not None
            assert found.metadata["step"] == step
            await other.aput_writes(found.config, [("channel", "went on")], "task")
            found = await saver.aget_tuple(config)
            assert found is not None
            assert found.pending_writes == [("task", "channel", "went on")]
