"""Opening, closing, facts and the key: what a router asks of a storage besides data."""

import asyncio

import pytest

from checkpoint_router.core.errors import InvalidArgument, Unavailable, UnknownStorage
from checkpoint_router.core.token import KEY_BYTES
from checkpoint_router.storage.open import SCHEMES, storage_from_url
from checkpoint_router.storage.port import Duplicate, Storage, Stored
from tests import builders as b

from .shard import BACKENDS, Backend, Shard, stored


async def test_the_system_key_is_made_once(shard: Shard) -> None:
    key = await shard.storage.system_key()
    assert len(key) == KEY_BYTES
    assert any(key)
    assert await (await shard.restart()).system_key() == key


async def test_two_systems_have_two_keys(
    backend: Backend, tmp_path_factory: pytest.TempPathFactory
) -> None:
    keys = set()
    for _ in range(2):
        shard = Shard(backend, tmp_path_factory.mktemp("system"))
        await shard.storage.open()
        keys.add(await shard.storage.system_key())
        await shard.storage.close()
    assert len(keys) == 2


async def test_everything_is_there_after_a_restart(shard: Shard) -> None:
    blob = b.new_blob("value")
    appends = [b.append(b.checkpoint_event("s", i, blobs=[blob]), blobs=[blob]) for i in (1, 2, 3)]
    for append in appends:
        await stored(shard.storage, append)
    before = await shard.storage.image(b.THREAD)
    storage = await shard.restart()
    assert await storage.image(b.THREAD) == before
    assert await storage.events(b.THREAD, 1, [a.entry.id for a in appends]) == {
        a.entry.id: a.packed for a in appends
    }
    for append in appends:
        assert await storage.append(append) == Duplicate(append.entry.digest)


async def test_close_ends_what_is_under_way_and_may_be_repeated(shard: Shard) -> None:
    appends = [b.append(b.writes_event("s", i)) for i in range(1, 200)]
    calls = [asyncio.ensure_future(shard.storage.append(a)) for a in appends]
    await asyncio.sleep(0)
    await shard.storage.close()
    assert all(isinstance(answer, Stored) for answer in await asyncio.gather(*calls))
    await shard.storage.close()
    storage = await shard.restart()
    assert len((await storage.image(b.THREAD)).entries) == 199


async def test_a_closed_storage_says_so(shard: Shard, backend: Backend) -> None:
    await shard.storage.close()
    if not backend.survives_its_process:
        return  # what is in memory is open as long as it is there
    with pytest.raises(Unavailable, match="closed"):
        await shard.storage.append(b.append(b.checkpoint_event()))
    with pytest.raises(Unavailable, match="closed"):
        await shard.storage.image(b.THREAD)


async def test_facts_name_the_url_and_the_promise(shard: Shard) -> None:
    facts = await shard.storage.facts()
    assert facts.url == shard.url
    assert facts.promise.endswith(".")
    assert facts.alarms == ()


async def test_a_fresh_storage_is_empty(storage: Storage) -> None:
    image = await storage.image(b.THREAD)
    assert (image.gen, image.entries) == (1, ())
    assert await storage.threads("acme", "", 10) == []
    assert await storage.slot_threads(0, None, 10) == []


def test_every_backend_of_a_scheme_runs_this_suite() -> None:
    modules = {maker.partition(":")[0].rpartition(".")[2] for maker, _ in SCHEMES.values()}
    assert {backend.name.partition("-")[0] for backend in BACKENDS} == modules


@pytest.mark.parametrize("url", ["", "sqlite", "postgres://host/db", "SQLITE:x", ":", "x:y"])
def test_an_unknown_storage_is_refused_with_the_known_ones(url: str) -> None:
    with pytest.raises(UnknownStorage, match=r"memory:.*sqlite:DIRECTORY"):
        storage_from_url(url)


@pytest.mark.parametrize("url", ["memory:x", "sqlite:"])
def test_a_url_that_lacks_or_has_too_much_is_refused(url: str) -> None:
    with pytest.raises(InvalidArgument):
        storage_from_url(url)
