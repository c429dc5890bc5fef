"""Which write calls share an event, and who makes its call: `client.gathering` by itself."""

from __future__ import annotations

import pytest

from checkpoint_router.client.gathering import WORKERS, Batch, Gathering, Turn
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
    return [task.task_id for task in Gathering().content(batch).tasks]


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
    assert not a.over
    gathering.ended(AT, under_way)
    batch = a.wait()
    assert tasks(batch) == ["a", "b", "c"]
    assert not b.over
    assert not c.over
    assert isinstance(batch, Batch)
    gathering.ended(AT, batch)
    assert b.wait() is None
    assert c.wait() is None
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
    batch = head.wait()
    assert isinstance(batch, Batch)
    assert len(tasks(batch)) == fits
    assert not last.over
    gathering.ended(AT, batch)
    assert tasks(last.wait()) == [str(fits)]


def test_a_call_that_no_batch_has_room_for_is_one_by_itself() -> None:
    gathering = Gathering()
    under_way = first(gathering)
    large, small = joined(gathering, "large", "small", size=limits.WRITE_SET_BYTES_MAX + 1)
    gathering.ended(AT, under_way)
    batch = large.wait()
    assert tasks(batch) == ["large"]
    assert isinstance(batch, Batch)
    gathering.ended(AT, batch)
    assert tasks(small.wait()) == ["small"]


def test_all_fail_as_their_batch_fails_and_the_next_goes_on() -> None:
    gathering = Gathering()
    under_way = first(gathering)
    a, b = joined(gathering, "a", "b")
    gathering.ended(AT, under_way)
    batch = a.wait()
    (later,) = joined(gathering, "later")
    assert isinstance(batch, Batch)
    failure = Unavailable("away")
    gathering.ended(AT, batch, failure)
    with pytest.raises(Unavailable) as raised:
        b.wait()
    assert raised.value is not failure, "each caller adds a traceback of its own"
    assert tasks(later.wait()) == ["later"]


def test_a_caller_that_goes_hands_its_batch_on_whenever_it_goes() -> None:
    gathering = Gathering()
    under_way = first(gathering)
    a, b, c = joined(gathering, "a", "b", "c")
    assert gathering.leave(AT, b), "others care for what it wrote"
    gathering.ended(AT, under_way)
    batch = a.wait()
    assert gathering.leave(AT, a)  # after it was told, before it made the call
    assert c.wait() is batch
    assert isinstance(batch, Batch)
    assert not gathering.hand_on(AT, batch)  # in the middle of the call, and nobody is left
    assert not gathering._waiting
    assert tasks(first(gathering, "next")) == ["next"]


def test_nobody_who_waits_is_forgotten_when_all_before_have_gone() -> None:
    gathering = Gathering()
    under_way = first(gathering)
    turns = joined(gathering, "a", "b", size=limits.WRITE_SET_BYTES_MAX)
    gathering.leave(AT, turns[0])
    gathering.ended(AT, under_way)
    assert tasks(turns[1].wait()) == ["b"]


def test_any_number_of_batches_may_be_left_behind() -> None:
    gathering = Gathering()
    under_way = first(gathering)
    names = [str(number) for number in range(2000)]
    for turn in joined(gathering, *names, size=limits.WRITE_SET_BYTES_MAX):
        gathering.leave(AT, turn)
    gathering.ended(AT, under_way)
    assert not gathering._waiting


def test_a_call_that_is_collected_while_another_joins_holds_up_nobody() -> None:
    """As the collector may do it: in the thread that joins, at any moment."""
    gathering = Gathering()
    under_way = first(gathering)

    class Rows(tuple[WriteRow, ...]):
        __slots__ = ()

        def __len__(self) -> int:
            gathering.hand_on(AT, under_way)
            return 0

    (turn,) = (gathering.join(AT, TaskWrites(task_id="a", task_path="", rows=Rows()), (), 0),)
    assert isinstance(turn, Turn)
    assert tasks(turn.wait()) == ["a"]
