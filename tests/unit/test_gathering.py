"""Which write calls share an event, and who makes its call: `client.gathering` by itself."""

from __future__ import annotations

import pytest

from checkpoint_router.client.gathering import ALONE, WORKERS, Batch, Gathering, Turn
from checkpoint_router.core import limits
from checkpoint_router.core.errors import Unavailable
from checkpoint_router.core.records import EMPTY, TaskWrites, WriteRow

AT = ("", "c1", WORKERS)


def writes(name: str, rows: int = 1) -> TaskWrites:
    return TaskWrites(task_id=name, task_path="", rows=(WriteRow(0, "x", EMPTY),) * rows)


def joined(gathering: Gathering, *names: str, size: int = 0) -> list[Turn]:
    """Turns of callers that came while another was on its way."""
    turns = [gathering.join(AT, writes(name), (), size) for name in names]
    assert all(isinstance(turn, Turn) for turn in turns)
    return [turn for turn in turns if isinstance(turn, Turn)]


def first(gathering: Gathering, name: str = "first") -> Batch:
    batch = gathering.join(AT, writes(name), (), 0)
    assert isinstance(batch, Batch)
    return batch


def tasks(batch: object) -> list[str]:
    assert isinstance(batch, Batch)
    return [task.task_id for task in batch.content.tasks]


def test_a_call_alone_goes_at_once_and_leaves_nothing_behind() -> None:
    gathering = Gathering()
    for name in ("one", "two"):
        batch = first(gathering, name)
        assert tasks(batch) == [name]
        gathering.ended(AT, batch)
    assert not gathering._waiting


def test_calls_that_come_meanwhile_are_one_batch_in_their_order() -> None:
    gathering = Gathering()
    under_way = first(gathering)
    a, b, c = joined(gathering, "a", "b", "c")
    assert not a.future.done()
    gathering.ended(AT, under_way)
    batch = a.future.result(0)
    assert tasks(batch) == ["a", "b", "c"]
    assert not b.future.done()
    assert not c.future.done()
    assert isinstance(batch, Batch)
    gathering.ended(AT, batch)
    assert b.future.result(0) is None
    assert c.future.result(0) is None
    assert not gathering._waiting


def test_only_calls_of_one_place_wait_for_each_other() -> None:
    gathering = Gathering()
    first(gathering)
    for place in (("", "c2", WORKERS), ("sub:1", "c1", WORKERS), ("", "c1", object())):
        assert isinstance(gathering.join(place, writes("a"), (), 0), Batch)


@pytest.mark.parametrize("limit", ["tasks", "rows", "bytes"])
def test_a_batch_that_is_full_takes_no_more(limit: str) -> None:
    gathering = Gathering()
    under_way = first(gathering)
    size = limits.WRITE_SET_BYTES_MAX // 2 if limit == "bytes" else 0
    rows = limits.WRITE_ROWS_MAX // 2 if limit == "rows" else 1
    fits = limits.WRITE_TASKS_MAX if limit == "tasks" else 2
    turns = [gathering.join(AT, writes(str(n), rows), (), size) for n in range(fits + 1)]
    gathering.ended(AT, under_way)
    head, last = turns[0], turns[-1]
    assert isinstance(head, Turn)
    assert isinstance(last, Turn)
    batch = head.future.result(0)
    assert isinstance(batch, Batch)
    assert len(batch.tasks) == fits
    assert not last.future.done()
    gathering.ended(AT, batch)
    assert tasks(last.future.result(0)) == [str(fits)]


def test_a_call_that_no_batch_has_room_for_is_one_by_itself() -> None:
    gathering = Gathering()
    under_way = first(gathering)
    large, small = joined(gathering, "large", "small", size=limits.WRITE_SET_BYTES_MAX + 1)
    gathering.ended(AT, under_way)
    batch = large.future.result(0)
    assert tasks(batch) == ["large"]
    assert isinstance(batch, Batch)
    gathering.ended(AT, batch)
    assert tasks(small.future.result(0)) == ["small"]


def test_all_fail_as_their_batch_fails_and_the_next_goes_on() -> None:
    gathering = Gathering()
    under_way = first(gathering)
    a, b = joined(gathering, "a", "b")
    gathering.ended(AT, under_way)
    batch = a.future.result(0)
    (later,) = joined(gathering, "later")
    assert isinstance(batch, Batch)
    failure = Unavailable("away")
    gathering.ended(AT, batch, failure)
    raised = b.future.exception(0)
    assert isinstance(raised, Unavailable)
    assert raised is not failure, "each caller adds a traceback of its own"
    assert tasks(later.future.result(0)) == ["later"]


def test_a_batch_that_is_refused_is_made_call_by_call() -> None:
    gathering = Gathering()
    under_way = first(gathering)
    a, b = joined(gathering, "a", "b")
    gathering.ended(AT, under_way)
    batch = a.future.result(0)
    assert isinstance(batch, Batch)
    gathering.ended(AT, batch, ALONE)
    assert b.future.result(0) is ALONE


def test_a_caller_that_goes_hands_its_batch_on_whenever_it_goes() -> None:
    gathering = Gathering()
    under_way = first(gathering)
    a, b, c = joined(gathering, "a", "b", "c")
    gathering.leave(AT, b)  # before there is anything to hand on
    gathering.ended(AT, under_way)
    batch = a.future.result(0)
    gathering.leave(AT, a)  # after it was told, before it made the call
    assert c.future.result(0) is batch
    assert isinstance(batch, Batch)
    gathering.hand_on(AT, batch)  # in the middle of the call, and nobody is left
    assert not gathering._waiting
    assert tasks(first(gathering, "next")) == ["next"]


def test_nobody_who_waits_is_forgotten_when_all_before_have_gone() -> None:
    gathering = Gathering()
    under_way = first(gathering)
    turns = joined(gathering, "a", "b", size=limits.WRITE_SET_BYTES_MAX)
    gathering.leave(AT, turns[0])
    gathering.ended(AT, under_way)
    assert tasks(turns[1].future.result(0)) == ["b"]
