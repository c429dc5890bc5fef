"""Faults of the storages: what is durable, what is one transaction, whose number is whose."""

from __future__ import annotations

import sqlite3
import subprocess
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from msgspec import structs

from checkpoint_router.backends.sqlite import values
from checkpoint_router.backends.sqlite.changes import Changes
from checkpoint_router.backends.sqlite.watch import Watch
from checkpoint_router.core.clock import indices as each_of
from checkpoint_router.core.clock import ranges_of
from checkpoint_router.storage.memory import MemoryStorage
from checkpoint_router.storage.port import Append, Appended, Erase
from tests.contract import test_appends as appends
from tests.contract import test_durability as durability
from tests.contract import test_removals as removals
from tests.unit import test_sqlite_faults as faults

from . import scenes
from .bench import Fault
from .scenes import on_shard

Patch = pytest.MonkeyPatch


def answered_before_commit(patch: Patch) -> None:
    start = subprocess.Popen

    def other_child(command: list[str], **how: Any) -> Any:
        planted = ["tests.planted.early" if c == "tests.contract.child" else c for c in command]
        return start(planted, **how)

    patch.setattr(subprocess, "Popen", other_child)


class _AnyHash:
    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = None  # type: ignore[assignment]  # nobody keeps it


def values_not_checked_when_read(patch: Patch) -> None:
    patch.setattr(values, "blob_hash", lambda tag, data: _AnyHash())


class _Torn:
    """A connection that commits what came before the events."""

    def __init__(self, conn: sqlite3.Connection) -> None:
        self._conn = conn

    def executemany(self, statement: str, rows: Any) -> sqlite3.Cursor:
        self._conn.execute("COMMIT")
        self._conn.execute("BEGIN IMMEDIATE")
        return self._conn.executemany(statement, rows)


def events_in_a_transaction_of_their_own(patch: Patch) -> None:
    flush = Changes._flush

    def torn(self: Changes) -> None:
        whole, self._conn = self._conn, _Torn(self._conn)  # type: ignore[assignment]  # stands in
        try:
            flush(self)
        finally:
            self._conn = whole

    patch.setattr(Changes, "_flush", torn)


def _on_append(patch: Patch, change: Any) -> None:
    append = Changes.append
    patch.setattr(Changes, "append", lambda self, asked: append(self, change(self, asked)))


def missing_values_not_looked_for(patch: Patch) -> None:
    _on_append(patch, lambda self, asked: structs.replace(asked, names=()))


def events_that_are_needed_not_looked_for(patch: Patch) -> None:
    _on_append(patch, lambda self, asked: structs.replace(asked, needs=()))


def generation_not_compared(patch: Patch) -> None:
    _on_append(patch, lambda self, asked: structs.replace(asked, gen=self._place(asked.thread).gen))


def duplicates_not_noticed(patch: Patch) -> None:
    append = Changes.append

    def again(self: Changes, asked: Append) -> Appended:
        place = self._place(asked.thread)
        id = asked.entry.id
        known = self._indices(place, id.segment)
        if known:
            others = ranges_of(i for i in each_of(known) if i != id.index)
            self._known[place.t, place.gen, id.segment] = others
        return append(self, asked)

    patch.setattr(Changes, "append", again)


def actor_not_drawn_anew(patch: Patch) -> None:
    draw = Changes.record_actor

    def first(self: Changes) -> tuple[int, int]:
        known = self._conn.execute("SELECT actor, id FROM actor ORDER BY id LIMIT 1").fetchone()
        return draw(self) if known is None else (known[0], known[1])

    patch.setattr(Changes, "record_actor", first)


def actor_in_memory_not_drawn_anew(patch: Patch) -> None:
    def same(self: MemoryStorage) -> None:
        self._actor = 7
        self._counters.clear()

    patch.setattr(MemoryStorage, "_new_actor", same)


def erase_by_a_stale_view(patch: Patch) -> None:
    erase = Changes.erase

    def whenever(self: Changes, asked: Erase) -> bool:
        return erase(self, replace(asked, stored=1 << 40))

    patch.setattr(Changes, "erase", whenever)


def files_not_compared(patch: Patch) -> None:
    patch.setattr(Watch, "look", Watch.refuse_lost)


STORAGE = (
    Fault(
        name="a storage that was taken away is not noticed",
        plant=files_not_compared,
        check=faults.TestLostFiles().test_a_directory_that_came_back_is_whole_at_the_next_start,
    ),
    Fault(
        name="a group is answered before its commit",
        plant=answered_before_commit,
        check=on_shard(durability.test_an_append_outlives_its_process, opened=False),
    ),
    Fault(
        name="a value is not checked when it is read",
        plant=values_not_checked_when_read,
        check=faults.TestDamage().test_a_flipped_byte_of_a_value_is_named,
    ),
    Fault(
        name="an event and its values are not one transaction",
        plant=events_in_a_transaction_of_their_own,
        check=scenes.an_append_that_fails_half_way_leaves_nothing,
    ),
    Fault(
        name="values that are missing are not looked for",
        plant=missing_values_not_looked_for,
        check=on_shard(
            appends.test_an_event_whose_blobs_are_neither_stored_nor_sent_writes_nothing
        ),
    ),
    Fault(
        name="events that are needed are not looked for",
        plant=events_that_are_needed_not_looked_for,
        check=on_shard(
            partial(
                appends.test_an_event_waits_until_all_that_it_needs_is_stored,
                ranges=((1, 5),),
                ok=False,
            )
        ),
    ),
    Fault(
        name="a retry is a second event",
        plant=duplicates_not_noticed,
        check=on_shard(
            appends.test_an_event_that_was_stored_before_is_answered_with_the_digest_that_is_stored
        ),
    ),
    Fault(
        name="an actor is used again after a restart, and with it its dots",
        plant=actor_in_memory_not_drawn_anew,
        check=on_shard(appends.TestDots().test_a_restart_takes_a_new_actor, "memory"),
    ),
    Fault(
        name="an actor is used again, on a file that has its dots",
        plant=actor_not_drawn_anew,
        check=on_shard(appends.TestDots().test_a_restart_takes_a_new_actor),
    ),
    Fault(
        name="a put of an ended generation is taken",
        plant=generation_not_compared,
        check=on_shard(
            appends.test_an_event_of_a_deleted_generation_is_refused_also_if_it_had_been_stored
        ),
    ),
    Fault(
        name="a prune by an old look erases what a newer put names",
        plant=erase_by_a_stale_view,
        check=on_shard(
            removals.TestErase().test_nothing_is_erased_if_an_event_came_since_the_caller_looked
        ),
    ),
)
