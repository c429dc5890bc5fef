"""Agent hosts whose clocks are seconds or an hour apart: the head is always the causal one.

A checkpoint's id is drawn from the clock of the host that made it (faked here, see `hosts`). What
was read before is in the past of what is written after, whatever the ids say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from .calls import Flavour
from .hosts import Host, Job, Seen, running_hosts

pytestmark = [pytest.mark.router_only, pytest.mark.usefixtures("undisputed")]

HOUR = 3600.0
CLOCKS: dict[Flavour, tuple[float, ...]] = {
    "sync": (0.0, 5.0, -HOUR),
    "async": (HOUR, -5.0, 0.0),
}
"""The clocks of three hosts, seconds and an hour ahead and behind, and which half of the saver each
set meets: no half looks at a clock."""

Do = Callable[..., Seen]


@pytest.fixture(scope="session")
def hosts() -> Iterator[dict[float, Host]]:
    """One process for each clock."""
    with running_hosts(*{each for clocks in CLOCKS.values() for each in clocks}) as running:
        yield running


@pytest.fixture
def do(hosts: dict[float, Host], router: Any, tenant: str, flavour: Flavour) -> Do:
    """Has the n-th host do something on the thread."""
    clocks = CLOCKS[flavour]

    def ask(number: int, what: str, word: str = "") -> Seen:
        job = Job(target=router.target, tenant=tenant, flavour=flavour, what=what, word=word)
        return hosts[clocks[number % len(clocks)]].does(job)

    return ask


def line_of(seen: Seen) -> list[str]:
    """The ids from the head back to the root."""
    parents = dict(seen.history)
    found, at = [], seen.head
    while at is not None:
        found.append(at)
        at = parents[at]
    return found


def test_each_turn_goes_on_from_the_last_one_whichever_host_has_it(do: Do) -> None:
    expected: list[str] = []
    seen = do(0, "look")
    for turn in range(6):
        word = f"w{turn}"
        seen = do(turn, "turn", word)
        expected += [word, word.upper(), "."]
        assert (seen.said, seen.next) == (expected, ())
        # A third host, which had no part in the turn, sees the same.
        assert do(turn + 1, "look") == seen
    assert len(line_of(seen)) == len(seen.history) == 4 * 6


def test_a_delta_channel_has_the_changes_of_all_turns_in_their_order(do: Do) -> None:
    expected: list[str] = []
    for turn in range(4):
        word = f"w{turn}"
        expected += [word, word.upper(), "."]
        assert do(turn, "turn", word).changes == expected


def test_an_interrupt_of_one_host_is_answered_on_another(do: Do) -> None:
    expected: list[str] = []
    for turn in range(3):
        waiting = do(turn, "turn", "well?")
        assert (waiting.said, waiting.next) == ([*expected, "well?"], ("call",))
        assert do(turn + 2, "look") == waiting
        expected += ["well?", f"A{turn}", "."]
        answered = do(turn + 1, "answer", f"a{turn}")
        assert (answered.said, answered.next) == (expected, ())


def test_an_update_and_a_journey_into_the_past_win_over_greater_ids(do: Do) -> None:
    do(0, "turn", "one")
    seen = do(1, "update", "changed")
    assert seen.said == ["one", "ONE", ".", "changed"]
    assert do(2, "look") == seen
    travelled = do(2, "travel")
    assert travelled.said == ["one", "ONE", "."]
    assert do(0, "look") == travelled
    assert do(1, "turn", "two").said == ["one", "ONE", ".", "two", "TWO", "."]


def test_a_history_has_every_checkpoint_in_the_order_of_their_ids(do: Do) -> None:
    """The order of a listing is the contract's: by id, which is by the makers' clocks. Where clocks
    differ, its first entry need not be the head; the head is what `get_state` says."""
    ids: set[str] = set()
    heads_first: set[bool] = set()
    for turn in range(4):
        seen = do(turn, "turn", f"w{turn}")
        listed = [each for each, _ in seen.history]
        assert listed == sorted(listed, reverse=True)
        assert ids < set(listed)
        assert seen.head in set(listed) - ids
        heads_first.add(seen.head == listed[0])
        ids = set(listed)
    # Else the clocks were not wrong, and no test here says anything.
    assert heads_first == {True, False}
