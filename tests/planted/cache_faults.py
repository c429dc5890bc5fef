"""Faults of the values that savers keep, and of those that are not sent whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from checkpoint_router.client import cache, writing
from checkpoint_router.client.cache import Cache
from checkpoint_router.core import growing
from checkpoint_router.core.answers import Growth
from checkpoint_router.core.errors import InvalidArgument, Unavailable
from checkpoint_router.core.growing import Named
from checkpoint_router.core.records import Typed
from checkpoint_router.engine import rebuilding
from tests.contract.savers import Routers
from tests.contract.shard import BACKENDS
from tests.saver import test_contract_rows as rows
from tests.saver.caches import SMALL
from tests.unit import test_cache as caches

from .bench import Fault

Patch = pytest.MonkeyPatch


def _believed(growth: Growth, base: Named) -> Named:
    body = base.value.data[base.cut : base.cut + growth.keep]
    value = Typed(growth.tag, growth.head + body + growth.tail)
    return structs.replace(growing.named(value), hash=growth.hash)


def kept_bytes_believed(patch: Patch) -> None:
    def believed(self: cache._Entry, hash: bytes) -> Named:
        return structs.replace(growing.named(self.value), hash=hash)

    patch.setattr(cache._Entry, "checked", believed)


def growth_believed_by_the_router(patch: Patch) -> None:
    patch.setattr(rebuilding, "rebuilt", _believed)


def growth_believed_by_the_saver(patch: Patch) -> None:
    patch.setattr(growing, "rebuilt", _believed)


def growth_sent_again(patch: Patch) -> None:
    patch.setattr(writing, "_whole", list)


def names_begun_anew(patch: Patch) -> None:
    def named(value: Typed, base: Named | None = None) -> Named:
        made = plain(value, base)
        return structs.replace(made, hasher=plain(Typed(value.tag, b"")).hasher)

    plain = growing.named
    patch.setattr(growing, "named", named)


def nothing_forgotten(patch: Patch) -> None:
    patch.setattr(Cache, "forget", lambda self, thread: None)


def no_bound(patch: Patch) -> None:
    init = Cache.__init__

    def boundless(self: Cache, size_bytes: int) -> None:
        init(self, size_bytes)
        self._size_bytes = 1 << 40

    patch.setattr(Cache, "__init__", boundless)


def evicted_at_once(patch: Patch) -> None:
    patch.setattr(Cache, "get", lambda self, thread, hash: None)


def another_value_under_a_name(patch: Patch) -> None:
    came: list[Typed] = []
    insert, get = Cache._insert, Cache.get

    def inserted(self: Cache, thread: str, hash: bytes, entry: cache._Entry) -> None:
        came.append(entry.value)
        insert(self, thread, hash, entry)

    def other(self: Cache, thread: str, hash: bytes | None) -> Named | None:
        found = get(self, thread, hash)
        others = (growing.named(v) for v in reversed(came) if found and v != found.value)
        return found and next((structs.replace(n, hash=found.hash) for n in others), found)

    patch.setattr(Cache, "_insert", inserted)
    patch.setattr(Cache, "get", other)


def what_is_gone_is_believed_to_be_there(patch: Patch) -> None:
    came: set[bytes] = set()
    add, learn, get = Cache.add, Cache.learn, Cache.get

    def added(self: Cache, thread: str, values: Iterable[tuple[bytes, Typed]]) -> None:
        pairs = list(values)
        came.update(hash for hash, _ in pairs)
        add(self, thread, pairs)

    def learnt(self: Cache, thread: str, named: Named, replaces: bytes | None = None) -> None:
        came.add(named.hash)
        learn(self, thread, named, replaces)

    def believed(self: Cache, thread: str, hash: bytes | None) -> Named | None:
        found = get(self, thread, hash)
        if found is not None or hash not in came:
            return found
        return structs.replace(growing.named(Typed("null", b"")), hash=hash)

    for method, made in (("add", added), ("learn", learnt), ("get", believed)):
        patch.setattr(Cache, method, made)


def on_memory(check: Callable[..., Any], **more: Any) -> Any:
    """A test of savers on a router in this process."""

    async def run(tmp_path: Path, monkeypatch: Patch) -> None:
        routers = Routers(BACKENDS[0], tmp_path)
        await routers.open()
        try:
            with monkeypatch.context() as inner:
                wanted = {"monkeypatch": inner} if "monkeypatch" in check.__annotations__ else {}
                await check(routers, **wanted, **more)
        finally:
            await routers.close()

    return run


CACHE = (
    Fault(
        name="what the cache has is believed",
        plant=kept_bytes_believed,
        check=on_memory(caches.test_bytes_that_changed_in_memory_are_neither_shown_nor_built_on),
    ),
    Fault(
        name="a router believes a growth",
        plant=growth_believed_by_the_router,
        check=on_memory(caches.test_a_growth_that_does_not_make_its_name_is_sent_whole),
    ),
    Fault(
        name="a saver believes a growth",
        plant=growth_believed_by_the_saver,
        check=on_memory(caches.test_a_growth_that_a_router_got_wrong_is_fetched_whole),
    ),
    Fault(
        name="a growth whose base is gone is sent once more",
        plant=growth_sent_again,
        check=on_memory(caches.test_a_base_that_was_pruned_costs_a_second_round_trip),
        raises=(Unavailable,),
    ),
    Fault(
        name="the name of a value that grew does not go on from the older one",
        plant=names_begun_anew,
        check=on_memory(caches.test_a_list_that_grew_is_put_for_the_price_of_its_growth),
        raises=(InvalidArgument,),
    ),
    Fault(
        name="a cache keeps what was deleted",
        plant=nothing_forgotten,
        check=on_memory(caches.test_a_deleted_or_pruned_thread_is_forgotten),
    ),
    Fault(
        name="a cache has no bound",
        plant=no_bound,
        check=caches.test_what_was_used_least_lately_makes_room,
    ),
    Fault(
        name="a cache gives nothing back",
        plant=evicted_at_once,
        check=on_memory(caches.test_what_was_put_or_read_is_not_fetched_again),
    ),
    Fault(
        name="a cache that always makes room gives another value",
        plant=another_value_under_a_name,
        check=rows.test_a_channel_that_is_not_new_reads_through_its_version,
        cache="evicting",
    ),
    *(
        Fault(
            name=f"what is gone is believed to be there still, {size}",
            plant=what_is_gone_is_believed_to_be_there,
            check=rows.test_a_channel_that_is_not_new_reads_through_its_version,
            cache=size,
        )
        for size in SMALL
    ),
)
