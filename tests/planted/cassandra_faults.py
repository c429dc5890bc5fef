"""Faults of the storage in Cassandra: a look left out, a step out of its order, a timestamp."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import pytest

from checkpoint_router.backends.cassandra import CassandraStorage, index, writing
from checkpoint_router.backends.cassandra import removal as removing
from checkpoint_router.backends.cassandra.fences import Fences
from checkpoint_router.backends.cassandra.listings import Listings
from checkpoint_router.backends.cassandra.removal import Removal
from checkpoint_router.backends.cassandra.statements import STATEMENTS, Name, Statement
from checkpoint_router.backends.cassandra.writing import Writing
from checkpoint_router.core.errors import Unavailable
from tests.contract import servers
from tests.contract import test_listings as listings
from tests.unit import test_cassandra_shared as shared
from tests.unit import test_cassandra_statements as statements

from .bench import Fault
from .scenes import on_shard

Patch = pytest.MonkeyPatch
on_cassandra = partial(on_shard, backend="cassandra")


def on_two(check: Callable[..., Any], **given: Any) -> Any:
    """A test of two routers on one Cassandra."""

    async def run() -> None:
        url = servers.cassandra("planted")
        async with AsyncExitStack() as stack:
            have: dict[str, Any] = dict(given)
            for name in ("one", "two"):
                have[name] = storage = await shared.opened(url).__anext__()
                assert isinstance(storage, CassandraStorage)
                stack.push_async_callback(storage.close)
            with pytest.MonkeyPatch.context() as patch:
                have["monkeypatch"] = patch
                wanted = inspect.signature(check).parameters
                await check(**{k: v for k, v in have.items() if k in wanted})

    return run


def in_place_of(owner: Any, name: str, answer: Any) -> Callable[[Patch], None]:
    """Plants a coroutine that does nothing and answers that."""

    async def planted(*given: Any, **more: Any) -> Any:
        return answer(*given) if callable(answer) else answer

    return lambda patch: patch.setattr(owner, name, planted)


def other_words(name: Name, right: str, wrong: str) -> Callable[[Patch], None]:
    """Plants `wrong` where a statement says `right`."""
    text = STATEMENTS[name].text
    assert right in text
    return lambda patch: patch.setitem(STATEMENTS, name, Statement(text.replace(right, wrong)))


def intents_left_to_whoever_began_them(patch: Patch) -> None:
    async def state_of(self: Removal, thread: Any) -> Any:
        return await index.state_of(self._session, thread)

    patch.setattr(Removal, "settled", state_of)


def values_by_their_hash_alone(patch: Patch) -> None:
    rows = writing._value
    patch.setattr(writing, "_value", lambda thread, gen, blob, _: rows(thread, gen, blob, 7))


def doubtful_batches_not_sent_again(patch: Patch) -> None:
    async def once(self: Writing, work: Any) -> Any:
        return await work()

    patch.setattr(Writing, "_until_known", once)


CASSANDRA = (
    Fault(
        name="cassandra: the fence is not read after a batch",
        plant=in_place_of(Writing, "_is_as_before", True),
        check=on_two(shared.test_a_put_that_begins_after_a_delete_elsewhere_is_refused),
    ),
    Fault(
        name="cassandra: a delete does not raise the fence, so others keep their generation",
        plant=in_place_of(Fences, "lift", None),
        check=on_two(shared.test_a_put_that_begins_after_a_delete_elsewhere_is_refused),
    ),
    Fault(
        name="cassandra: a statement has no timestamp",
        plant=other_words(Name.PUT_LOG, " USING TIMESTAMP ?", ""),
        check=statements.test_every_statement_keeps_to_the_one_clock_of_its_table,
    ),
    Fault(
        name="cassandra: a record expires",
        plant=other_words(Name.PUT_PIECE, "USING TIMESTAMP ?", "USING TTL 9 AND TIMESTAMP ?"),
        check=statements.test_every_statement_keeps_to_the_one_clock_of_its_table,
    ),
    Fault(
        name="cassandra: a generation's removal is no later than its rows",
        plant=lambda patch: patch.setattr(removing, "ENDED", 0),
        check=on_two(shared.test_a_batch_that_lands_after_its_thread_was_deleted_stays_hidden),
    ),
    Fault(
        name="cassandra: a value is stored by its hash alone, also again after it was pruned",
        plant=values_by_their_hash_alone,
        check=on_two(shared.test_a_put_after_a_prune_elsewhere_must_send_again_what_was_pruned),
    ),
    Fault(
        name="cassandra: a prune does not look at the thread again",
        plant=in_place_of(Removal, "_stored", 0),
        check=on_two(shared.test_a_prune_is_dropped_if_an_event_came_since_its_caller_looked),
    ),
    Fault(
        name="cassandra: a removal is finished by nobody but its own router",
        plant=intents_left_to_whoever_began_them,
        check=on_two(
            shared.test_a_removal_whose_router_died_half_way_is_finished_by_whoever_comes_by,
            step="lift",
            prune=False,
        ),
    ),
    Fault(
        name="cassandra: an event whose value was pruned under it counts",
        plant=in_place_of(Writing, "_void", None),
        check=on_two(shared.test_an_event_whose_value_was_pruned_under_it_is_shown_by_nobody),
    ),
    Fault(
        name="cassandra: a batch whose outcome is unknown is not sent again",
        plant=doubtful_batches_not_sent_again,
        check=on_two(shared.test_a_batch_whose_answer_was_lost_is_one_event_with_one_dot),
        raises=(Unavailable,),
    ),
    Fault(
        name="cassandra: a checkpoint is not in the list of the newest",
        plant=in_place_of(Listings, "write", None),
        check=on_cassandra(listings.test_the_newest_checkpoints_of_a_tenant_come_greatest_first),
    ),
    Fault(
        name="cassandra: a log row counts before its batch came from a quorum",
        plant=in_place_of(index, "_there", lambda _, tail, __: list(tail)),
        check=on_two(shared.test_a_batch_that_is_half_there_is_not_shown),
    ),
)
