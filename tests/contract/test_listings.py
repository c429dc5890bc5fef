"""Lists over many threads, in their orders, by cursors that survive a restart."""

import random

from checkpoint_router.core.ids import ThreadKey, leaf_of, slot_of
from checkpoint_router.storage.port import Storage
from tests import builders as b

from .shard import Shard, stored


async def put(
    storage: Storage, tenant: str, thread: str, checkpoint_id: str, run_id: str | None = None
) -> None:
    """Stores one checkpoint."""
    event = b.checkpoint_event(
        f"{checkpoint_id} {run_id}", 1, checkpoint_id=checkpoint_id, run_id=run_id
    )
    await stored(storage, b.append(event, thread=ThreadKey(tenant, thread)))


async def test_threads_are_listed_in_text_order_page_by_page(shard: Shard) -> None:
    names = [f"t{i}" for i in range(25)] + ["Z", "é", "😀", "\uffff"]
    random.Random(3).shuffle(names)
    for name in names:
        await put(shard.storage, "acme", name, "c1")
    await put(shard.storage, "other", "t0a", "c1")
    seen: list[str] = []
    while page := await shard.storage.threads("acme", seen[-1] if seen else "", 4):
        assert len(page) <= 4
        seen += page
        await shard.restart()
    assert seen == sorted(names)


async def test_a_thread_that_only_has_blobs_is_not_listed(storage: Storage) -> None:
    await storage.put_blobs(b.THREAD, 1, [b.new_blob("x")])
    assert await storage.threads("acme", "", 10) == []
    await stored(storage, b.append(b.writes_event()))
    assert await storage.threads("acme", "", 10) == ["t1"]


async def test_every_thread_of_a_slot_is_named_by_leaf_then_tenant_then_name(
    shard: Shard,
) -> None:
    same_slot = [ThreadKey(t, f"{{user}}:{i}") for i in range(12) for t in ("a", "b")]
    for thread in same_slot:
        await put(shard.storage, thread.tenant, thread.thread, "c1")
    await put(shard.storage, "a", "elsewhere", "c1")
    slot = slot_of("{user}:0")
    assert slot != slot_of("elsewhere")
    expected = sorted((leaf_of(t.thread), t.tenant, t.thread) for t in same_slot)
    seen: list[tuple[int, str, str]] = []
    while page := await shard.storage.slot_threads(slot, seen[-1] if seen else None, 5):
        seen += [(leaf, t.tenant, t.thread) for leaf, t in page]
        await shard.restart()
    assert seen == expected


async def test_the_newest_checkpoints_of_a_tenant_come_greatest_first(shard: Shard) -> None:
    rows = [(f"c{i:03d}", f"t{i % 4}") for i in range(30)] + [("c010", "t9"), ("c010", "t0")]
    random.Random(5).shuffle(rows)
    for checkpoint_id, thread in rows:
        await put(shard.storage, "acme", thread, checkpoint_id)
    await put(shard.storage, "other", "t1", "c999")
    seen: list[tuple[str, str]] = []
    while page := await shard.storage.newest("acme", seen[-1] if seen else None, 7):
        assert len(page) <= 7
        seen += page
        await shard.restart()
    assert seen == sorted(set(rows), reverse=True)
    assert await shard.storage.newest("acme", ("c001", ""), 9) == [("c000", "t0")]


async def test_a_checkpoint_that_is_stored_more_than_once_is_named_once(storage: Storage) -> None:
    for index, ns in enumerate(["", "sub", "sub|deeper"]):
        event = b.checkpoint_event("s", index + 1, checkpoint_id="c1", ns=ns)
        await stored(storage, b.append(event))
    await stored(storage, b.append(b.checkpoint_event("s", 4, checkpoint_id="c0")))
    assert await storage.newest("acme", None, 2) == [("c1", "t1"), ("c0", "t1")]


async def test_pending_writes_are_no_checkpoints(storage: Storage) -> None:
    await stored(storage, b.append(b.writes_event("s", 1, checkpoint_id="c9")))
    assert await storage.newest("acme", None, 10) == []


async def test_threads_are_found_by_the_runs_that_wrote_them(storage: Storage) -> None:
    await put(storage, "acme", "t1", "c1", run_id="r1")
    await put(storage, "acme", "t1", "c2", run_id="r2")
    await put(storage, "acme", "t2", "c1", run_id="r2")
    await put(storage, "acme", "t3", "c1")
    await put(storage, "other", "t4", "c1", run_id="r1")
    assert await storage.threads_of_runs("acme", ["r1"]) == ["t1"]
    assert sorted(await storage.threads_of_runs("acme", ["r2", "r1"])) == ["t1", "t2"]
    assert await storage.threads_of_runs("acme", ["r3", ""]) == []
    assert await storage.threads_of_runs("acme", []) == []
    assert await storage.threads_of_runs("nobody", ["r1"]) == []
