"""Faults of engine and server: what is taken in, what is shown, what is refused."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from checkpoint_router.core import accept, retention, view
from checkpoint_router.core.accept import Accepted
from checkpoint_router.core.answers import PutAnswer
from checkpoint_router.core.history import History, Lineage
from checkpoint_router.core.ids import ThreadKey
from checkpoint_router.core.records import Event, TaskWrites, WriteRow
from checkpoint_router.core.token import parse
from checkpoint_router.engine import reading, removal, writing
from checkpoint_router.engine.removal import Removal
from checkpoint_router.engine.threads import ThreadState
from checkpoint_router.engine.writing import Writing
from checkpoint_router.server.admission import Admission
from checkpoint_router.storage.port import Append
from checkpoint_router.wire import event_checks
from tests.saver import test_contract_list as lists
from tests.saver import test_contract_writes as writes
from tests.saver import test_retention as retentions
from tests.saver import test_tokens as tokens
from tests.wire import test_bad_input as bad_input
from tests.wire import test_fuzz as fuzz
from tests.wire import test_handlers as handlers
from tests.wire import test_stream as stream

from . import scenes
from .bench import Fault

Patch = pytest.MonkeyPatch


def values_not_checked_on_arrival(patch: Patch) -> None:
    patch.setattr(writing, "_check_hashes", lambda blobs: None)


def needs_not_checked(patch: Patch) -> None:
    patch.setattr(History, "missing", lambda self, segment, ranges: ())
    decide = accept.accept

    def without_needs(*asked: Any, **more: Any) -> Any:
        verdict = decide(*asked, **more)
        return Accepted(()) if isinstance(verdict, Accepted) else verdict

    patch.setattr(writing, "accept", without_needs)


def tokens_not_verified(patch: Patch) -> None:
    for module in (writing, reading):
        patch.setattr(module, "unseal", lambda sealed, key: parse(sealed))


def token_of_any_thread(patch: Patch) -> None:
    patch.setattr(accept, "_foreign", lambda history, event, token: None)


def history_before_storage(patch: Patch) -> None:
    append = Writing._append

    async def eager(self: Writing, state: ThreadState, event: Event, asked: Append) -> Any:
        state.history.apply(asked.entry)
        return await append(self, state, event, asked)

    patch.setattr(Writing, "_append", eager)


def answer_before_storage(patch: Patch) -> None:
    async def eager(self: Writing, state: ThreadState, event: Event, asked: Append) -> Any:
        return PutAnswer(missing=(), clock=self._shard.clock(state.history))

    patch.setattr(Writing, "_append", eager)


def history_kept_after_a_delete(patch: Patch) -> None:
    async def half(
        self: Removal, state: ThreadState, thread: ThreadKey, gen: int | None, operation: bytes
    ) -> None:
        await self._shard.storage.delete(thread, gen, operation)

    patch.setattr(Removal, "_end", half)


def prune_without_delta_ancestors(patch: Patch) -> None:
    needs = retention.Needs

    def poor(**given: Any) -> retention.Needs:
        return needs(**{**given, "delta_channels": frozenset()})

    patch.setattr(removal, "Needs", poor)


def losers_hidden_by_id(patch: Patch) -> None:
    by_id = view.by_id

    def winners_only(
        history: History, ns: str, cid: str, lineage: Lineage | None = None
    ) -> view.Shown | None:
        named = history.checkpoints.get((ns, cid), 0)
        seen = history.lineage(history.winner()).mask
        return by_id(history, ns, cid, lineage) if named & seen else None

    patch.setattr(view, "by_id", winners_only)


def last_regular_write_wins(patch: Patch) -> None:
    def last(calls: Iterable[TaskWrites]) -> list[tuple[str, str, WriteRow]]:
        rows = {
            (call.task_id, row.idx): (call.task_id, call.task_path, row)
            for call in calls
            for row in call.rows
        }
        return sorted(rows.values(), key=lambda r: (r[1], r[0], r[2].idx))

    patch.setattr(view, "fold", last)


def sizes_not_limited(patch: Patch) -> None:
    patch.setattr(event_checks, "checked_size", lambda what, size, *limit: size)


def bytes_not_counted(patch: Patch) -> None:
    patch.setattr(Admission, "take_bytes", lambda self, size: None)
    patch.setattr(Admission, "give_bytes", lambda self, size: None)


def entries_left_out(patch: Patch) -> None:
    listed = view.listed

    def short(*given: Any, **how: Any) -> Any:
        names = list(listed(*given, **how))
        return iter(n for at, n in enumerate(names) if at % 16 or not at)

    patch.setattr(view, "listed", short)


def reads_inside_a_run_show_the_winner(patch: Patch) -> None:
    async def winner(self: reading.Reading, *_: Any) -> None:
        return None

    patch.setattr(reading.Reading, "lineage", winner)


ROUTER = (
    Fault(
        name="a value is not checked when it arrives",
        plant=values_not_checked_on_arrival,
        check=bad_input.test_a_bad_mutation_gets_an_error_that_names_what_is_wrong,
        given={"case": "a blob under a false name"},
    ),
    Fault(
        name="what an event has seen is not checked",
        plant=needs_not_checked,
        check=stream.test_a_call_that_waits_does_not_hold_up_the_next_one,
    ),
    Fault(
        name="the MAC of a token is not verified",
        plant=tokens_not_verified,
        check=fuzz.test_a_token_with_any_bit_changed_is_refused.hypothesis.inner_test,  # type: ignore[attr-defined]  # hypothesis' own
        given={"data": scenes.Drawn(0)},
    ),
    Fault(
        name="a token of another thread is taken",
        plant=token_of_any_thread,
        check=bad_input.test_a_token_of_another_thread_is_refused,
    ),
    Fault(
        name="a history is ahead of its storage",
        plant=history_before_storage,
        check=scenes.no_read_rests_on_an_event_that_was_never_stored,
    ),
    Fault(
        name="a put is answered before the storage has it",
        plant=answer_before_storage,
        check=scenes.a_put_is_answered_after_the_storage_has_it,
    ),
    Fault(
        name="a delete leaves the history in memory",
        plant=history_kept_after_a_delete,
        check=scenes.a_deleted_thread_has_no_conflicts,
    ),
    Fault(
        name="a prune takes what a delta channel is rebuilt from",
        plant=prune_without_delta_ancestors,
        check=retentions.test_delta_channels_read_the_same_after_a_prune,
    ),
    Fault(
        name="a fork that lost is hidden from reads by its id",
        plant=losers_hidden_by_id,
        check=tokens.test_what_two_savers_put_without_knowing_of_each_other_is_a_conflict_and_kept,
    ),
    Fault(
        name="the last regular write wins",
        plant=last_regular_write_wins,
        check=writes.test_the_first_regular_write_at_a_position_wins,
        given={"channel": "x"},
    ),
    Fault(
        name="sizes are not limited",
        plant=sizes_not_limited,
        check=bad_input.test_a_bad_event_gets_an_error_that_names_what_is_wrong_and_is_not_written,
        given={"case": "a large body"},
    ),
    Fault(
        name="bytes in flight are not limited",
        plant=bytes_not_counted,
        check=handlers.test_one_request_is_let_in_however_large_and_the_next_is_not,
    ),
    Fault(
        name="reads inside a run show the winner",
        plant=reads_inside_a_run_show_the_winner,
        check=scenes.a_read_inside_a_run_shows_its_own_line,
    ),
    Fault(
        name="each sixteenth entry of a list is left out",
        plant=entries_left_out,
        check=lists.test_a_long_list_is_whole_and_each_entry_is_there_once,
    ),
)
