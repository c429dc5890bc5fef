"""Any sequence of verbs has the same answers from every backend as from memory, over restarts.

Memory is the specification. Dots are compared by their n within an actor's life; actors differ.
"""

import asyncio
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from checkpoint_router.core.answers import NewBlob
from checkpoint_router.core.ids import ThreadKey, slot_of
from checkpoint_router.storage.memory import MemoryStorage
from checkpoint_router.storage.port import Erase, Storage, Stored
from tests import builders as b

from .shard import BACKENDS, Backend, Shard

THREADS = [ThreadKey(tenant, name) for tenant in ("a", "b") for name in ("{s}1", "{s}2")]
_TEXT = b"\xdc\x00\x10" + bytes(range(256)) * 12
VALUES = [
    b.new_blob("small"),
    b.new_blob("other"),
    b.new_blob(_TEXT[:1500]),
    b.new_blob(_TEXT[:1500] + b"fork"),
    b.new_blob(_TEXT[:2500]),
    b.new_blob(_TEXT),
]


@dataclass(frozen=True)
class Step:
    """One verb, with numbers that choose its arguments."""

    verb: str
    thread: int
    gen: int
    segment: int
    index: int
    values: tuple[int, ...]
    hint: int

    def blobs(self) -> list[NewBlob]:
        """The chosen values, each believed to continue the hinted one."""
        return [
            NewBlob(hash=VALUES[i].hash, value=VALUES[i].value, continues=VALUES[self.hint].hash)
            for i in self.values
        ]


steps = st.builds(
    Step,
    verb=st.sampled_from(
        ["append"] * 6 + ["append_unsent", "put_blobs", "delete", "erase", "erase", "restart"]
    ),
    thread=st.integers(0, len(THREADS) - 1),
    gen=st.sampled_from([0, 0, 0, 0, -1, 1]),
    segment=st.integers(0, 2),
    index=st.integers(1, 4),
    values=st.lists(st.integers(0, len(VALUES) - 1), max_size=4, unique=True).map(tuple),
    hint=st.integers(0, len(VALUES) - 1),
)


async def do(storage: Storage, step: Step, number: int) -> Any:
    """The answer of the step's verb, as far as two storages can agree on it."""
    thread = THREADS[step.thread]
    gen = max(1, (await storage.image(thread)).gen + step.gen)
    match step.verb:
        case "append" | "append_unsent":
            blobs = step.blobs()
            event = b.checkpoint_event(
                f"s{step.segment}",
                step.index,
                checkpoint_id=f"c{number % 7}",
                blobs=blobs,
                run_id=f"r{step.hint}",
                gen=gen,
            )
            needs = ((b.segment(f"s{step.hint % 3}"), ((1, step.hint % 3),)),)
            answer = await storage.append(
                b.append(
                    event,
                    thread=thread,
                    blobs=blobs if step.verb == "append" else blobs[::2],
                    needs=needs if step.hint % 3 else (),
                )
            )
            return answer.dot.n if isinstance(answer, Stored) else answer
        case "put_blobs":
            return await storage.put_blobs(thread, gen, step.blobs())
        case "delete":
            operation = bytes([step.index] * 16) if step.hint % 2 else b""
            return await storage.delete(thread, gen if step.segment else None, operation)
        case _:
            image = await storage.image(thread)
            erase = Erase(
                thread=thread,
                gen=gen,
                operation=bytes([step.index] * 16),
                events=tuple(e.id for e in image.entries[:: step.segment + 1]),
                blobs=tuple(VALUES[i].hash for i in step.values),
                stored=len(image.entries) - (step.hint == 0),
            )
            return await storage.erase(erase)


async def everything(storage: Storage) -> list[Any]:
    """All that can be read."""
    hashes = [v.hash for v in VALUES]
    seen: list[Any] = []
    for thread in THREADS:
        image = await storage.image(thread)
        ids = [e.id for e in image.entries]
        seen += [
            image,
            await storage.events(thread, image.gen, ids),
            await storage.records(thread, image.gen, ids[::-1], 3000),
            await storage.missing_blobs(thread, image.gen, hashes),
            await storage.blobs(thread, image.gen, hashes, 4000),
            await storage.blob_sizes(thread, image.gen, hashes),
            [await storage.erased(thread, bytes([i] * 16)) for i in range(1, 5)],
        ]
    for tenant in ("a", "b"):
        seen += [
            await storage.threads(tenant, "", 10),
            await storage.newest(tenant, None, 10),
            await storage.newest(tenant, ("c3", "{s}1"), 2),
            sorted(await storage.threads_of_runs(tenant, ["r0", "r3"])),
        ]
    named = {t for _, t in await storage.slot_threads(slot_of("{s}"), None, 10)}
    assert {t for t in THREADS if (await storage.image(t)).entries} <= named
    return seen


async def compare(backend: Backend, sequence: Sequence[Step]) -> None:
    """Runs the sequence on both and compares every answer, and all that can be read at the end."""
    with tempfile.TemporaryDirectory() as directory:
        shard, memory = Shard(backend, Path(directory)), MemoryStorage()
        await memory.open()
        await shard.storage.open()
        try:
            for number, step in enumerate(sequence):
                if step.verb == "restart":
                    await shard.restart()
                    await memory.open()
                    assert await everything(shard.storage) == await everything(memory)
                else:
                    expected = await do(memory, step, number)
                    assert await do(shard.storage, step, number) == expected, step
            assert await everything(shard.storage) == await everything(memory)
            assert (await shard.storage.facts()).alarms == ()
        finally:
            await shard.storage.close()


OTHERS = [x for x in BACKENDS if x.name != "memory"]


SOME = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None
)


@pytest.mark.parametrize(
    "backend", [x for x in OTHERS if x.name != "cassandra"], ids=lambda x: x.name
)
@settings(SOME, max_examples=60)
@given(st.lists(steps, min_size=5, max_size=40))
def test_every_answer_is_that_of_memory(backend: Backend, sequence: list[Step]) -> None:
    asyncio.run(compare(backend, sequence))


@pytest.mark.parametrize(
    "backend", [x for x in OTHERS if x.name == "cassandra"], ids=lambda x: x.name
)
@settings(SOME, max_examples=12, phases=[Phase.generate])
@given(st.lists(steps, min_size=5, max_size=30))
def test_every_answer_of_a_slow_storage_is_that_of_memory(
    backend: Backend, sequence: list[Step]
) -> None:
    # Fewer, and not made smaller when one fails: each takes seconds, and a test has its time.
    asyncio.run(compare(backend, sequence))
