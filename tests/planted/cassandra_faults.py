"""Faults of the storage in Cassandra: a look left out, a step out of its order, a timestamp."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from checkpoint_router.backends.cassandra import CassandraStorage, index, values
from checkpoint_router.backends.cassandra import removal as removing
from checkpoint_router.backends.cassandra.fences import Fences
from checkpoint_router.backends.cassandra.growing import Remembered
from checkpoint_router.backends.cassandra.listings import Listings
from checkpoint_router.backends.cassandra.parts import Parts
from checkpoint_router.backends.cassandra.removal import Removal
from checkpoint_router.backends.cassandra.statements import BLOB, STATEMENTS, Name, Statement
from checkpoint_router.backends.cassandra.writing import Writing
from checkpoint_router.core.errors import DataLoss, Unavailable
from checkpoint_router.storage.logs import Log
from tests.contract import servers
from tests.contract import test_blobs as blobs
from tests.contract import test_listings as listings
from tests.unit import test_cassandra_growing as growing
from tests.unit import test_cassandra_parts as parts
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
    rows = values.pieces

    def by_seven(thread: Any, gen: int, kind: int, key: bytes, *rest: Any) -> Any:
        return rows(thread, gen, kind, key, 7, *rest[1:])

    patch.setattr(values, "pieces", by_seven)


def log_of_the_base(self: Remembered, base: Any) -> Log | None:
    """The log that a value ends in, as long as the value is, whoever began it."""
    return Log(id=base.path[-1].log, depth=0, length=base.keep, appends=0) if base.path else None


def values_that_end_too_early(patch: Patch) -> None:
    rows = values.grown

    def early(thread: Any, gen: int, blob: Any, writer: int, how: Any) -> Any:
        last = replace(how.path[-1], end=how.path[-1].end - 1)
        return rows(thread, gen, blob, writer, replace(how, path=(*how.path[:-1], last)))

    patch.setattr(values, "grown", early)


def tails_left_out(patch: Patch) -> None:
    rows = values.grown
    patch.setattr(values, "grown", lambda *given: rows(*given)[-1:])


def logs_that_go_with_any_of_their_values(patch: Patch) -> None:
    async def all_logs(session: Any, thread: Any, gen: int, doomed: Any) -> tuple[bytes, ...]:
        return tuple(span.key for copy in doomed for span in copy.path)

    patch.setattr(values, "dead_logs", all_logs)


def rows_that_stand_for_all_of_a_value(patch: Patch) -> None:
    async def by_rows(session: Any, thread: Any, gen: int, hashes: Any) -> tuple[bytes, ...]:
        found = await values.sizes(session, thread, gen, hashes)
        return tuple(h for h in hashes if h not in found)

    patch.setattr(values, "missing", by_rows)


def any_prune_since_is_overlooked(patch: Patch) -> None:
    look = Writing._is_as_before
    patch.setattr(Writing, "_is_as_before", lambda self, place, _: look(self, place, place.state))


async def of_rows_alone(session: Any, thread: Any, gen: int, hashes: Any, *, tails: bool) -> Any:
    return set(await values.first_pieces(session, thread, gen, BLOB, hashes))


def no_doubt(patch: Patch) -> None:
    stable = index.Look._stable

    async def sure(*given: Any) -> index.Index:
        return replace(await stable(*given), doubtful=False)

    patch.setattr(index.Look, "_stable", sure)


def doubtful_batches_not_sent_again(patch: Patch) -> None:
    async def once(self: Writing, work: Any) -> Any:
        return await work()

    patch.setattr(Writing, "_until_known", once)


def versions_as_they_were(patch: Patch) -> None:
    look = Parts.look_at

    async def remembered(self: Parts, tenant: str, parts: Any) -> Any:
        known = {part: self._known.get((tenant, part)) for part in parts}
        if None in known.values():
            return await look(self, tenant, parts)
        return {part: versions[0] for part, versions in known.items() if versions}

    patch.setattr(Parts, "look_at", remembered)


CASSANDRA = (
    Fault(
        name="cassandra: a put does not look whether its part was renewed",
        plant=in_place_of(Listings, "confirm", None),
        check=on_two(parts.test_a_row_that_was_written_to_the_version_before_is_written_again),
    ),
    Fault(
        name="cassandra: a part is copied before anybody can know of its renewal",
        plant=in_place_of(Fences, "lift", None),
        check=on_two(parts.test_a_row_that_is_written_while_its_part_is_copied_is_not_lost),
    ),
    Fault(
        name="cassandra: a removal looks only at the version that it knew",
        plant=lambda patch: patch.setattr(Parts, "sure", lambda self, part: True),
        check=on_two(parts.test_a_row_that_is_written_while_its_part_is_copied_is_not_lost),
    ),
    Fault(
        name="cassandra: a list is read without a look whether its part was renewed",
        plant=versions_as_they_were,
        check=on_two(parts.test_a_read_of_a_version_that_is_dropped_under_it_reads_the_next_one),
    ),
    Fault(
        name="cassandra: a part is never renewed",
        plant=lambda patch: patch.setattr(Parts, "removed", lambda self, part, rows: False),
        check=on_two(
            parts.test_a_part_is_renewed_after_so_many_removals_and_its_reads_meet_none_of_them
        ),
    ),
    Fault(
        name="cassandra: a log is appended to by routers that did not begin it",
        plant=lambda patch: patch.setattr(Remembered, "log", log_of_the_base),
        check=on_two(growing.test_two_routers_that_grow_one_value_at_once_disturb_nobody),
        raises=(AssertionError, DataLoss),
    ),
    Fault(
        name="cassandra: an offset is free again when it is not known what stands there",
        plant=lambda patch: patch.setattr(Remembered, "log", log_of_the_base),
        check=on_two(growing.test_bytes_whose_fate_is_unknown_are_never_written_over),
        raises=(AssertionError, DataLoss),
    ),
    Fault(
        name="cassandra: a value names a byte too few of its log",
        plant=values_that_end_too_early,
        check=on_cassandra(blobs.test_a_value_that_grows_can_be_read_at_each_of_its_ages),
        raises=(AssertionError, DataLoss),
    ),
    Fault(
        name="cassandra: what a value appended is not written",
        plant=tails_left_out,
        check=on_cassandra(blobs.test_a_value_that_grows_can_be_read_at_each_of_its_ages),
        raises=(AssertionError, DataLoss),
    ),
    Fault(
        name="cassandra: a prune takes a log that another value stands in",
        plant=logs_that_go_with_any_of_their_values,
        check=on_two(growing.test_a_prune_leaves_a_log_as_long_as_any_value_stands_in_it),
        raises=(AssertionError, DataLoss),
    ),
    Fault(
        name="cassandra: a prune leaves the logs that nothing stands in",
        plant=in_place_of(values, "dead_logs", ()),
        check=on_two(growing.test_a_prune_leaves_a_log_as_long_as_any_value_stands_in_it),
    ),
    Fault(
        name="cassandra: a value counts as stored when its log is gone",
        plant=rows_that_stand_for_all_of_a_value,
        check=on_two(
            growing.test_a_value_that_grew_from_one_that_was_pruned_elsewhere_is_asked_for,
            ahead=False,
        ),
        raises=(AssertionError, DataLoss),
    ),
    Fault(
        name="cassandra: a put looks only for prunes that no read of its router has seen",
        plant=any_prune_since_is_overlooked,
        check=on_two(
            growing.test_a_prune_that_a_read_noticed_first_is_noticed_by_the_put_under_way_too
        ),
        raises=(AssertionError, DataLoss),
    ),
    Fault(
        name="cassandra: a log row counts before what its value appended came from a quorum",
        plant=lambda patch: patch.setattr(values, "arrived", of_rows_alone),
        check=on_two(growing.test_a_batch_whose_tail_is_not_there_yet_is_not_shown),
    ),
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
        plant=in_place_of(Removal, "_seen", index.Index(rows=(), counts={})),
        check=on_two(shared.test_a_prune_is_dropped_if_an_event_came_since_its_caller_looked),
    ),
    Fault(
        name="cassandra: a prune is decided without regard to a batch that is half there",
        plant=in_place_of(Removal, "_came", False),
        check=on_two(
            shared.test_a_prune_takes_no_value_while_a_batch_is_half_there_that_a_reader_may_show,
            decided=True,
        ),
    ),
    Fault(
        name="cassandra: a batch that is half there leaves no doubt",
        plant=no_doubt,
        check=on_two(
            shared.test_a_prune_takes_no_value_while_a_batch_is_half_there_that_a_reader_may_show,
            decided=False,
        ),
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
        plant=in_place_of(Listings, "write", []),
        check=on_cassandra(listings.test_the_newest_checkpoints_of_a_tenant_come_greatest_first),
    ),
    Fault(
        name="cassandra: a log row counts before its batch came from a quorum",
        plant=in_place_of(index.Look, "_there", lambda _, tail, *__: list(tail)),
        check=on_two(shared.test_a_batch_that_is_half_there_is_not_shown),
    ),
)
