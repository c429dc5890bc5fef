"""What savers with caches of any size put and read is byte-equal, whoever answers, on each storage.

Values grow, shrink, are edited, fork, are merged into one log, pruned, deleted; another router
answers; a cache is spoilt. A failure prints the seed that repeats it.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.base import CheckpointTuple
from msgspec import structs

from checkpoint_router import RouterSaver
from checkpoint_router.core import limits
from checkpoint_router.core.records import Typed

from .savers import Routers
from .shard import Backend

SEEDS = {"memory": 12, "sqlite": 12, "redis": 6, "redis-cluster": 1, "cassandra": 3}
"""Sequences for each storage: few where one takes long."""

STEPS = 40
EVICTING = 64 * limits.KIB

Values = dict[str, Any]


def conf(checkpoint_id: str | None = None) -> Any:
    """The thread of all these tests."""
    named: dict[str, str] = {"thread_id": "t", "checkpoint_ns": ""}
    if checkpoint_id is not None:
        named["checkpoint_id"] = checkpoint_id
    return {"configurable": named}


class Story:
    """One sequence of calls by three savers, and what must be there after each."""

    def __init__(self, routers: Routers, seed: int) -> None:
        self.rng = random.Random(seed)
        self.routers = routers
        self.sizes = (limits.CACHE_BYTES_DEFAULT, 0, EVICTING)
        self.savers: list[RouterSaver] = [
            routers.saver("acme", cache_bytes=size)[0] for size in self.sizes
        ]
        self.stored: dict[str, Values] = {}
        self.number = 0
        self.done: set[str] = set()

    @property
    def saver(self) -> RouterSaver:
        """Mostly the one with the usual cache."""
        return self.rng.choices(self.savers, (4, 1, 2))[0]

    async def step(self) -> None:
        """One call, or something that happens between two."""
        doings = {
            self.grow: 12, self.edit: 5, self.fork: 3, self.read_any: 5, self.list_all: 2,
            self.prune: 1, self.delete: 1, self.change: 3, self.spoil: 2,
        }  # fmt: skip
        (do,) = self.rng.choices(list(doings), list(doings.values()))
        self.done.add(do.__name__)
        await do()

    async def grow(self) -> None:
        """The newest checkpoint is gone on from."""
        saver = self.saver
        await self.put(saver, await self.newest(saver), self.grown)

    async def edit(self) -> None:
        """It is gone on from with something else."""
        saver = self.saver
        await self.put(saver, await self.newest(saver), self.edited)

    async def fork(self) -> None:
        """An older checkpoint is gone on from."""
        if self.stored:
            saver, at = self.saver, self.rng.choice(list(self.stored))
            await self.put(saver, await saver.aget_tuple(conf(at)), self.grown)

    async def put(self, saver: RouterSaver, found: CheckpointTuple | None, change: Any) -> None:
        """Stores the checkpoint after `found`."""
        self.number += 1
        before = {} if found is None else dict(found.checkpoint["channel_values"])
        if found is not None:
            assert before == self.stored[found.checkpoint["id"]]
        versions = {} if found is None else dict(found.checkpoint["channel_versions"])
        channel = self.rng.choice(("list", "text", "bytes"))
        values = {**before, channel: change(channel, before.get(channel))}
        new: Any = {channel: saver.get_next_version(versions.get(channel), None)}
        id = f"{self.number:08d}"
        checkpoint: Any = {
            "v": 4, "id": id, "ts": "", "versions_seen": {},
            "channel_values": values, "channel_versions": {**versions, **new},
        }  # fmt: skip
        await saver.aput(conf() if found is None else found.config, checkpoint, {}, new)
        self.stored[id] = values

    def grown(self, channel: str, value: Any) -> Any:
        """More of the same."""
        size = self.rng.choice((0, 1, 40, 300, 900, 5000, 20_000))
        if channel == "list":
            items = [self.noise(size // 4 + 1) for _ in range(self.rng.choice((1, 2, 17)))]
            return [*(value or ()), *items]
        more = self.noise(size)
        return (value or "") + more.hex() if channel == "text" else (value or b"") + more

    def edited(self, channel: str, value: Any) -> Any:
        """Less, other, or the same."""
        if not value:
            return self.grown(channel, value)
        at = self.rng.randrange(len(value))
        piece = self.noise(9)
        new = {"list": [piece], "text": piece.hex(), "bytes": piece}[channel]
        return self.rng.choice(
            (value[:at], value[at:], value[:at] + new + value[at + 1 :], new + value, value)
        )

    def noise(self, size: int) -> bytes:
        """Bytes that compress, repeat and look alike now and then."""
        return self.rng.randbytes(size) if self.rng.random() < 0.5 else b"\x90" * size

    async def newest(self, saver: RouterSaver) -> CheckpointTuple | None:
        """What is read last is what was put, whichever of the forks it is of."""
        found = await saver.aget_tuple(conf())
        assert (found is None) is (not self.stored)
        if found is not None:
            assert found.checkpoint["channel_values"] == self.stored[found.checkpoint["id"]]
        return found

    async def read_any(self) -> None:
        """Reads by id."""
        if self.stored:
            id = self.rng.choice(list(self.stored))
            found = await self.saver.aget_tuple(conf(id))
            assert found is not None
            assert found.checkpoint["channel_values"] == self.stored[id]

    async def list_all(self) -> None:
        """Reads all."""
        found = {
            each.checkpoint["id"]: each.checkpoint["channel_values"]
            async for each in self.saver.alist(conf())
        }
        assert found == self.stored

    async def prune(self) -> None:
        """Keeps the newest of all."""
        saver = self.saver
        await saver.aprune(["t"])
        left = [each.checkpoint["id"] async for each in saver.alist(conf())]
        assert len(left) <= 1
        self.stored = {id: self.stored[id] for id in left}

    async def delete(self) -> None:
        """Ends the generation; the others come to know by themselves."""
        await self.saver.adelete_thread("t")
        self.stored = {}

    async def change(self) -> None:
        """Another router answers."""
        await self.routers.change()

    async def spoil(self) -> None:
        """Bytes in memory are no longer those that were put there, or are under another name."""
        cache = self.rng.choice(self.savers)._reading.sessions.cache
        for entry in list(cache._entries.values()):
            if self.rng.random() < 0.5:
                entry.value = Typed(entry.value.tag, entry.value.data[:-1] + b"?")
                if entry.named is not None:
                    entry.named = structs.replace(entry.named, value=entry.value)


@pytest.mark.timeout(300)
async def test_any_sequence_of_values_is_read_back_byte_for_byte(
    backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So that a sequence of this length has logs that are merged, and forks that are too deep.
    monkeypatch.setattr(limits, "LOG_SEGMENTS_MAX", 3)
    monkeypatch.setattr(limits, "LOG_DEPTH_MAX", 2)
    done: set[str] = set()
    for seed in range(SEEDS[backend.name]):
        place = tmp_path / str(seed)
        place.mkdir()
        routers = Routers(backend, place)
        await routers.open()
        story = Story(routers, seed)
        try:
            for _ in range(STEPS):
                await story.step()
            await story.list_all()
        except Exception as e:
            e.add_note(f"seed {seed}, checkpoint {story.number}")
            raise
        finally:
            await routers.close()
        done |= story.done
    assert done >= {"grow", "edit", "fork", "prune", "change", "spoil"}
